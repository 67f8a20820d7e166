//! Does what the plan says, through the runtime.

use crate::container_config::read_bounded;
use crate::container_status::StartFailure;
use crate::memory::Memory;
use crate::observed::Observed;
use crate::plan::{Action, KillReason};
use crate::reference::{ContainerKind, ephemeral_containers, init_containers, is_sidecar, pod_text, spec};
use crate::start::{Sandbox, Starting};
use crate::terminate::{Killing, grace_period, kill_container, kill_pod};
use crate::volumes::Paths;
use crate::{sandbox_config, user_namespaces};
use pintle_cri::{ContainerFilter, ContainerState, SandboxState};
use pintle_types::k8s::api::core::v1::{Container, Pod};
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const MAX_RESOLV_CONF_BYTES: u64 = 64 * 1024;
/// After a pull failed, so that the status tells of the delay and not of the failure.
const AFTER_PULL_FAILURE: Duration = Duration::from_secs(2);
/// Dead containers that are kept of each name, beside the newest: the one before it has the last state and its logs.
const KEPT_BEFORE_NEWEST: usize = 1;

/// What became of the actions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When to look again, if nothing happens before.
    pub again_after: Option<Duration>,
    /// Something failed that is to be tried again with a growing delay.
    pub failed: bool,
}

impl Outcome {
    fn look_after(&mut self, delay: Duration) {
        self.again_after = Some(self.again_after.map_or(delay, |d| d.min(delay)));
    }
}

/// The doer of one plan.
pub struct Act<'a> {
    pub memory: &'a Memory,
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub volumes: &'a Paths,
    pub cgroup_parent: &'a str,
    pub halt: &'a CancellationToken,
}

impl Act<'_> {
    /// Does the actions in order. What can't go on without a failed one is left for the next time.
    pub async fn perform(&self, actions: &[Action]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut sandbox = None;
        for action in actions {
            if self.halt.is_cancelled() {
                break;
            }
            let went_on = match action {
                Action::KillPod => self.kill_pod(actions).await,
                Action::Kill { id, name, reason, message } => self.kill(id, name, *reason, message).await,
                Action::Resize { id, name } => self.resize(id, name).await,
                Action::CreateSandbox { attempt } => {
                    self.create_sandbox(*attempt).await.map(|made| sandbox = Some(made))
                }
                Action::Start { kind, index } => {
                    if sandbox.is_none() {
                        sandbox = self.existing_sandbox();
                    }
                    let Some(sandbox) = &sandbox else { continue };
                    self.start(sandbox, *kind, *index, &mut outcome).await
                }
            };
            if went_on.is_err() {
                outcome.failed = true;
                break;
            }
        }
        if actions.iter().any(|a| matches!(a, Action::Start { .. })) {
            self.tidy().await;
        }
        outcome
    }

    async fn kill_pod(&self, actions: &[Action]) -> Result<(), ()> {
        let anew = actions.iter().any(|a| matches!(a, Action::CreateSandbox { .. }));
        let events = &self.memory.host.events;
        if anew {
            let message = "Pod sandbox changed, it will be killed and re-created.".into();
            events.pod(self.pod, false, "SandboxChanged", message);
        }
        kill_pod(self.memory, self.pod, self.observed, None).await.map_err(|error| {
            events.pod(self.pod, true, "FailedKillPod", format!("error killing pod: {error}"));
        })
    }

    async fn resize(&self, id: &str, name: &str) -> Result<(), ()> {
        let host = &self.memory.host;
        let found = crate::reference::lasting_containers(self.pod).find(|(_, c)| c.name == name);
        let (Some((_, container)), Some(status)) = (found, self.observed.container(name)) else { return Ok(()) };
        let wanted = crate::resources::of_container(self.pod, container, host.settings.machine_memory);
        let update = crate::resize::update(&status.resources, &wanted);
        let result = host.runtime.update_container_resources(id, update).await;
        let failed = result.err().map(|e| e.to_string());
        if let Some(error) = &failed {
            tracing::warn!(error, pod = pod_text(self.pod), container = name, "a container can't be resized");
        }
        let done = failed.is_none();
        *self.memory.resize_error.lock() = failed;
        if done { Ok(()) } else { Err(()) }
    }

    async fn kill(&self, id: &str, name: &str, reason: KillReason, message: &str) -> Result<(), ()> {
        let found = crate::reference::lasting_containers(self.pod).find(|(_, c)| c.name == name);
        let (kind, container) = found.map_or((ContainerKind::Regular, None), |(kind, c)| (kind, Some(c)));
        let killing = Killing {
            memory: self.memory,
            pod: self.pod,
            spec: container,
            kind,
            id,
            name,
            ips: self.observed.ips(),
            message,
            grace: grace_period(self.pod, container, reason),
        };
        kill_container(&killing).await.map_err(|error| {
            tracing::warn!(%error, pod = pod_text(self.pod), container = name, "a container can't be stopped");
        })
    }

    // flow: pod 11/16
    async fn create_sandbox(&self, attempt: u32) -> Result<Sandbox, ()> {
        let host = &self.memory.host;
        host.measures.started_pods.inc();
        let made = async {
            let handler = self.runtime_handler().await?;
            self.check_users(&handler).await?;
            let config = self.sandbox_config(attempt)?;
            std::fs::create_dir_all(&config.log_directory)
                .map_err(|e| format!("cannot make the log directory {:?}: {e}", config.log_directory))?;
            let id = host.runtime.run_pod_sandbox(config.clone(), &handler).await.map_err(|e| e.to_string())?;
            let status = host.runtime.pod_sandbox_status(&id).await.map_err(|e| e.to_string())?;
            Ok::<_, String>(Sandbox { id, config, ips: self.or_node_ip(status.ips) })
        };
        made.await.map_err(|error| {
            // What fails while the pod is being taken away is no fault.
            if self.halt.is_cancelled() {
                return;
            }
            host.measures.started_pods_errors.inc();
            let message = format!("Failed to create pod sandbox: {error}");
            host.events.pod(self.pod, true, "FailedCreatePodSandBox", message);
        })
    }

    /// Empty for the runtime's usual way.
    async fn runtime_handler(&self) -> Result<String, String> {
        let Some(class) = spec(self.pod).runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let handler = self.memory.host.api.runtime_handler(class).await;
        handler.map_err(|error| format!("failed to get RuntimeClass {class}: {error}"))
    }

    fn sandbox_config(&self, attempt: u32) -> Result<pintle_cri::PodSandboxConfig, String> {
        let settings = &self.memory.host.settings;
        let machine = read_bounded(&settings.resolv_conf, MAX_RESOLV_CONF_BYTES).unwrap_or_default();
        let users = self.memory.host.user_namespaces.of(self.pod)?;
        sandbox_config::config(self.pod, attempt, settings, self.cgroup_parent, &machine, users)
    }

    /// A pod whose users are not the machine's needs a runtime that can do that.
    async fn check_users(&self, handler: &str) -> Result<(), String> {
        if !user_namespaces::is_wanted(self.pod) {
            return Ok(());
        }
        let status = self.memory.host.runtime.status().await;
        let status = status.map_err(|e| format!("{}: {e}", user_namespaces::unsupported(handler)))?;
        let able = status.handlers.iter().any(|known| known.name == handler && known.user_namespaces);
        if able { Ok(()) } else { Err(user_namespaces::unsupported(handler)) }
    }

    fn existing_sandbox(&self) -> Option<Sandbox> {
        let status = self.observed.ready_sandbox()?;
        let config = self.sandbox_config(status.metadata.attempt).ok()?;
        Some(Sandbox { id: status.id.clone(), config, ips: self.or_node_ip(status.ips.clone()) })
    }

    /// A pod on the machine's network has the machine's address.
    fn or_node_ip(&self, ips: Vec<String>) -> Vec<String> {
        if ips.is_empty() { self.memory.host.settings.node_ips.clone() } else { ips }
    }

    async fn start(
        &self,
        sandbox: &Sandbox,
        kind: ContainerKind,
        index: usize,
        outcome: &mut Outcome,
    ) -> Result<(), ()> {
        let Some((container, target)) = self.container(kind, index) else { return Ok(()) };
        let starting = Starting {
            memory: self.memory,
            pod: self.pod,
            observed: self.observed,
            sandbox,
            kind,
            container: &container,
            volumes: self.volumes,
            target,
            halt: self.halt,
        };
        if let Some((left, failure)) = starting.back_off() {
            if self.failed_before(&container.name).as_deref() != Some(&failure.message) {
                let message =
                    format!("Back-off restarting failed container {} in pod {}", container.name, pod_text(self.pod));
                starting.event(true, "BackOff", message);
            }
            self.memory.fail(&container.name, failure);
            outcome.look_after(left);
            return self.go_on_after_failure(kind, &container);
        }
        match starting.run().await {
            Ok(()) => {
                self.memory.succeed(&container.name);
                Ok(())
            }
            Err(failure) => {
                self.schedule(&container, &failure, outcome);
                self.memory.fail(&container.name, failure);
                self.go_on_after_failure(kind, &container)
            }
        }
    }

    fn failed_before(&self, name: &str) -> Option<String> {
        self.memory.failures.lock().get(name).map(|f| f.message.clone())
    }

    /// After an init container that did not start, nothing may start.
    fn go_on_after_failure(&self, kind: ContainerKind, container: &Container) -> Result<(), ()> {
        if kind == ContainerKind::Init && !is_sidecar(container) { Err(()) } else { Ok(()) }
    }

    fn schedule(&self, container: &Container, failure: &StartFailure, outcome: &mut Outcome) {
        match failure.reason.as_str() {
            "ErrImagePull" => outcome.look_after(AFTER_PULL_FAILURE),
            "ImagePullBackOff" => {
                let image = container.image.as_deref().unwrap_or_default();
                let now = self.memory.host.clock.now();
                if let Some((left, _)) = self.memory.pulls.lock().remaining_since_update(image, now) {
                    outcome.look_after(left);
                }
            }
            // The container exists and ends; its end wakes the actor.
            "PostStartHookError" => {}
            _ => outcome.failed = true,
        }
    }

    fn container(&self, kind: ContainerKind, index: usize) -> Option<(Container, Option<String>)> {
        match kind {
            ContainerKind::Init => Some((init_containers(self.pod).get(index)?.clone(), None)),
            ContainerKind::Regular => Some((spec(self.pod).containers.get(index)?.clone(), None)),
            ContainerKind::Ephemeral => {
                let (container, target) = ephemeral_containers(self.pod).into_iter().nth(index)?;
                let id = target.and_then(|name| self.observed.container(&name).map(|c| c.id.clone()));
                Some((container, id))
            }
        }
    }

    /// Removes dead containers that nobody needs to read any more, and sandboxes that were replaced.
    async fn tidy(&self) {
        let runtime = &self.memory.host.runtime;
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for container in &self.observed.containers {
            let newer = seen.entry(&container.metadata.name).or_default();
            let dead = matches!(container.state, ContainerState::Exited | ContainerState::Created);
            if *newer >= KEPT_BEFORE_NEWEST && dead {
                if let Err(error) = runtime.remove_container(&container.id).await {
                    tracing::debug!(%error, id = container.id, "a dead container can't be removed yet");
                }
                self.forget_files(container);
            }
            *newer += 1;
        }
        for sandbox in self.observed.sandboxes.iter().skip(1).filter(|s| s.state == SandboxState::NotReady) {
            let filter = ContainerFilter { sandbox_id: Some(sandbox.id.clone()), ..Default::default() };
            let empty = runtime.list_containers(filter).await.is_ok_and(|list| list.is_empty());
            if empty && let Err(error) = runtime.remove_pod_sandbox(&sandbox.id).await {
                tracing::debug!(%error, id = sandbox.id, "a sandbox that was replaced can't be removed yet");
            }
        }
    }

    /// The log and the last words of a container go with it.
    fn forget_files(&self, container: &pintle_cri::ContainerStatus) {
        let dir = self.memory.host.pod_dir(pintle_types::Kind::uid(self.pod));
        let own = container.mounts.iter().map(|m| std::path::PathBuf::from(&m.host_path));
        let words = own.filter(|path| path.starts_with(dir.join("containers")));
        let logs = self.memory.host.log_dir(self.pod).join(&container.metadata.name);
        let log = format!("{}.log", container.metadata.attempt);
        // With those that were set aside when they were full.
        let is_its = |name: &str| name.strip_prefix(&log).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let logs = std::fs::read_dir(logs).into_iter().flatten().flatten();
        let logs = logs.filter(|file| file.file_name().to_str().is_some_and(is_its)).map(|file| file.path());
        for path in words.chain(logs) {
            // A file that is gone already is what is wanted.
            let _ = std::fs::remove_file(path);
        }
    }
}
