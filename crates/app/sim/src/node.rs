//! A simulated node: the real kubelet over a runtime that only pretends.

use crate::link::Link;
use crate::plane::Plane;
use pintle_apiserver::User;
use pintle_informer::Informers;
use pintle_kubelet::fake::{FakeRuntime, NoStreams, Script};
use pintle_kubelet::{Config, Hardware, Machine};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The size of every node.
pub(crate) const PROCESSORS: u32 = 4;
const MEMORY_BYTES: u64 = 8 << 30;
pub(crate) const MAX_PODS: u32 = 30;

/// A node: its machine lasts, its kubelet comes and goes.
pub(crate) struct SimNode {
    pub(crate) name: String,
    number: u16,
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) link: Arc<Link>,
    directory: PathBuf,
    boots: u32,
    running: Option<(CancellationToken, JoinSet<()>)>,
}

impl SimNode {
    pub(crate) fn new(number: u16, plane: &Plane, directory: &Path) -> Self {
        let name = format!("node-{number}");
        let runtime = FakeRuntime::on_node(number, plane.clock());
        script(&runtime);
        let user = User::new(format!("system:node:{name}"), &["system:nodes"]);
        let link = plane.link(user, &name);
        Self { directory: directory.join(&name), link, name, number, runtime, boots: 0, running: None }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn start_kubelet(&mut self, plane: &Plane) {
        let stop = CancellationToken::new();
        let client = self.link.client("kubelet");
        let config = Config {
            node_name: self.name.clone(),
            node_ips: vec![[192, 168, (self.number >> 8) as u8, (self.number & 255) as u8].into()],
            informers: Informers::new(client.clone(), stop.clone()),
            client,
            runtime: Arc::clone(&self.runtime) as Arc<dyn pintle_cri::Runtime>,
            clock: plane.clock(),
            root_dir: self.directory.join("kubelet"),
            log_dir: self.directory.join("logs"),
            hardware: Hardware::Pretended(self.machine()),
            cgroup_root: "/".into(),
            manage_cgroups: false,
            cluster_dns: vec![[10, 43, 0, 10].into()],
            cluster_domain: "cluster.local".into(),
            resolv_conf: self.directory.join("resolv.conf"),
            labels: [("topology.kubernetes.io/zone".to_owned(), format!("zone-{}", self.number % 2))].into(),
            taints: Vec::new(),
            max_pods: MAX_PODS,
            server: None,
            streaming: Arc::new(NoStreams),
            on_pod_cidrs: None,
            lease_seconds: 40,
            options: Default::default(),
            kubelet_version: "v1.36.2+pintle".into(),
        };
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move {
            if let Err(error) = pintle_kubelet::run(config, token).await {
                tracing::error!(%error, "a kubelet ended");
            }
        });
        self.running = Some((stop, tasks));
    }

    fn machine(&self) -> Machine {
        let identity = format!("{:032x}", self.number);
        Machine {
            processors: PROCESSORS,
            memory_bytes: MEMORY_BYTES,
            huge_pages: Vec::new(),
            machine_id: identity.clone(),
            system_uuid: identity,
            boot_id: format!("boot-{}", self.boots),
            kernel_version: "6.1.0".into(),
            os_image: "Pretended".into(),
        }
    }

    /// Ends the kubelet; containers go on.
    pub(crate) async fn kill_kubelet(&mut self) {
        if let Some((stop, mut tasks)) = self.running.take() {
            stop.cancel();
            tasks.shutdown().await;
        }
    }

    /// Ends everything on the node.
    pub(crate) async fn lose_power(&mut self) {
        self.kill_kubelet().await;
        self.runtime.lose_power();
        self.boots += 1;
    }
}

/// How the containers of the simulated workloads behave, by their names.
fn script(runtime: &FakeRuntime) {
    let task =
        |code, seconds| Script { exits: Some(code), lasts: Some(Duration::from_secs(seconds)), ..Default::default() };
    runtime.script("task", task(0, 7));
    runtime.script("long-task", task(0, 90));
    runtime.script("failing-task", task(1, 3));
    runtime.script("stubborn", Script { ignores_stop: true, ..Default::default() });
}
