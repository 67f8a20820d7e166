//! Starts containers: networks, files, a sandbox, and in it the one container with those who attached before.

use super::record::Status;
use super::{Container, files, spec};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use pintle_cri::{AttachRequest, CriError, RuntimeService};
use std::sync::Arc;

/// What Docker puts before the words of its runtime.
const TASK_FAILED: &str = "failed to create task for container: failed to create shim task: OCI runtime create failed: \
                           runc create failed: unable to start container process: error during container init: ";

impl Daemon {
    /// Starts a container that does not run.
    ///
    /// # Errors
    /// 304 when it runs already, 409 when its state forbids it, and what the runtime says.
    pub async fn start_container(self: &Arc<Self>, wanted: &str) -> Result<()> {
        let container = self.container(wanted)?;
        match container.status() {
            Status::Paused => {
                return Err(DockerError::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Running | Status::Restarting => return Err(DockerError::new(304, "")),
            _ => {}
        }
        self.note(&container, |r| {
            r.stopped_by_hand = false;
            r.restart_count = 0;
        });
        let started = self.run(&container).await;
        if started.is_err() && container.look(|r| r.host.auto_remove && r.state.status == Status::Created) {
            // Whoever waits for its removal waits for this one too.
            self.remove_by_itself(&container).await;
        }
        started
    }

    /// Starts it whatever it was before; the caller has checked that it may.
    pub(crate) async fn run(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _changing = container.changing.lock().await;
        self.run_held(container).await
    }

    /// The same of one that waits to be started again, unless it was stopped meanwhile.
    pub(super) async fn run_again(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _changing = container.changing.lock().await;
        if container.status() != Status::Restarting {
            return Ok(());
        }
        self.run_held(container).await
    }

    async fn run_held(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        match container.status() {
            Status::Running | Status::Paused => return Ok(()),
            Status::Removing | Status::Dead => {
                return Err(DockerError::conflict("container is marked for removal and cannot be started"));
            }
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        match self.bring_up(container).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.take_down(container).await;
                self.start_failed(container, &error);
                Err(error)
            }
        }
    }

    async fn bring_up(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        self.take_down(container).await;
        let mut record = container.record();
        check_requests(&record.host)?;
        self.check_networks(container)?;
        let folder = self.containers.folder.of(&record.id);
        let files = match record.host.network_mode.strip_prefix("container:") {
            // Who shares a network shares its names.
            Some(other) => {
                let other = super::validate::joined(self, other, "network")?;
                record.config.hostname = other.look(|r| r.config.hostname.clone());
                files::paths(&self.containers.folder.of(&other.id))
            }
            None => files::write(&folder, &record, &files::Names::default())?,
        };
        make_mountable(&record.layer);
        let (sandbox, options) = spec::sandbox(self, &record, files)?;
        let (mut config, container_options) = spec::container(self, &record)?;
        self.check_sources(&record)?;
        self.prepare_volumes(&record).await?;
        check_parts(&record)?;
        let sandbox_id = self.engine.make_sandbox_with(sandbox, options).await.map_err(|e| words_of(&e))?;
        self.change(container, |r| r.sandbox = Some(sandbox_id.clone()))?;
        self.connect_networks(container, &sandbox_id).await?;
        for (name, value) in self.link_variables(&record)? {
            if !config.envs.iter().any(|(own, _)| *own == name) {
                config.envs.push((name, value));
            }
        }
        let made = self.engine.create_container_with(&sandbox_id, config, container_options).await;
        let runtime_id = made.map_err(|e| words_of(&e))?;
        self.join_early(container, &runtime_id).await;
        self.engine.start_container(&runtime_id).await.map_err(|e| words_of(&e))?;
        let view = self.engine.view(&runtime_id)?;
        self.change(container, |r| {
            r.state.status = Status::Running;
            r.state.pid = view.pid;
            r.state.started_at = view.started_at;
            r.state.exit_code = 0;
            r.state.error = String::new();
            r.state.oom_killed = false;
        })?;
        self.tell_of(container, "start", &[]);
        self.watch(container, runtime_id);
        self.begin_tests(container);
        Ok(())
    }

    /// Gives those who waited for the start their streams.
    async fn join_early(&self, container: &Container, runtime_id: &str) {
        let pending: Vec<_> = std::mem::take(&mut *container.attaching.lock());
        for client in pending {
            let request = AttachRequest {
                container_id: runtime_id.to_owned(),
                stdin: client.wanted.stdin,
                tty: false,
                stdout: client.wanted.stdout,
                stderr: client.wanted.stderr,
            };
            // The client may have gone.
            let _ = client.give.send(self.engine.attach_before_start(request).await.map_err(DockerError::from));
        }
    }

    /// Binds whose source is made when it is missing, and those for which that is an error.
    fn check_sources(&self, record: &super::Record) -> Result<()> {
        for kept in record.mounts.iter().filter(|m| m.point.kind == "bind") {
            let source = std::path::Path::new(&kept.point.source);
            if source.exists() {
                continue;
            }
            if !kept.create_source {
                return Err(DockerError::invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    kept.point.source
                )));
            }
            let made = std::fs::create_dir_all(source);
            made.map_err(|e| {
                DockerError::internal(format!("error while creating mount source path '{}': {e}", source.display()))
            })?;
        }
        Ok(())
    }

    /// Takes apart what runs or ran of a container. Succeeds when nothing is there.
    pub(crate) async fn take_down(&self, container: &Container) {
        let Some(sandbox) = container.look(|r| r.sandbox.clone()) else { return };
        self.disconnect_networks(container).await;
        match self.engine.remove_pod_sandbox(&sandbox).await {
            Ok(()) => self.note(container, |r| r.sandbox = None),
            Err(error) => tracing::warn!(container = %container.id, %error, "a container cannot be taken apart"),
        }
    }

    fn start_failed(&self, container: &Container, error: &DockerError) {
        let text = error.message.as_str();
        let any = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let code = if any(&["executable file not found", "no such file or directory"]) {
            127
        } else if any(&["permission denied", "is a directory", "not a directory", "exec format error"]) {
            126
        } else {
            128
        };
        self.note(container, |r| {
            if r.state.status == Status::Restarting {
                r.state.status = Status::Exited;
            }
            r.state.exit_code = code;
            r.state.error = error.message.clone();
            r.state.pid = 0;
        });
        container.attaching.lock().clear();
    }
}

/// An overlay that was mounted without waiting for the disk leaves a mark, so that nobody trusts it after a crash of the
/// machine; with the mark it cannot be mounted again (kernel documentation, overlayfs, "Volatile mount").
pub(super) fn make_mountable(layer: &pintle_runtime::SnapshotMounts) {
    // It is not there when the container has never run.
    let _ = std::fs::remove_dir_all(layer.work.join("work/incompat"));
}

/// Parts of volumes must be there: they are not made.
fn check_parts(record: &super::Record) -> Result<()> {
    for kept in record.mounts.iter().filter(|m| m.point.kind == "volume" && !m.sub_path.is_empty()) {
        let part = std::path::Path::new(&kept.point.source).join(&kept.sub_path);
        if let Err(error) = part.symlink_metadata() {
            let shown = part.display();
            return Err(DockerError::io(format_args!("cannot access path {shown}: lstat {shown}"), error));
        }
    }
    Ok(())
}

/// What needs a driver that is not there.
fn check_requests(host: &crate::model::HostConfig) -> Result<()> {
    let Some(request) = host.device_requests.iter().flatten().next() else { return Ok(()) };
    let sets = request.capabilities.clone().unwrap_or_default();
    let sets: Vec<String> = sets.iter().map(|set| format!("[{}]", set.join(" "))).collect();
    Err(DockerError::internal(format!(
        "could not select device driver \"{}\" with capabilities: [{}]",
        request.driver,
        sets.join(" ")
    )))
}

/// The runtime's words as Docker shows them.
pub(super) fn words_of(error: &CriError) -> DockerError {
    let text = error.to_string();
    let Some(own) = text.strip_prefix("failed to create container process: ") else {
        return DockerError::from(error.clone());
    };
    if ["unable to find user", "unable to find group", "uids and gids"].iter().any(|start| own.starts_with(start)) {
        return DockerError::invalid(own);
    }
    // A program that cannot be executed is the request's fault.
    let status = if own.starts_with("exec: ") { 400 } else { 500 };
    DockerError::new(status, format!("{TASK_FAILED}{own}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_words_become_dockers() {
        let error = CriError::Internal("failed to create container process: unable to find user x: no".into());
        assert_eq!(words_of(&error).message, "unable to find user x: no");
        let error = CriError::Internal("failed to create container process: exec: \"a\": not found".into());
        assert!(words_of(&error).message.ends_with("container init: exec: \"a\": not found"));
    }
}
