//! Makes, stops, removes and shows sandboxes.

use crate::engine::{Engine, Sandbox};
use crate::error::{blocking, from_failure, from_port, from_system, internal};
use crate::ids::new_id;
use crate::options::{IdMappings, Network, Owner, SandboxOptions};
use crate::records::{SandboxPhase, SandboxRecord};
use crate::sandbox_files;
use crate::shim_client::{self, ShimClient, Told};
use pintle_cri::{
    CriError, CriResult, EventKind, NamespaceMode, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStatus,
    SandboxState,
};
use pintle_linux::cgroup::Limits;
use pintle_linux::netns;
use pintle_linux::process::duplicate;
use pintle_shim::protocol::{FromShim, Request, SandboxSpec};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

/// What a RuntimeClass may call the one way to run pods; empty is the usual name.
pub(crate) const HANDLERS: [&str; 3] = ["", "pintle", "runc"];

/// Bytes of a sandbox's /dev/shm, as Docker and containerd have it.
const SHM_BYTES: u64 = 64 << 20;

impl Engine {
    // flow: pod 12/16
    pub(crate) async fn run_sandbox(
        &self,
        config: PodSandboxConfig,
        handler: &str,
        options: SandboxOptions,
    ) -> CriResult<String> {
        let sandbox = self.reserve_sandbox(config, handler, options)?;
        let _changing = sandbox.changing.lock().await;
        match self.make_sandbox(&sandbox).await {
            Ok(ips) => {
                self.change_sandbox(&sandbox, |record| {
                    record.phase = SandboxPhase::Ready;
                    record.ips = ips;
                })?;
                self.tell(EventKind::SandboxStarted, "", &sandbox.id);
                Ok(sandbox.id.clone())
            }
            Err(error) => {
                // What cannot be cleaned now is found at the next start by its record.
                if let Err(e) = self.dismantle(&sandbox).await {
                    tracing::warn!(sandbox = %sandbox.id, error = %e, "a half-made sandbox is left");
                } else {
                    self.forget_sandbox(&sandbox).await?;
                }
                self.sandboxes.write().remove(&sandbox.id);
                Err(error)
            }
        }
    }

    /// Gives the sandbox an id and a record, unless there is one of the same name and attempt.
    fn reserve_sandbox(
        &self,
        config: PodSandboxConfig,
        handler: &str,
        options: SandboxOptions,
    ) -> CriResult<Arc<Sandbox>> {
        if !HANDLERS.contains(&handler) {
            return Err(CriError::InvalidArgument(format!("no runtime for {handler:?} is configured")));
        }
        let mut sandboxes = self.sandboxes.write();
        // Docker's are named by ids, and there may be many.
        let named = options.owner == Owner::Cri;
        let same = |s: &&Arc<Sandbox>| named && s.record.lock().config.metadata == config.metadata;
        if let Some(other) = sandboxes.values().find(same) {
            let m = &config.metadata;
            let name = format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt);
            return Err(CriError::AlreadyExists(format!(
                "failed to reserve sandbox name {name:?}: name {name:?} is reserved for {:?}",
                other.id
            )));
        }
        let record = SandboxRecord {
            id: new_id(),
            created_at: self.now(),
            runtime_handler: handler.to_owned(),
            config,
            options,
            ..SandboxRecord::default()
        };
        self.save_sandbox(&record)?;
        let sandbox = Sandbox::new(record);
        sandboxes.insert(sandbox.id.clone(), Arc::clone(&sandbox));
        Ok(sandbox)
    }

    /// Everything of a sandbox: files, network namespace and shim side by side, then its network and namespaces.
    async fn make_sandbox(&self, sandbox: &Arc<Sandbox>) -> CriResult<Vec<IpAddr>> {
        let record = sandbox.record.lock().clone();
        let (config, options) = (record.config.clone(), record.options.clone());
        let netns = has_network(&config).then(|| self.netns_of(&record));
        let own_netns = netns.clone().filter(|_| !matches!(options.network, Network::Sandbox(_)));
        let hostname = hostname(&config);
        let folder = self.sandbox_folder.of(&sandbox.id);
        if options.files.is_none() {
            sandbox_files::write(&folder, &hostname, &config.dns)
                .map_err(|e| internal("write the sandbox's files", e))?;
        }
        let cgroups = self.cgroups.clone();
        // Nobody waits for it, and without it the first container only starts later.
        drop(tokio::task::spawn_blocking(move || cgroups.expect_moves()));
        let mapped = !id_mappings(&record).is_empty();
        let make_netns = async {
            match own_netns.clone() {
                // In a user namespace it belongs to that, and the shim makes it.
                Some(path) if !mapped => blocking(move || netns::create(&path, || Ok(()))).await,
                _ => Ok(()),
            }
        };
        let start_shim = async { self.start_shim(sandbox) };
        let (made, shim) = tokio::join!(make_netns, start_shim);
        made?;
        let shim = shim?;
        let spec = self.sandbox_spec(&record, netns.clone())?;
        if spec.shared_pid {
            self.cgroups.create(&spec.cgroup, &Limits::default()).map_err(from_system)?;
        }
        let connect = async {
            match &own_netns {
                Some(path) if options.network == Network::Connected => {
                    self.network.setup(&sandbox.id, path, &config).await.map_err(|e| {
                        let text = format!("failed to setup network for sandbox {:?}: {e}", sandbox.id);
                        CriError::Internal(text)
                    })
                }
                _ => Ok(Vec::new()),
            }
        };
        let mounts = self.bare_mounts.iter().map(|mounts| duplicate(mounts.as_fd())).collect::<Result<Vec<_>, _>>();
        let mounts = mounts.map_err(|e| internal("duplicate a descriptor", e))?;
        let set_up = async {
            let asked = shim.call(Request::Sandbox(Box::new(spec)), mounts).await;
            asked.map(drop).map_err(from_failure)
        };
        if mapped {
            set_up.await?;
            return connect.await;
        }
        let (ips, done) = tokio::join!(connect, set_up);
        done?;
        ips
    }

    fn start_shim(&self, sandbox: &Arc<Sandbox>) -> CriResult<Arc<ShimClient>> {
        let run = self.run_path("sandboxes", &sandbox.id);
        std::fs::create_dir_all(&run).map_err(|e| internal(format_args!("create {}", run.display()), e))?;
        let socket = run.join("shim.sock");
        shim_client::spawn(&self.shim_program, &socket, &run.join("shim.log")).map_err(from_system)?;
        self.connect_shim(sandbox)
    }

    /// Connects to the sandbox's shim, which tells of exits from then on.
    pub(crate) fn connect_shim(&self, sandbox: &Arc<Sandbox>) -> CriResult<Arc<ShimClient>> {
        let socket = self.run_path("sandboxes", &sandbox.id).join("shim.sock");
        let (engine, id) = (self.this.clone(), sandbox.id.clone());
        let execs = Arc::new(crate::stdio::Exits::default());
        let exits = Arc::clone(&execs);
        let told = move |told| {
            let Some(engine) = engine.upgrade() else { return };
            match told {
                Told::Message(FromShim::Exited(exit)) => engine.container_ended(&exit),
                Told::Message(FromShim::ExecExited { exec, code }) => exits.ended(&exec, code),
                Told::Message(FromShim::Reply { .. }) => {}
                Told::Closed => {
                    exits.close();
                    let id = id.clone();
                    tokio::spawn(async move { engine.shim_closed(&id).await });
                }
            }
        };
        let client = Arc::new(ShimClient::connect(&socket, execs, told).map_err(from_system)?);
        *sandbox.shim.lock() = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Where the network namespace of a sandbox is bound: its own, or that of the one that it joins.
    pub(crate) fn netns_of(&self, record: &SandboxRecord) -> PathBuf {
        match &record.options.network {
            Network::Sandbox(other) => self.run_path("netns", other),
            _ => self.run_path("netns", &record.id),
        }
    }

    /// The ipc namespace that a sandbox joins, and where its /dev/shm is mounted.
    fn joined_ipc(&self, options: &SandboxOptions) -> CriResult<Option<(PathBuf, PathBuf)>> {
        let Some(other) = &options.ipc_of else { return Ok(None) };
        let other = self.view(other)?;
        let shareable = self.sandbox(&other.sandbox_id)?.record.lock().options.shareable_ipc;
        if !shareable || other.pid == 0 {
            let why = if shareable { "it does not run" } else { "its ipc namespace is not shareable" };
            return Err(CriError::FailedPrecondition(format!("cannot join the ipc of container {}: {why}", other.id)));
        }
        let shm = self.run_path("sandboxes", &other.sandbox_id).join("shm");
        Ok(Some((PathBuf::from(format!("/proc/{}/ns/ipc", other.pid)), shm)))
    }

    fn sandbox_spec(&self, record: &SandboxRecord, netns: Option<PathBuf>) -> CriResult<SandboxSpec> {
        let (id, config, options) = (&record.id, &record.config, &record.options);
        let join_ipc = self.joined_ipc(options)?;
        // On the machine's network a pod has the machine's name, unless it asks for one by itself.
        let named = netns.is_some() || (options.owner == Owner::Docker && !config.hostname.is_empty());
        Ok(SandboxSpec {
            id: id.to_owned(),
            hostname: if named && !options.host_uts { hostname(config) } else { String::new() },
            netns,
            ipc: config.namespaces.ipc != NamespaceMode::Node,
            shared_pid: config.namespaces.pid == NamespaceMode::Pod,
            cgroup: format!("{}/{}", self.cgroup_parent(id, config), pause_cgroup(id)),
            sysctls: config.sysctls.clone(),
            mount_point: self.config.run_dir.join("rootfs"),
            directory: self.run_path("sandboxes", id),
            shm_bytes: if options.shm_bytes == 0 { SHM_BYTES } else { options.shm_bytes },
            domainname: options.domainname.clone(),
            join_ipc,
            shareable_shm: options.shareable_ipc,
            no_shm: options.no_shm,
            joined_netns: matches!(options.network, Network::Sandbox(_)),
            id_mappings: id_mappings(record),
            cgroups: Some(self.cgroups.clone()),
        })
    }

    /// Where the cgroups of a sandbox's containers are: what the caller names, else one of the sandbox's own.
    pub(crate) fn cgroup_parent(&self, id: &str, config: &PodSandboxConfig) -> String {
        match config.cgroup_parent.trim_end_matches('/') {
            "" => format!("{}/{id}", self.config.cgroup_root.trim_end_matches('/')),
            parent => parent.to_owned(),
        }
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> CriResult<()> {
        let sandbox = match self.sandbox(id) {
            Ok(sandbox) => sandbox,
            Err(CriError::NotFound { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        let _changing = sandbox.changing.lock().await;
        let was_ready = sandbox.record.lock().phase == SandboxPhase::Ready;
        for container in self.containers_of(&sandbox.id) {
            self.stop(&container, 0).await?;
        }
        self.dismantle(&sandbox).await?;
        self.mark_not_ready(&sandbox)?;
        if was_ready {
            self.tell(EventKind::SandboxStopped, "", &sandbox.id);
        }
        Ok(())
    }

    pub(crate) fn mark_not_ready(&self, sandbox: &Sandbox) -> CriResult<()> {
        self.change_sandbox(sandbox, |record| record.phase = SandboxPhase::NotReady)
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> CriResult<()> {
        let sandbox = match self.sandbox(id) {
            Ok(sandbox) => sandbox,
            Err(CriError::NotFound { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        self.stop_sandbox(&sandbox.id).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove(&container.id).await?;
        }
        self.tell(EventKind::SandboxDeleted, "", &sandbox.id);
        self.sandboxes.write().remove(&sandbox.id);
        self.forget_sandbox(&sandbox).await
    }

    /// The last steps, when its containers are gone.
    async fn forget_sandbox(&self, sandbox: &Sandbox) -> CriResult<()> {
        let id = &sandbox.id;
        let config = sandbox.record.lock().config.clone();
        if config.cgroup_parent.is_empty() {
            self.clear_cgroup(&self.cgroup_parent(id, &config)).await?;
        }
        self.sandbox_folder.remove(id).map_err(|e| internal(format_args!("remove the record of sandbox {id}"), e))
    }

    pub(crate) fn sandbox_status(&self, id: &str) -> CriResult<PodSandboxStatus> {
        let sandbox = self.sandbox(id)?;
        let record = sandbox.record.lock();
        Ok(PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: state(record.phase),
            created_at: record.created_at,
            ips: record.ips.iter().map(IpAddr::to_string).collect(),
            namespaces: record.config.namespaces.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        })
    }

    pub(crate) fn sandbox_list(&self, filter: &PodSandboxFilter) -> Vec<PodSandbox> {
        let sandboxes = self.sandboxes.read();
        let records = sandboxes.values().map(|s| s.record.lock());
        let shown = records.filter(|r| r.phase != SandboxPhase::Creating && r.options.owner == Owner::Cri);
        let shown = shown.filter(|r| matches_filter(r, filter));
        shown
            .map(|r| PodSandbox {
                id: r.id.clone(),
                metadata: r.config.metadata.clone(),
                state: state(r.phase),
                created_at: r.created_at,
                labels: r.config.labels.clone(),
                annotations: r.config.annotations.clone(),
                runtime_handler: r.runtime_handler.clone(),
            })
            .collect()
    }
}

fn matches_filter(record: &SandboxRecord, filter: &PodSandboxFilter) -> bool {
    filter.id.as_ref().is_none_or(|id| record.id.starts_with(id.as_str()))
        && filter.state.is_none_or(|wanted| wanted == state(record.phase))
        && filter.labels.iter().all(|(k, v)| record.config.labels.get(k) == Some(v))
}

fn state(phase: SandboxPhase) -> SandboxState {
    if phase == SandboxPhase::Ready { SandboxState::Ready } else { SandboxState::NotReady }
}

/// The user namespace of a sandbox's containers; empty is the machine's.
pub(crate) fn id_mappings(record: &SandboxRecord) -> IdMappings {
    if !record.options.id_mappings.is_empty() {
        return record.options.id_mappings.clone();
    }
    record.config.id_mappings.clone()
}

/// Whether the sandbox has a network of its own.
pub(crate) fn has_network(config: &PodSandboxConfig) -> bool {
    config.namespaces.network != NamespaceMode::Node
}

/// The cgroup of the pause process, beside those of the containers.
pub(crate) fn pause_cgroup(id: &str) -> String {
    format!("pause-{id}")
}

/// What the sandbox calls itself: the machine's name when it has none of its own.
pub(crate) fn hostname(config: &PodSandboxConfig) -> String {
    if config.hostname.is_empty() {
        let machine = rustix::system::uname();
        return machine.nodename().to_string_lossy().into_owned();
    }
    config.hostname.clone()
}

/// For callers that have nothing to add to a port's words.
pub(crate) fn port_result<T>(result: Result<T, crate::ports::PortError>) -> CriResult<T> {
    result.map_err(from_port)
}
