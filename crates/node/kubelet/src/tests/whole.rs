//! The whole kubelet on an API server in memory: registration, pods, orphans, objects that change, its HTTPS API.

use super::api_server::Server;
use crate::config::{Config, ServerConfig};
use crate::fake::pods::named;
use crate::fake::{FakeRuntime, NoStreams};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use pintle_informer::Informers;
use pintle_pki::{CertificateAuthority, ClientCertificates, Identity};
use pintle_types::Kind;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) struct Kubelet {
    pub(super) server: Arc<Server>,
    pub(super) runtime: Arc<FakeRuntime>,
    cidrs: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), crate::Error>>,
    pub(super) dir: tempfile::TempDir,
}

impl Kubelet {
    pub(super) fn start(api: Option<ServerConfig>) -> Self {
        let runtime = FakeRuntime::new(pintle_clock::system());
        Self::start_with(Server::new(), runtime, crate::fake::temporary_directory(), api)
    }

    fn start_with(
        server: Arc<Server>,
        runtime: Arc<FakeRuntime>,
        dir: tempfile::TempDir,
        api: Option<ServerConfig>,
    ) -> Self {
        Self::start_set(server, runtime, dir, api, |_| {})
    }

    /// With other options than the usual ones.
    pub(super) fn start_at(dir: tempfile::TempDir, set: impl FnOnce(&mut crate::Options)) -> Self {
        Self::start_set(Server::new(), FakeRuntime::new(pintle_clock::system()), dir, None, set)
    }

    fn start_set(
        server: Arc<Server>,
        runtime: Arc<FakeRuntime>,
        dir: tempfile::TempDir,
        api: Option<ServerConfig>,
        set: impl FnOnce(&mut crate::Options),
    ) -> Self {
        let stop = CancellationToken::new();
        let cidrs = Arc::new(Mutex::new(Vec::new()));
        let mut config = config(&server, runtime.clone(), dir.path(), &stop);
        config.server = api;
        config.options.static_pods = Some(dir.path().join("manifests")).filter(|path| path.exists());
        config.options.device_plugins = Some(dir.path().join("device-plugins"));
        set(&mut config.options);
        let told = Arc::clone(&cidrs);
        config.on_pod_cidrs = Some(Arc::new(move |list| *told.lock().unwrap() = list.to_vec()));
        let running = tokio::spawn(crate::run(config, stop.clone()));
        Self { server, runtime, cidrs, stop, running, dir }
    }

    pub(super) async fn stop(self) -> (Arc<Server>, Arc<FakeRuntime>, tempfile::TempDir) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        (self.server, self.runtime, self.dir)
    }
}

fn config(server: &Arc<Server>, runtime: Arc<FakeRuntime>, root: &Path, stop: &CancellationToken) -> Config {
    let client = server.client();
    Config {
        node_name: "n1".into(),
        node_ips: vec![Ipv4Addr::new(192, 0, 2, 1).into()],
        informers: Informers::new(client.clone(), stop.clone()),
        client,
        runtime,
        clock: pintle_clock::system(),
        root_dir: root.join("kubelet"),
        log_dir: root.join("logs"),
        hardware: crate::Hardware::Real,
        cgroup_root: "/".into(),
        manage_cgroups: false,
        cluster_dns: vec![],
        cluster_domain: "cluster.local".into(),
        resolv_conf: root.join("resolv.conf"),
        labels: [("zone".to_owned(), "z".to_owned())].into(),
        taints: vec![],
        max_pods: 110,
        server: None,
        streaming: Arc::new(NoStreams),
        lease_seconds: 40,
        on_pod_cidrs: None,
        options: Default::default(),
        kubelet_version: "v1.36.2+pintle".into(),
    }
}

const POD: &str = "/api/v1/namespaces/default/pods/p";

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = "n1".into();
    named("p", "u1", spec).to_value()
}

fn web() -> Value {
    json!({"containers": [{"name": "web", "image": "i"}]})
}

#[tokio::test]
async fn a_node_registers_and_keeps_its_lease() {
    let kubelet = Kubelet::start(None);
    let is_ready = |n: &Value| n["status"]["conditions"].to_string().contains("\"KubeletReady\"");
    let node = kubelet.server.until("/api/v1/nodes/n1", is_ready).await;
    assert_eq!(
        (&node["metadata"]["labels"]["zone"], &node["status"]["capacity"]["pods"]),
        (&json!("z"), &json!("110"))
    );
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.2+pintle");
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let lease = kubelet.server.until(path, |l| l["spec"]["holderIdentity"] == "n1").await;
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"]);
    let mut node = node;
    node["spec"]["podCIDRs"] = json!(["10.42.3.0/24"]);
    kubelet.server.put("/api/v1/nodes/n1", node);
    // The kubelet answers a change of its node by telling its status anew when something else differs.
    let cidrs = Arc::clone(&kubelet.cidrs);
    while cidrs.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*cidrs.lock().unwrap(), ["10.42.3.0/24"]);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_bound_pod_runs_and_a_deleted_one_goes() {
    let kubelet = Kubelet::start(None);
    kubelet.server.put(POD, pod(web()));
    let running = kubelet.server.until(POD, |p| p["status"]["phase"] == "Running").await;
    let mut deleting = running;
    deleting["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    deleting["metadata"]["deletionGracePeriodSeconds"] = 5.into();
    kubelet.server.put(POD, deleting);
    kubelet.server.until_gone(POD).await;
    kubelet.stop().await;
}

const MIRROR: &str = "/api/v1/namespaces/default/pods/web-n1";

#[tokio::test]
async fn static_pods_run_by_themselves_and_have_mirrors() {
    let dir = crate::fake::temporary_directory();
    let file = dir.path().join("manifests/web.yaml");
    std::fs::create_dir(dir.path().join("manifests")).unwrap();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";
    std::fs::write(&file, manifest).unwrap();
    let runtime = FakeRuntime::new(pintle_clock::system());
    let kubelet = Kubelet::start_with(Server::new(), runtime, dir, None);
    let is_running = |pod: &Value| pod["status"]["phase"] == "Running";
    let first = kubelet.server.until(MIRROR, is_running).await;
    let container = first["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(first["metadata"]["ownerReferences"][0]["name"], "n1");
    let annotations = &first["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);

    // A mirror that somebody deletes comes back; its pod does not notice.
    let mut deleting = first.clone();
    deleting["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    kubelet.server.put(MIRROR, deleting);
    let back = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null() && is_running(pod);
    let second = kubelet.server.until(MIRROR, back).await;
    assert_eq!(second["status"]["containerStatuses"][0]["containerID"], container);

    // Another content is another pod: the old one ends first.
    std::fs::write(&file, manifest.replace("image: i", "image: other")).unwrap();
    let changed = |pod: &Value| pod["spec"]["containers"][0]["image"] == "other" && is_running(pod);
    let third = kubelet.server.until(MIRROR, changed).await;
    assert_ne!(third["status"]["containerStatuses"][0]["containerID"], container);

    std::fs::remove_file(&file).unwrap();
    kubelet.server.until_gone(MIRROR).await;
    kubelet.stop().await;
}

#[tokio::test]
async fn static_pods_that_ended_with_the_machine_run_again() {
    let dir = crate::fake::temporary_directory();
    std::fs::create_dir(dir.path().join("manifests")).unwrap();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";
    std::fs::write(dir.path().join("manifests/web.yaml"), manifest).unwrap();
    let runtime = FakeRuntime::new(pintle_clock::system());
    let kubelet = Kubelet::start_with(Server::new(), runtime, dir, None);
    let is_running = |pod: &Value| pod["status"]["phase"] == "Running";
    let mut mirror = kubelet.server.until(MIRROR, is_running).await;
    let (server, _, dir) = kubelet.stop().await;
    mirror["status"]["phase"] = "Failed".into();
    mirror["status"]["reason"] = "Terminated".into();
    server.put(MIRROR, mirror);
    let kubelet = Kubelet::start_with(server, FakeRuntime::new(pintle_clock::system()), dir, None);
    let again = kubelet.server.until(MIRROR, is_running).await;
    assert!(again["status"]["reason"].is_null(), "{}", again["status"]);
    kubelet.stop().await;
}

#[tokio::test]
async fn readiness_that_somebody_took_away_is_told_again() {
    let kubelet = Kubelet::start(None);
    kubelet.server.put(POD, pod(web()));
    let ready = |p: &Value| {
        let list = p["status"]["conditions"].as_array().cloned().unwrap_or_default();
        list.iter().find(|c| c["type"] == "Ready").is_some_and(|c| c["status"] == "True")
    };
    let mut pod = kubelet.server.until(POD, ready).await;
    for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
        condition["status"] = "False".into();
    }
    let taken = kubelet.server.put(POD, pod);
    let again = kubelet.server.until(POD, ready).await;
    assert_ne!(taken["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_restart_adopts_what_is_wanted_and_removes_what_is_not() {
    let kubelet = Kubelet::start(None);
    let other = "/api/v1/namespaces/default/pods/q";
    let mut orphan =
        named("q", "u2", json!({"nodeName": "n1", "containers": [{"name": "gone", "image": "i"}]})).to_value();
    orphan["metadata"]["labels"] = json!({});
    kubelet.server.put(POD, pod(web()));
    kubelet.server.put(other, orphan);
    kubelet.server.until(POD, |p| p["status"]["phase"] == "Running").await;
    kubelet.server.until(other, |p| p["status"]["phase"] == "Running").await;
    let before = kubelet.runtime.running();
    let (server, runtime, dir) = kubelet.stop().await;
    assert_eq!(runtime.running(), before, "containers outlive the kubelet");
    server.remove(other);
    let mut events = pintle_cri::RuntimeService::events(runtime.as_ref()).await.unwrap();
    let kubelet = Kubelet::start_with(server, runtime, dir, None);
    while kubelet.runtime.running().contains_key("gone") {
        futures::StreamExt::next(&mut events).await.expect("the runtime tells of the end");
    }
    assert_eq!(kubelet.runtime.running().get("web"), before.get("web"));
    kubelet.stop().await;
}

#[tokio::test]
async fn a_config_map_that_comes_late_wakes_its_pod() {
    let kubelet = Kubelet::start(None);
    let mut spec = web();
    spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "m"}}]);
    kubelet.server.put(POD, pod(spec));
    let waits = |p: &Value| p["status"].to_string().contains("CreateContainerConfigError");
    kubelet.server.until(POD, waits).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "default"}});
    kubelet.server.put("/api/v1/namespaces/default/configmaps/m", map);
    kubelet.server.until(POD, |p| p["status"]["phase"] == "Running").await;
    kubelet.stop().await;
}

/// A server's settings, and clients: an administrator, somebody else, nobody.
fn tls() -> (Arc<rustls::ServerConfig>, String, Identity, Identity) {
    let now = jiff::Timestamp::now();
    let dir = crate::fake::temporary_directory();
    let authority = CertificateAuthority::create(dir.path(), "test", now).unwrap();
    let server = authority.issue_server("kubelet", &["127.0.0.1".to_owned()], now).unwrap();
    let client = |name: &str, groups: &[&str]| authority.issue_client(name, groups, now).unwrap();
    let pem = authority.certificate_pem().to_owned();
    let config = pintle_pki::server_config(&server, ClientCertificates::Optional(&pem)).unwrap();
    (config, pem, client("admin", &["system:masters"]), client("somebody", &["g"]))
}

async fn get(
    port: u16,
    ca: &str,
    identity: Option<&Identity>,
    token: Option<&str>,
    path: &str,
) -> (StatusCode, String) {
    let config = pintle_pki::client_config_http1(ca, identity).unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", "127.0.0.1");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn what_the_kubelet_does_is_counted() {
    let (config, ca, admin, _) = tls();
    let bind = free_port();
    let kubelet = Kubelet::start(Some(ServerConfig { bind, tls: config }));
    kubelet.server.put(POD, pod(web()));
    kubelet.server.until(POD, |p| p["status"]["phase"] == "Running").await;
    for path in ["/healthz", "/nothing"] {
        get(bind.port(), &ca, Some(&admin), None, path).await;
    }
    let (status, text) = get(bind.port(), &ca, Some(&admin), None, "/metrics").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let request = |path: &str| {
        let labels = format!("method=\"GET\",path=\"{path}\",server_type=\"readwrite\",long_running=\"false\"");
        format!("kubelet_http_requests_total{{{labels}}} 1")
    };
    let requests = ["healthz", "other", "metrics"].map(request);
    let others = [
        "kubelet_node_name{node=\"n1\"} 1",
        "kubelet_desired_pods{static=\"\"} 1",
        "kubelet_desired_pods{static=\"true\"} 0",
        "kubelet_running_pods 1",
        "kubelet_running_containers{container_state=\"running\"} 1",
        "kubelet_started_pods_total 1",
        "kubelet_started_pods_errors_total 0",
        "kubelet_started_containers_total{container_type=\"container\"} 1",
        "kubelet_pod_start_duration_seconds_count 1",
        "kubelet_runtime_operations_total{operation_type=\"start_container\"} 1",
        "kubelet_runtime_operations_duration_seconds_count{operation_type=\"run_podsandbox\"} 1",
    ];
    for line in requests.iter().map(String::as_str).chain(others) {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    kubelet.stop().await;
}

#[tokio::test]
async fn the_api_is_for_those_who_may_and_serves_logs() {
    let (config, ca, admin, somebody) = tls();
    let bind = free_port();
    let kubelet = Kubelet::start(Some(ServerConfig { bind, tls: config }));
    kubelet.server.put(POD, pod(web()));
    kubelet.server.until(POD, |p| p["status"]["phase"] == "Running").await;
    let port = bind.port();
    let code = async |identity, token, path: &str| get(port, &ca, identity, token, path).await.0.as_u16();
    assert_eq!(code(None, None, "/healthz").await, 401);
    assert_eq!(code(None, Some("nobody"), "/pods").await, 401);
    assert_eq!(code(None, Some("reader"), "/pods").await, 403);
    assert_eq!(code(Some(&somebody), None, "/pods").await, 403);
    kubelet.server.allowed.lock().push("reader get pods".into());
    assert_eq!(code(None, Some("reader"), "/pods").await, 200);
    assert_eq!(code(Some(&admin), None, "/nothing").await, 404);
    assert_eq!(code(Some(&admin), None, "/exec/default/p/web?command=x&output=1").await, 400);
    let log = kubelet.dir.path().join("logs/default_p_u1/web/0.log");
    std::fs::write(log, "2024-01-01T00:00:00Z stdout F hello\n").unwrap();
    let (status, text) = get(port, &ca, Some(&admin), None, "/containerLogs/default/p/web").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "hello\n"));
    let (status, text) = get(port, &ca, Some(&admin), None, "/containerLogs/default/p/web?previous=true").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(text, "previous terminated container \"web\" in pod \"p\" not found");
    let (_, running) = get(port, &ca, Some(&admin), None, "/runningpods/").await;
    assert!(running.contains("\"uid\":\"u1\""), "{running}");
    kubelet.stop().await;
}
