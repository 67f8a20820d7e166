//! A pretended device plugin and pods that ask for its devices, for processors and for memory.

use crate::device_plugin as m;
use crate::layout::examples::machine;
use crate::pod_resources_api as api;
use crate::{ContainerAsk, Count, CpuOptions, Options, Phase, Placement, PodAsk, PodNames, Refusal, Reserved, Scope};
use crate::{Layout, TopologyPolicy};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use pintle_grpc::{Answer, Call, Limits, Service, SocketClient, Status};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const RESOURCE: &str = "example.com/key";

/// Devices as `a@0 -b`: where they are, and `-` for what is not well.
struct Plugin {
    devices: watch::Sender<String>,
    calls: Mutex<Vec<String>>,
    stop: CancellationToken,
}

fn told(text: &str) -> m::ListAndWatchResponse {
    let device = |word: &str| {
        let (health, word) = word.strip_prefix('-').map_or(("Healthy", word), |word| ("Unhealthy", word));
        let (id, node) = word.split_once('@').map_or((word, None), |(id, node)| (id, node.parse::<i64>().ok()));
        let topology = node.map(|id| m::TopologyInfo { nodes: vec![m::NUMANode { id }] });
        m::PluginDevice { id: id.to_owned(), health: health.to_owned(), topology }
    };
    m::ListAndWatchResponse { devices: text.split_whitespace().map(device).collect() }
}

impl Service for Plugin {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>> {
        async move {
            match call.method.as_str() {
                m::LIST_AND_WATCH => {
                    let changes = self.devices.subscribe();
                    let next = |(mut changes, first): (watch::Receiver<String>, bool)| async move {
                        if !first {
                            changes.changed().await.ok()?;
                        }
                        let text = changes.borrow_and_update().clone();
                        Some((Ok(told(&text)), (changes, false)))
                    };
                    Ok(Answer::many(futures::stream::unfold((changes, true), next).boxed()))
                }
                m::PREFERRED => {
                    let asked: m::PreferredAllocationRequest = call.request()?;
                    let last = asked.containers[0].available.last().cloned();
                    let ids = last.into_iter().collect();
                    let containers = vec![m::ContainerPreferredAllocationResponse { ids }];
                    Ok(Answer::once(&m::PreferredAllocationResponse { containers }))
                }
                m::ALLOCATE => {
                    let asked: m::AllocateRequest = call.request()?;
                    let ids = asked.containers[0].ids.join(",");
                    self.calls.lock().push(format!("allocate {ids}"));
                    if ids == "broken" {
                        return Err(Status::internal("it does not open"));
                    }
                    let spec = m::DeviceSpec {
                        container_path: "/dev/key".to_owned(),
                        host_path: "/dev/null".to_owned(),
                        permissions: "rw".to_owned(),
                    };
                    let containers = vec![m::ContainerAllocateResponse {
                        envs: BTreeMap::from([("KEYS".to_owned(), ids)]),
                        devices: vec![spec],
                        ..Default::default()
                    }];
                    Ok(Answer::once(&m::AllocateResponse { containers }))
                }
                m::PRE_START => {
                    let asked: m::PreStartContainerRequest = call.request()?;
                    self.calls.lock().push(format!("start {}", asked.ids.join(",")));
                    Ok(Answer::once(&m::Empty {}))
                }
                other => Err(Status::unknown_method(other)),
            }
        }
        .boxed()
    }
}

impl Plugin {
    /// Serves in the folder and registers there.
    async fn start(folder: &Path, devices: &str) -> Arc<Self> {
        let plugin = Self {
            devices: watch::channel(devices.to_owned()).0,
            calls: Mutex::default(),
            stop: CancellationToken::new(),
        };
        let plugin = Arc::new(plugin);
        let listener = pintle_grpc::bind(&folder.join("key.sock"), 0o600).unwrap();
        tokio::spawn(pintle_grpc::serve(listener, Arc::clone(&plugin), Limits::default(), plugin.stop.clone()));
        let options = m::DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
        let request = m::RegisterRequest {
            version: m::VERSION.to_owned(),
            endpoint: "key.sock".to_owned(),
            resource_name: RESOURCE.to_owned(),
            options: Some(options),
        };
        let kubelet = SocketClient::new(folder.join("kubelet.sock"));
        let _: m::Empty = kubelet.call(m::REGISTER, &request, None).await.unwrap();
        plugin
    }
}

struct Node {
    placement: Arc<Placement>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Node {
    fn start(options: &Options, layout: Layout) -> Self {
        Self::again(options, layout, tempfile::tempdir().unwrap())
    }

    fn again(options: &Options, layout: Layout, folder: tempfile::TempDir) -> Self {
        let placement = Arc::new(Placement::open(options, || layout, folder.path()).unwrap());
        let stop = CancellationToken::new();
        let serving = placement.serve_plugins(&folder.path().join("plugins"), stop.clone()).unwrap();
        Self { placement, stop, serving: tokio::spawn(serving), folder }
    }

    async fn plugin(&self, devices: &str) -> Arc<Plugin> {
        Plugin::start(&self.folder.path().join("plugins"), devices).await
    }

    /// Waits until the node has so many, of which so many are well.
    async fn until(&self, capacity: usize, allocatable: usize) {
        let wanted = Count { capacity, allocatable };
        let there = async {
            while self.placement.counts().get(RESOURCE) != Some(&wanted) {
                self.placement.changed().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), there).await;
        assert!(waited.is_ok(), "{:?} is not {wanted:?}", self.placement.counts());
    }

    async fn admit(&self, uid: &str, containers: Vec<ContainerAsk>) -> Result<(), Refusal> {
        self.placement.admit(&PodAsk { uid: uid.to_owned(), guaranteed: true, containers }).await
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.serving.await.unwrap();
        self.folder
    }
}

fn wants(name: &str, phase: Phase, keys: u64) -> ContainerAsk {
    let devices = BTreeMap::from([(RESOURCE.to_owned(), keys)]);
    ContainerAsk { name: name.to_owned(), phase, milli_cpu: 0, memory_bytes: 0, devices }
}

fn regular(keys: u64) -> Vec<ContainerAsk> {
    vec![wants("c", Phase::Regular, keys)]
}

fn message(refused: Result<(), Refusal>) -> String {
    let refusal = refused.unwrap_err();
    assert_eq!(refusal.reason, "UnexpectedAdmissionError");
    refusal.message
}

#[tokio::test]
async fn devices_are_counted_given_and_taken_back() {
    let node = Node::start(&Options::default(), Layout::default());
    // What nobody offers is somebody else's to say.
    assert_eq!(node.admit("u0", regular(1)).await, Ok(()));
    let plugin = node.plugin("a b -c").await;
    node.until(3, 2).await;
    node.admit("u1", regular(1)).await.unwrap();
    let given = node.placement.container("u1", "c").await.unwrap();
    assert_eq!(given.envs["KEYS"], "b", "the plugin prefers the last");
    assert_eq!(given.devices[0].container_path, "/dev/key");
    let few = "Allocate failed due to requested number of devices unavailable for example.com/key. Requested: 2, \
               Available: 1, which is unexpected";
    assert_eq!(message(node.admit("u2", regular(2)).await), few);
    node.admit("u1", regular(1)).await.unwrap();
    assert_eq!(*plugin.calls.lock(), ["allocate b", "start b"]);
    plugin.devices.send_replace("a b c broken".to_owned());
    node.until(4, 4).await;
    node.placement.release("u1");
    node.admit("u2", regular(3)).await.unwrap();
    let failed = message(node.admit("u3", regular(1)).await);
    assert!(failed.contains("Requested: 1") || failed.contains("it does not open"), "{failed}");
    let others = |uid: &str| uid == "u9";
    node.placement.retain(others);
    node.admit("u4", regular(4)).await.unwrap();
    plugin.stop.cancel();
    node.stop.cancel();
}

#[tokio::test]
async fn allocations_outlive_the_kubelet_and_the_plugin() {
    let node = Node::start(&Options::default(), Layout::default());
    let plugin = node.plugin("a b").await;
    node.until(2, 2).await;
    node.admit("u1", regular(2)).await.unwrap();
    plugin.stop.cancel();
    node.until(2, 0).await;
    let gone = "Allocate failed due to requested number of devices unavailable for example.com/key. Requested: 1, \
                Available: 0, which is unexpected";
    assert_eq!(message(node.admit("u2", regular(1)).await), gone);
    let node = Node::again(&Options::default(), Layout::default(), node.end().await);
    assert_eq!(node.placement.counts()[RESOURCE], Count::default(), "until the plugin registers again");
    node.admit("u1", regular(2)).await.unwrap();
    assert_eq!(node.placement.container("u1", "c").await.unwrap().envs["KEYS"], "a,b");
    let plugin = node.plugin("a b c").await;
    node.until(3, 3).await;
    assert!(message(node.admit("u2", regular(2)).await).contains("Available: 1"));
    node.admit("u2", regular(1)).await.unwrap();
    plugin.stop.cancel();
    node.stop.cancel();
}

#[tokio::test]
async fn a_plugin_that_stays_away_is_forgotten() {
    let node = Node::start(&Options::default(), Layout::default());
    let plugin = node.plugin("a").await;
    node.until(1, 1).await;
    plugin.stop.cancel();
    node.until(1, 0).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(299)).await;
    assert_eq!(node.placement.counts()[RESOURCE], Count { capacity: 1, allocatable: 0 });
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(node.placement.counts()[RESOURCE], Count::default());
    node.stop.cancel();
}

#[tokio::test]
async fn init_containers_pass_their_devices_on() {
    let node = Node::start(&Options::default(), Layout::default());
    let plugin = node.plugin("a b").await;
    node.until(2, 2).await;
    let list = vec![wants("i", Phase::Init, 2), wants("s", Phase::Sidecar, 1), wants("c", Phase::Regular, 1)];
    let passed = node.admit("u1", list).await;
    assert_eq!(passed, Ok(()));
    let keys = async |name| node.placement.container("u1", name).await.unwrap().envs["KEYS"].clone();
    assert_ne!(keys("s").await, keys("c").await);
    plugin.stop.cancel();
    node.stop.cancel();
}

fn static_policies(scope: Scope) -> Options {
    Options {
        cpu: Some(CpuOptions::default()),
        reserved: Reserved { milli_cpu: 500, memory_bytes: 1 << 30 },
        memory: true,
        reserved_memory: BTreeMap::from([(0, 1 << 30)]),
        topology: TopologyPolicy::SingleNumaNode,
        scope,
        ..Options::default()
    }
}

fn sized(name: &str, cpus: u64, gibibytes: u64) -> ContainerAsk {
    let (milli_cpu, memory_bytes) = (cpus * 1000, gibibytes << 30);
    ContainerAsk { name: name.to_owned(), phase: Phase::Regular, milli_cpu, memory_bytes, devices: BTreeMap::new() }
}

#[tokio::test]
async fn resources_come_from_one_node() {
    let node = Node::start(&static_policies(Scope::Container), machine(2, 1, 4, 1));
    let plugin = node.plugin("a@0 b@1").await;
    node.until(2, 2).await;
    let mut container = sized("c", 4, 2);
    container.devices.insert(RESOURCE.to_owned(), 1);
    node.admit("u1", vec![container]).await.unwrap();
    let given = node.placement.container("u1", "c").await.unwrap();
    assert_eq!((given.cpus.as_str(), given.memory_nodes.as_str(), given.envs["KEYS"].as_str()), ("4-7", "1", "b"));
    assert_eq!(node.placement.container("other", "c").await.unwrap().cpus, "0-3");
    let refused = node.admit("u2", vec![sized("c", 4, 1)]).await.unwrap_err();
    assert_eq!(refused.reason, "TopologyAffinityError");
    assert_eq!(refused.message, "Resources cannot be allocated with Topology locality");
    assert!(node.placement.release("u1"));
    assert_eq!(node.placement.shared_cpus().as_deref(), Some("0-7"));
    plugin.stop.cancel();
    node.stop.cancel();
}

#[tokio::test]
async fn a_pod_as_a_whole_comes_from_one_node() {
    let two = || vec![sized("a", 2, 1), sized("b", 2, 1)];
    let node = Node::start(&static_policies(Scope::Pod), machine(2, 1, 4, 1));
    node.admit("u1", two()).await.unwrap();
    let cpus = |name| node.placement.own_cpus("u1", name).unwrap();
    assert_eq!((cpus("a"), cpus("b")), ("4-5".to_owned(), "6-7".to_owned()));
    assert_eq!(node.admit("u2", two()).await.unwrap_err().reason, "TopologyAffinityError");
    node.stop.cancel();
}

#[tokio::test]
async fn monitors_learn_who_has_what() {
    let node = Node::start(&static_policies(Scope::Container), machine(2, 1, 4, 1));
    let plugin = node.plugin("a@0 b@1").await;
    node.until(2, 2).await;
    let mut container = sized("c", 1, 2);
    container.devices.insert(RESOURCE.to_owned(), 1);
    node.admit("u1", vec![container]).await.unwrap();
    let folder = node.folder.path().join("pod-resources");
    let text = |text: &str| text.to_owned();
    let pods = move || {
        vec![PodNames { namespace: text("default"), name: text("p"), uid: text("u1"), containers: vec![text("c")] }]
    };
    tokio::spawn(node.placement.serve_pod_resources(&folder, pods, node.stop.clone()).unwrap());
    let client = SocketClient::new(folder.join("kubelet.sock"));
    let list: api::ListPodResourcesResponse =
        client.call("/v1.PodResourcesLister/List", &api::ListPodResourcesRequest {}, None).await.unwrap();
    let container = &list.pods[0].containers[0];
    assert_eq!((container.cpu_ids.as_slice(), container.devices[0].ids.as_slice()), (&[1][..], &["a".to_owned()][..]));
    assert_eq!(container.memory[0].size, 2 << 30);
    let ask =
        |name: &str| api::GetPodResourcesRequest { pod_name: name.to_owned(), pod_namespace: "default".to_owned() };
    let got: api::GetPodResourcesResponse = client.call("/v1.PodResourcesLister/Get", &ask("p"), None).await.unwrap();
    assert_eq!(got.pod.as_ref(), list.pods.first());
    let missing = client.call::<_, api::GetPodResourcesResponse>("/v1.PodResourcesLister/Get", &ask("q"), None).await;
    let missing = missing.unwrap_err().status().to_string();
    assert_eq!(missing, "rpc error: code = Unknown desc = pod q in namespace default not found");
    let all: api::AllocatableResourcesResponse = client
        .call("/v1.PodResourcesLister/GetAllocatableResources", &api::AllocatableResourcesRequest {}, None)
        .await
        .unwrap();
    assert_eq!((all.cpu_ids.len(), all.devices.len(), all.memory[0].size), (7, 2, 7 << 30));
    plugin.stop.cancel();
    node.stop.cancel();
}

#[test]
fn options_must_suit_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let open = |change: fn(&mut Options)| {
        let mut options = static_policies(Scope::Container);
        change(&mut options);
        Placement::open(&options, || machine(2, 1, 4, 1), folder.path())
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    assert_eq!(open(|_| ()), "");
    let nothing = "the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero";
    assert_eq!(open(|o| o.reserved.milli_cpu = 0), nothing);
    assert!(open(|o| o.reserved_cpus = "9".parse().ok()).contains("more than the machine has"));
    assert!(open(|o| o.reserved.memory_bytes = 7).contains("is not equal to the value \"7\""));
    std::fs::write(folder.path().join("kubelet_internal_checkpoint"), "{}").unwrap();
    assert!(open(|_| ()).contains("is corrupt"));
}
