//! A runtime that only pretends: sandboxes and containers are entries in a table, their ends are told to it.

use async_trait::async_trait;
use parking_lot::Mutex;
use pintle_clock::Clock;
use pintle_cri::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

const EVENTS: usize = 1024;

/// How containers of a name behave.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Exits with this code as soon as it has started, or after the time that it lasts.
    pub exits: Option<i32>,
    pub lasts: Option<Duration>,
    /// Goes on until it is killed, whatever signal it gets.
    pub ignores_stop: bool,
    /// Its creation fails with these words.
    pub refuses: Option<String>,
    /// Its start fails with these words, and it stays as it was made.
    pub stays: Option<String>,
    /// What commands that are run in it exit with.
    pub exec_code: i32,
}

struct Entry {
    status: ContainerStatus,
    sandbox_id: String,
    ended: CancellationToken,
}

#[derive(Default)]
struct Table {
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, Entry>,
    scripts: HashMap<String, Script>,
    missing_images: HashSet<String>,
    calls: Vec<String>,
    next: u64,
}

/// The pretending runtime.
pub struct FakeRuntime {
    me: Weak<FakeRuntime>,
    node: u16,
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    events: broadcast::Sender<RuntimeEvent>,
}

impl FakeRuntime {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::on_node(0, clock)
    }

    /// The runtime of one of many nodes: its pods have addresses of their own.
    pub fn on_node(node: u16, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            node,
            clock,
            table: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
        })
    }

    /// As if the machine's power had failed: nothing runs any more, and nothing is left of it.
    pub fn lose_power(&self) {
        let mut table = self.table.lock();
        for entry in table.containers.values() {
            entry.ended.cancel();
        }
        table.containers.clear();
        table.sandboxes.clear();
    }

    /// What runs: the id and the labels of each container.
    pub fn running_containers(&self) -> Vec<(String, Labels)> {
        let table = self.table.lock();
        let running = table.containers.values().filter(|e| e.status.state == ContainerState::Running);
        running.map(|e| (e.status.id.clone(), e.status.labels.clone())).collect()
    }

    /// Says how containers of that name behave from now on.
    pub fn script(&self, container: &str, script: Script) {
        self.table.lock().scripts.insert(container.to_owned(), script);
    }

    /// An image that can't be found and can't be pulled.
    pub fn hide_image(&self, image: &str) {
        self.table.lock().missing_images.insert(image.to_owned());
    }

    /// What was asked of the runtime so far, such as `start web/0`.
    pub fn calls(&self) -> Vec<String> {
        self.table.lock().calls.clone()
    }

    /// The ids of what runs, by container name.
    pub fn running(&self) -> BTreeMap<String, String> {
        let table = self.table.lock();
        let running = table.containers.values().filter(|e| e.status.state == ContainerState::Running);
        running.map(|e| (e.status.metadata.name.clone(), e.status.id.clone())).collect()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        let table = self.table.lock();
        table.containers.is_empty() && table.sandboxes.is_empty()
    }

    /// Ends a container by itself.
    pub fn end(&self, id: &str, exit_code: i32, reason: &str) {
        let now = self.now();
        let mut table = self.table.lock();
        let Some(entry) = table.containers.get_mut(id).filter(|e| e.status.state == ContainerState::Running) else {
            return;
        };
        entry.status.state = ContainerState::Exited;
        entry.status.finished_at = now;
        entry.status.exit_code = exit_code;
        entry.status.reason = reason.to_owned();
        entry.ended.cancel();
        let event = event(EventKind::ContainerStopped, &entry.status.id, &entry.sandbox_id, &entry.status.labels);
        drop(table);
        self.tell(event);
    }

    fn end_after(&self, id: &str, code: i32, lasts: Option<Duration>) {
        let reason = if code == 0 { "Completed" } else { "Error" };
        let Some(lasts) = lasts else { return self.end(id, code, reason) };
        let (me, id) = (self.me.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            if let Some(runtime) = me.upgrade() {
                runtime.end(&id, code, reason);
            }
        });
    }

    /// Of the sandbox with that number: a /24 for each node, which many pods wear out.
    fn address(&self, number: u64) -> String {
        let [high, low] = self.node.to_be_bytes();
        format!("10.{}.{low}.{}", 42 + u16::from(high), number % 250 + 2)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.unix_nanos()).unwrap_or(i64::MAX)
    }

    fn tell(&self, event: RuntimeEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn log(&self, call: String) {
        self.table.lock().calls.push(call);
    }
}

fn event(kind: EventKind, container_id: &str, sandbox_id: &str, labels: &Labels) -> RuntimeEvent {
    RuntimeEvent {
        kind,
        container_id: container_id.to_owned(),
        sandbox_id: sandbox_id.to_owned(),
        pod_uid: labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default(),
    }
}

fn not_found(what: &'static str, id: &str) -> CriError {
    CriError::NotFound { what, id: id.to_owned() }
}

fn carries(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(&self) -> CriResult<VersionResponse> {
        Ok(VersionResponse {
            runtime_name: "fake".into(),
            runtime_version: "0".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self) -> CriResult<RuntimeStatus> {
        Ok(RuntimeStatus { runtime_ready: Ok(()), network_ready: Ok(()), handlers: vec![] })
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> CriResult<String> {
        let created_at = self.now();
        let mut table = self.table.lock();
        table.next += 1;
        let number = table.next;
        let id = format!("sandbox{number}");
        table.calls.push(format!("sandbox {}/{}", config.metadata.name, config.metadata.attempt));
        let host = config.namespaces.network == NamespaceMode::Node;
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: SandboxState::Ready,
            created_at,
            ips: if host { vec![] } else { vec![self.address(number)] },
            namespaces: config.namespaces,
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: handler.to_owned(),
        };
        let event = event(EventKind::SandboxStarted, "", &id, &status.labels);
        table.sandboxes.insert(id.clone(), status);
        drop(table);
        self.tell(event);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> CriResult<()> {
        let ids: Vec<String> = {
            let mut table = self.table.lock();
            let Some(sandbox) = table.sandboxes.get_mut(id) else { return Err(not_found("sandbox", id)) };
            if std::mem::replace(&mut sandbox.state, SandboxState::NotReady) == SandboxState::Ready {
                table.calls.push("stop sandbox".to_owned());
            }
            table.containers.values().filter(|e| e.sandbox_id == id).map(|e| e.status.id.clone()).collect()
        };
        for id in ids {
            self.end(&id, 137, "Error");
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> CriResult<()> {
        self.stop_pod_sandbox(id).await?;
        let mut table = self.table.lock();
        table.sandboxes.remove(id);
        table.containers.retain(|_, entry| entry.sandbox_id != id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> CriResult<PodSandboxStatus> {
        self.table.lock().sandboxes.get(id).cloned().ok_or_else(|| not_found("sandbox", id))
    }

    async fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> CriResult<Vec<PodSandbox>> {
        let table = self.table.lock();
        let wanted = table.sandboxes.values().filter(|s| carries(&s.labels, &filter.labels));
        let sandbox = |s: &PodSandboxStatus| PodSandbox {
            id: s.id.clone(),
            metadata: s.metadata.clone(),
            state: s.state,
            created_at: s.created_at,
            labels: s.labels.clone(),
            annotations: s.annotations.clone(),
            runtime_handler: s.runtime_handler.clone(),
        };
        Ok(wanted.map(sandbox).collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        _: &PodSandboxConfig,
    ) -> CriResult<String> {
        let created_at = self.now();
        let mut table = self.table.lock();
        if let Some(words) = table.scripts.get(&config.metadata.name).and_then(|s| s.refuses.clone()) {
            return Err(CriError::Internal(words));
        }
        table.next += 1;
        let id = format!("container{}", table.next);
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at,
            image: config.image.clone(),
            image_ref: config.image,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            log_path: config.log_path,
            resources: config.resources,
            ..Default::default()
        };
        let event = event(EventKind::ContainerCreated, &id, sandbox, &status.labels);
        let entry = Entry { status, sandbox_id: sandbox.to_owned(), ended: CancellationToken::new() };
        table.containers.insert(id.clone(), entry);
        drop(table);
        self.tell(event);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> CriResult<()> {
        let now = self.now();
        let (event, exits, lasts) = {
            let mut table = self.table.lock();
            let Some(entry) = table.containers.get(id) else { return Err(not_found("container", id)) };
            let script = table.scripts.get(&entry.status.metadata.name);
            if let Some(words) = script.and_then(|s| s.stays.clone()) {
                return Err(CriError::Internal(words));
            }
            let Some(entry) = table.containers.get_mut(id) else { return Err(not_found("container", id)) };
            entry.status.state = ContainerState::Running;
            entry.status.started_at = now;
            let event = event(EventKind::ContainerStarted, id, &entry.sandbox_id, &entry.status.labels);
            let metadata = entry.status.metadata.clone();
            table.calls.push(format!("start {}/{}", metadata.name, metadata.attempt));
            let script = table.scripts.get(&metadata.name);
            (event, script.and_then(|s| s.exits), script.and_then(|s| s.lasts))
        };
        self.tell(event);
        if let Some(code) = exits {
            self.end_after(id, code, lasts);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout_seconds: u64) -> CriResult<()> {
        let (stubborn, ended) = {
            let mut table = self.table.lock();
            let Some(entry) = table.containers.get(id) else { return Err(not_found("container", id)) };
            if entry.status.state != ContainerState::Running {
                return Ok(());
            }
            let (name, ended) = (entry.status.metadata.name.clone(), entry.ended.clone());
            table.calls.push(format!("stop {name} in {timeout_seconds}"));
            (table.scripts.get(&name).is_some_and(|s| s.ignores_stop), ended)
        };
        if stubborn {
            let timeout = std::time::Duration::from_secs(timeout_seconds);
            if tokio::time::timeout(timeout, ended.cancelled()).await.is_err() {
                self.end(id, 137, "Error");
            }
        } else {
            self.end(id, 0, "Completed");
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> CriResult<()> {
        self.end(id, 137, "Error");
        self.table.lock().containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> CriResult<ContainerStatus> {
        let table = self.table.lock();
        table.containers.get(id).map(|e| e.status.clone()).ok_or_else(|| not_found("container", id))
    }

    async fn list_containers(&self, filter: ContainerFilter) -> CriResult<Vec<Container>> {
        let table = self.table.lock();
        let wanted = |e: &&Entry| {
            carries(&e.status.labels, &filter.labels)
                && filter.state.is_none_or(|s| s == e.status.state)
                && filter.sandbox_id.as_ref().is_none_or(|s| *s == e.sandbox_id)
        };
        let container = |e: &Entry| Container {
            id: e.status.id.clone(),
            sandbox_id: e.sandbox_id.clone(),
            metadata: e.status.metadata.clone(),
            image: e.status.image.clone(),
            image_ref: e.status.image_ref.clone(),
            state: e.status.state,
            created_at: e.status.created_at,
            labels: e.status.labels.clone(),
            annotations: e.status.annotations.clone(),
        };
        Ok(table.containers.values().filter(wanted).map(container).collect())
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> CriResult<()> {
        let mut table = self.table.lock();
        let entry = table.containers.get_mut(id).ok_or_else(|| not_found("container", id))?;
        entry.status.resources = resources;
        let name = entry.status.metadata.name.clone();
        table.calls.push(format!("resize {name}"));
        Ok(())
    }

    async fn reopen_container_log(&self, _: &str) -> CriResult<()> {
        Ok(())
    }

    async fn container_stats(&self, id: &str) -> CriResult<ContainerStats> {
        Err(not_found("statistics of container", id))
    }

    async fn list_container_stats(&self, _: ContainerFilter) -> CriResult<Vec<ContainerStats>> {
        Ok(vec![])
    }

    async fn exec_sync(&self, id: &str, command: &[String], _: u64) -> CriResult<ExecSyncResponse> {
        let name = self.container_status(id).await?.metadata.name;
        self.log(format!("exec {name} {}", command.join(" ")));
        let exit_code = self.table.lock().scripts.get(&name).map_or(0, |s| s.exec_code);
        Ok(ExecSyncResponse { stdout: vec![], stderr: vec![], exit_code })
    }

    async fn exec(&self, _: ExecRequest) -> CriResult<ExecSession> {
        Err(CriError::Unimplemented("exec in a pretending runtime".into()))
    }

    async fn attach(&self, _: AttachRequest) -> CriResult<ExecSession> {
        Err(CriError::Unimplemented("attach in a pretending runtime".into()))
    }

    async fn port_forward(&self, _: &str, _: u16) -> CriResult<ByteStream> {
        Err(CriError::Unimplemented("port-forward in a pretending runtime".into()))
    }

    async fn events(&self) -> CriResult<EventStream> {
        let stream = futures::stream::unfold(self.events.subscribe(), |mut receiver| async {
            // A receiver that lagged has missed events: the stream ends, and its reader looks at everything.
            receiver.recv().await.ok().map(|event| (event, receiver))
        });
        Ok(Box::pin(stream))
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self) -> CriResult<Vec<Image>> {
        Ok(vec![])
    }

    async fn image_status(&self, image: &str) -> CriResult<Option<Image>> {
        let missing = self.table.lock().missing_images.contains(image);
        Ok((!missing).then(|| Image { id: format!("sha256:{image}"), ..Default::default() }))
    }

    async fn pull_image(&self, image: &str, _: Option<AuthConfig>) -> CriResult<String> {
        if self.table.lock().missing_images.contains(image) {
            return Err(not_found("image", image));
        }
        Ok(format!("sha256:{image}"))
    }

    async fn remove_image(&self, _: &str) -> CriResult<()> {
        Ok(())
    }

    async fn image_fs_info(&self) -> CriResult<FilesystemUsage> {
        Ok(FilesystemUsage::default())
    }
}
