//! A device plugin that registers with a whole kubelet: what the node tells, and which pods are taken.

use super::whole::Kubelet;
use crate::fake::pods::named;
use crate::plugins::messages::{GET_INFO, NOTIFY, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use pintle_grpc::{Answer, Call, Limits, Service, SocketClient, Status};
use pintle_placement::device_plugin as m;
use pintle_types::Kind;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const RESOURCE: &str = "example.com/key";

/// Has one device, and says that it is a plugin of this kind.
#[derive(Default)]
struct OneKey {
    kind: &'static str,
    told: watch::Sender<Option<RegistrationStatus>>,
}

impl Service for OneKey {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>> {
        async move {
            match call.method.as_str() {
                m::LIST_AND_WATCH => {
                    let key = m::PluginDevice { id: "a".into(), health: m::HEALTHY.into(), topology: None };
                    let told = futures::stream::iter([Ok(m::ListAndWatchResponse { devices: vec![key] })]);
                    Ok(Answer::many(told.chain(futures::stream::pending())))
                }
                m::OPTIONS => Ok(Answer::once(&m::DevicePluginOptions::default())),
                GET_INFO => Ok(Answer::once(&PluginInfo {
                    kind: self.kind.into(),
                    name: RESOURCE.into(),
                    endpoint: String::new(),
                    supported_versions: vec![m::VERSION.into()],
                })),
                NOTIFY => {
                    self.told.send_replace(Some(call.request()?));
                    Ok(Answer::once(&RegistrationStatusResponse {}))
                }
                m::ALLOCATE => {
                    let containers = vec![m::ContainerAllocateResponse::default()];
                    Ok(Answer::once(&m::AllocateResponse { containers }))
                }
                other => Err(Status::unknown_method(other)),
            }
        }
        .boxed()
    }
}

fn wanting(name: &str) -> Value {
    let resources = json!({"limits": {RESOURCE: "1"}, "requests": {RESOURCE: "1"}});
    let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
    named(name, name, json!({"nodeName": "n1", "containers": containers})).to_value()
}

#[tokio::test]
async fn devices_are_told_and_given_until_none_is_left() {
    let kubelet = Kubelet::start(None);
    let node = kubelet.server.until("/api/v1/nodes/n1", |node| !node["status"]["capacity"].is_null()).await;
    assert!(node["status"]["capacity"][RESOURCE].is_null());
    let folder = kubelet.dir.path().join("device-plugins");
    let stop = CancellationToken::new();
    let listener = pintle_grpc::bind(&folder.join("key.sock"), 0o600).unwrap();
    tokio::spawn(pintle_grpc::serve(listener, Arc::new(OneKey::default()), Limits::default(), stop.clone()));
    let request = m::RegisterRequest {
        version: m::VERSION.into(),
        endpoint: "key.sock".into(),
        resource_name: RESOURCE.into(),
        options: None,
    };
    let client = SocketClient::new(folder.join("kubelet.sock"));
    let _: m::Empty = client.call(m::REGISTER, &request, None).await.unwrap();
    let has = |list: &'static str| move |node: &Value| node["status"][list][RESOURCE] == "1";
    kubelet.server.until("/api/v1/nodes/n1", has("capacity")).await;
    kubelet.server.until("/api/v1/nodes/n1", has("allocatable")).await;
    let path = |name: &str| format!("/api/v1/namespaces/default/pods/{name}");
    kubelet.server.put(&path("first"), wanting("first"));
    kubelet.server.until(&path("first"), |pod| pod["status"]["phase"] == "Running").await;
    kubelet.server.put(&path("second"), wanting("second"));
    let refused = kubelet.server.until(&path("second"), |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    let message = "Pod was rejected: Allocate failed due to requested number of devices unavailable for \
                   example.com/key. Requested: 1, Available: 0, which is unexpected";
    assert_eq!(refused["status"]["message"], message);
    stop.cancel();
    kubelet.stop().await;
}

/// A plugin in the folder where they are looked for, and what stops it.
fn found(kubelet: &Kubelet, socket: &str, kind: &'static str) -> (Arc<OneKey>, CancellationToken) {
    let socket = kubelet.dir.path().join("plugins_registry").join(socket);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let (plugin, stop) = (Arc::new(OneKey { kind, ..OneKey::default() }), CancellationToken::new());
    let listener = pintle_grpc::bind(&socket, 0o600).unwrap();
    tokio::spawn(pintle_grpc::serve(listener, Arc::clone(&plugin), Limits::default(), stop.clone()));
    (plugin, stop)
}

async fn verdict(plugin: &OneKey) -> RegistrationStatus {
    let mut told = plugin.told.subscribe();
    told.wait_for(Option::is_some).await.unwrap().clone().unwrap()
}

#[tokio::test]
async fn plugins_are_found_by_their_sockets_and_let_go_with_them() {
    let kubelet = Kubelet::start(None);
    let (plugin, stop) = found(&kubelet, "vendor/key.sock", "DevicePlugin");
    assert_eq!(verdict(&plugin).await, RegistrationStatus { plugin_registered: true, error: String::new() });
    kubelet.server.until("/api/v1/nodes/n1", |node| node["status"]["allocatable"][RESOURCE] == "1").await;
    let second = found(&kubelet, "csi.sock", "CSIPlugin");
    let refused = verdict(&second.0).await;
    let words = "RegisterPlugin error -- plugin validation failed with err: CSI drivers are not supported";
    assert_eq!((refused.plugin_registered, refused.error.as_str()), (false, words));
    let third = found(&kubelet, "other.sock", "Other");
    let socket = kubelet.dir.path().join("plugins_registry/other.sock");
    let words =
        format!("RegisterPlugin error -- no handler registered for plugin type: Other at socket {}", socket.display());
    assert_eq!(verdict(&third.0).await.error, words);
    std::fs::remove_file(kubelet.dir.path().join("plugins_registry/vendor/key.sock")).unwrap();
    kubelet.server.until("/api/v1/nodes/n1", |node| node["status"]["allocatable"][RESOURCE] == "0").await;
    for stop in [stop, second.1, third.1] {
        stop.cancel();
    }
    kubelet.stop().await;
}
