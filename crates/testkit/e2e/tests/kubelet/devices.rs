//! Devices of plugins: told by the node, given to pods with all that comes with them, and taken back.

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use pintle_e2e::{BUSYBOX, Cluster, Space, until};
use pintle_grpc::{Answer, Call, Limits, Service, SocketClient, Status};
use pintle_placement::device_plugin as m;
use pintle_placement::pod_resources_api::{ListPodResourcesRequest, ListPodResourcesResponse};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(60);
const LIST: &str = "/v1.PodResourcesLister/List";

pintle_grpc::messages! {
    PluginInfo {
        1 kind: String,
        2 name: String,
        3 endpoint: String,
        4 supported_versions: Vec<String>,
    }
    Nothing {}
}

/// Has two devices, whose containers get a variable, a device and a folder.
struct Keys {
    resource: &'static str,
    folder: PathBuf,
}

impl Service for Keys {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>> {
        async move {
            match call.method.as_str() {
                m::OPTIONS => Ok(Answer::once(&m::DevicePluginOptions::default())),
                m::LIST_AND_WATCH => {
                    let key = |id: &str| m::PluginDevice { id: id.into(), health: m::HEALTHY.into(), topology: None };
                    let told = m::ListAndWatchResponse { devices: vec![key("front"), key("back")] };
                    Ok(Answer::many(futures::stream::iter([Ok(told)]).chain(futures::stream::pending())))
                }
                m::ALLOCATE => {
                    let asked: m::AllocateRequest = call.request()?;
                    let containers = asked.containers.iter().map(|of| self.allocate(&of.ids)).collect();
                    Ok(Answer::once(&m::AllocateResponse { containers }))
                }
                "/pluginregistration.Registration/GetInfo" => Ok(Answer::once(&PluginInfo {
                    kind: "DevicePlugin".into(),
                    name: self.resource.into(),
                    endpoint: String::new(),
                    supported_versions: vec![m::VERSION.into()],
                })),
                "/pluginregistration.Registration/NotifyRegistrationStatus" => Ok(Answer::once(&Nothing {})),
                other => Err(Status::unknown_method(other)),
            }
        }
        .boxed()
    }
}

impl Keys {
    fn allocate(&self, ids: &[String]) -> m::ContainerAllocateResponse {
        let mut ids = ids.to_vec();
        ids.sort();
        m::ContainerAllocateResponse {
            envs: [("KEYS".to_owned(), ids.join("+"))].into(),
            mounts: vec![m::DeviceMount {
                container_path: "/keys".into(),
                host_path: self.folder.to_string_lossy().into_owned(),
                read_only: true,
            }],
            devices: vec![m::DeviceSpec {
                container_path: "/dev/lock".into(),
                host_path: "/dev/full".into(),
                permissions: "rw".into(),
            }],
            ..Default::default()
        }
    }
}

/// A plugin that runs until it is dropped.
struct Plugin {
    runtime: Runtime,
    stop: CancellationToken,
}

impl Plugin {
    fn serve(socket: &Path, keys: Keys) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let stop = CancellationToken::new();
        if let Some(folder) = socket.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let listener = runtime.block_on(async { pintle_grpc::bind(socket, 0o600) })?;
        runtime.spawn(pintle_grpc::serve(listener, Arc::new(keys), Limits::default(), stop.clone()));
        Ok(Self { runtime, stop })
    }

    fn ask<Q: pintle_grpc::Message, A: pintle_grpc::Message>(&self, socket: &Path, method: &str, ask: &Q) -> Result<A> {
        let client = SocketClient::new(socket);
        Ok(self.runtime.block_on(client.call(method, ask, Some(SOON)))?)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn folder(cluster: &Cluster) -> PathBuf {
    cluster.path("data/kubelet")
}

/// Waits until the node can give so many of them.
fn until_allocatable(space: &Space<'_>, resource: &str, count: &str) -> Result<()> {
    until("the node's devices", SOON, || {
        let node = space.json(&["node/node-1"])?;
        Ok((node["status"]["allocatable"][resource] == count).then_some(()))
    })
}

fn wanting(name: &str, resource: &str, count: &str) -> Value {
    let script =
        "echo $KEYS; cat /keys/name; test -c /dev/lock && echo x > /dev/lock; touch /keys/mine; exec sleep 3600";
    // With no time at all the object goes at once, and the scheduler gives away what the node has not taken back yet.
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", script],
            "resources": {"limits": {resource: count}}}]}})
}

/// One that registers on the kubelet's socket.
pub fn registered(cluster: &Cluster) -> Result<()> {
    const RESOURCE: &str = "e2e.example.com/key";
    let space = cluster.space("devices")?;
    let keys = cluster.path("keys");
    std::fs::create_dir_all(&keys)?;
    std::fs::write(keys.join("name"), "silver\n")?;
    let plugins = folder(cluster).join("device-plugins");
    let plugin = Plugin::serve(&plugins.join("key.sock"), Keys { resource: RESOURCE, folder: keys })?;
    let request = m::RegisterRequest {
        version: m::VERSION.into(),
        endpoint: "key.sock".into(),
        resource_name: RESOURCE.into(),
        options: None,
    };
    let _: m::Empty = plugin.ask(&plugins.join("kubelet.sock"), m::REGISTER, &request)?;
    until_allocatable(&space, RESOURCE, "2")?;
    space.ok_with(&["create", "-f", "-"], &wanting("p", RESOURCE, "2").to_string())?;
    space.ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
    let log = space.logs_to("touch", &["p"])?;
    let lines: Vec<&str> = log.lines().collect();
    ensure!(lines.starts_with(&["back+front", "silver"]), "{log}");
    ensure!(log.contains("No space left on device") && log.contains("Read-only file system"), "{log}");
    let list = || -> Result<Vec<String>> {
        let socket = folder(cluster).join("pod-resources/kubelet.sock");
        let told: ListPodResourcesResponse = plugin.ask(&socket, LIST, &ListPodResourcesRequest {})?;
        let pod = told.pods.into_iter().find(|pod| pod.namespace == space.name && pod.name == "p");
        let devices = pod.context("the pod among those with resources")?.containers.remove(0).devices;
        let mut ids: Vec<String> = devices.into_iter().flat_map(|of| of.ids).collect();
        ids.sort();
        Ok(ids)
    };
    ensure!(list()? == ["back", "front"]);
    space.ok_with(&["create", "-f", "-"], &wanting("late", RESOURCE, "1").to_string())?;
    space.until("the word that none is left", &["pod/late"], SOON, |pod| {
        pod["status"]["conditions"].to_string().contains(&format!("Insufficient {RESOURCE}"))
    })?;
    space.ok(&["delete", "pod", "p", "--timeout=60s"])?;
    space.ok(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"])?;
    drop(plugin);
    until_allocatable(&space, RESOURCE, "0")
}

/// One that the kubelet finds.
pub fn found(cluster: &Cluster) -> Result<()> {
    const RESOURCE: &str = "e2e.example.com/found";
    let space = cluster.space("found")?;
    let socket = folder(cluster).join("plugins_registry/e2e/key.sock");
    let plugin = Plugin::serve(&socket, Keys { resource: RESOURCE, folder: cluster.path("keys") })?;
    until_allocatable(&space, RESOURCE, "2")?;
    std::fs::remove_file(&socket)?;
    until_allocatable(&space, RESOURCE, "0")?;
    drop(plugin);
    Ok(())
}
