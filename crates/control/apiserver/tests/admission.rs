//! The built-in admission plugins through a whole server: kubelets, pod security, topology, quotas, limit ranges.

mod support;

use http::{Method, StatusCode};
use pintle_apiserver::{AdmissionSettings, User};
use serde_json::{Value, json};
use support::{Cluster, Reply, request};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}})
}

async fn as_kubelet(cluster: &Cluster, method: Method, path: &str, body: Value) -> Reply {
    // A second group lets the authorizer pass what the plugin is to judge.
    let kubelet = User::new("system:node:n", &["system:nodes", "system:masters"]);
    cluster.send(kubelet, request(method, path, body)).await
}

fn warnings(reply: &Reply) -> Vec<&str> {
    reply.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().trim_start_matches("299 - ")).collect()
}

#[tokio::test]
async fn kubelets_are_kept_to_what_is_theirs() {
    let cluster = Cluster::new().await;
    cluster.default_account("default").await;
    let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let made =
        as_kubelet(&cluster, Method::POST, "/api/v1/nodes", node("n", json!({"kubernetes.io/os": "linux"}))).await;
    assert_eq!(made.code, StatusCode::CREATED, "{made:?}");
    cluster.create(PODS, pod("mine")).await;
    let mut other = pod("other");
    other["spec"]["nodeName"] = "m".into();
    let uid = cluster.create(PODS, other).await["metadata"]["uid"].clone();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let bound = json!({"spec": {"audiences": ["a"], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "other",
        "uid": uid}}});
    let lease = json!({"metadata": {"name": "n"}, "spec": {}});
    let nodes = "/api/v1/nodes/n";
    let cases = [
        (
            Method::POST,
            "/api/v1/nodes".to_owned(),
            node("m", json!({})),
            "nodes \"m\" is forbidden: node \"n\" is not \
          allowed to modify node \"m\"",
        ),
        (
            Method::PATCH,
            nodes.to_owned(),
            json!({"metadata": {"labels": {"node-role.kubernetes.io/x": ""}}}),
            "nodes \"n\" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/x",
        ),
        (
            Method::PATCH,
            nodes.to_owned(),
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            "nodes \"n\" is forbidden: node \"n\" is not allowed to modify taints",
        ),
        (
            Method::POST,
            PODS.to_owned(),
            pod("p"),
            "pods \"p\" is forbidden: pod does not have \
          \"kubernetes.io/config.mirror\" annotation, node \"n\" can only create mirror pods",
        ),
        (
            Method::DELETE,
            format!("{PODS}/other"),
            Value::Null,
            "pods \"other\" is forbidden: node \"n\" can only delete pods with spec.nodeName set to itself",
        ),
        (
            Method::PATCH,
            format!("{PODS}/other/status"),
            json!({"status": {"message": "m"}}),
            "pods \"other\" is \
          forbidden: node \"n\" can only update pod status for pods with spec.nodeName set to itself",
        ),
        (
            Method::POST,
            format!("{PODS}/other/eviction"),
            json!({"metadata": {"name": "other"}}),
            "pods \"other\" is forbidden: node n can only evict pods with spec.nodeName set to itself",
        ),
        (
            Method::POST,
            format!("{accounts}/default/token"),
            json!({"spec": {"audiences": ["a"]}}),
            "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod",
        ),
        (
            Method::POST,
            format!("{accounts}/default/token"),
            bound,
            "serviceaccounts \"default\" is forbidden: node requested token bound to a pod scheduled on a different node",
        ),
        (
            Method::POST,
            "/apis/coordination.k8s.io/v1/namespaces/default/leases".to_owned(),
            lease,
            "leases.coordination.k8s.io \"n\" is forbidden: can only access leases in the \"kube-node-lease\" system \
          namespace",
        ),
        (
            Method::POST,
            "/apis/storage.k8s.io/v1/csinodes".to_owned(),
            json!({"metadata": {"name": "m"}, "spec": {
            "drivers": []}}),
            "csinodes.storage.k8s.io \"m\" is forbidden: can only access CSINode with the same name as \
          the requesting node",
        ),
    ];
    for (method, path, body, message) in cases {
        let reply = as_kubelet(&cluster, method, &path, body).await;
        assert_eq!((reply.code, reply.message().as_str()), (StatusCode::FORBIDDEN, message), "{path}");
    }
    let (path, body) = (format!("{PODS}/mine/status"), json!({"status": {"message": "m"}}));
    assert_eq!(as_kubelet(&cluster, Method::PATCH, &path, body).await.code, StatusCode::OK);
}

#[tokio::test]
async fn namespaces_warn_of_the_pods_that_a_level_would_refuse() {
    let cluster = Cluster::new().await;
    cluster.default_account("default").await;
    for name in ["b", "a"] {
        let mut bad = pod(name);
        bad["spec"]["hostNetwork"] = true.into();
        cluster.create(PODS, bad).await;
    }
    cluster.create(PODS, pod("good")).await;
    let enforce = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let path = "/api/v1/namespaces/default";
    let reply = cluster.admin(Method::PATCH, path, enforce("baseline")).await;
    assert_eq!(
        warnings(&reply),
        [
            "\"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \
             \\\"baseline:latest\\\"\"",
            "\"a (and 1 other pod): host namespaces\"",
        ]
    );
    assert!(warnings(&cluster.admin(Method::PATCH, path, enforce("privileged")).await).is_empty());
    let reply = cluster.admin(Method::PATCH, path, enforce("most")).await;
    assert_eq!(
        (reply.code.as_u16(), reply.message().as_str()),
        (
            422,
            "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
             \"most\": must be one of privileged, baseline, restricted"
        )
    );
}

#[tokio::test]
async fn plugins_can_be_turned_on_and_off() {
    let cluster = Cluster::with(|config, _| {
        let enable = ["AlwaysPullImages".to_owned()];
        config.admission = AdmissionSettings::new(&enable, &["ServiceAccount".to_owned()], None).unwrap();
    })
    .await;
    // Without the plugin no account is looked for.
    let made = cluster.create(PODS, pod("p")).await;
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert!(made["spec"].get("volumes").is_none_or(Value::is_null));
    let reply = cluster.get("/metrics").await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let counted = |name: &str, step: &str| {
        let prefix = "apiserver_admission_controller_admission_duration_seconds_count{";
        let (name, step) = (format!("name=\"{name}\""), format!("type=\"{step}"));
        text.lines().any(|line| line.starts_with(prefix) && line.contains(&name) && line.contains(&step))
    };
    assert!(counted("AlwaysPullImages", "admit") && !counted("ServiceAccount", ""));
    assert!(counted("PodSecurity", "validate") && !counted("PodSecurity", "admit"), "it changes nothing");
}

#[tokio::test]
async fn pods_carry_the_zone_of_their_node() {
    let cluster = Cluster::new().await;
    cluster.default_account("default").await;
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"});
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": "n", "labels": labels}})).await;
    let mut free = pod("p");
    free["spec"].as_object_mut().unwrap().remove("nodeName");
    free["metadata"]["labels"] = json!({"topology.kubernetes.io/region": "own"});
    cluster.create(PODS, free).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    cluster.create(&format!("{PODS}/p/binding"), binding).await;
    let bound = cluster.get(&format!("{PODS}/p")).await.json();
    let expected = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "own"});
    assert_eq!(bound["metadata"]["labels"], expected);
}

#[tokio::test]
async fn quotas_that_refuse_together_are_not_charged() {
    let cluster = Cluster::new().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    for (name, hard) in [("open", "5"), ("full", "1")] {
        cluster.create(quotas, json!({"metadata": {"name": name}, "spec": {"hard": {"configmaps": hard}}})).await;
        // The controller's part.
        let used = if name == "full" { "1" } else { "2" };
        let status = json!({"status": {"hard": {"configmaps": hard}, "used": {"configmaps": used}}});
        let reply = cluster.admin(Method::PATCH, &format!("{quotas}/{name}/status"), status).await;
        assert_eq!(reply.code, StatusCode::OK);
    }
    let maps = "/api/v1/namespaces/default/configmaps";
    let reply = cluster.admin(Method::POST, maps, json!({"metadata": {"name": "m"}})).await;
    assert_eq!(
        (reply.code, reply.message().as_str()),
        (
            StatusCode::FORBIDDEN,
            "configmaps \"m\" is forbidden: exceeded quota: full, requested: configmaps=1, used: configmaps=1, limited: \
             configmaps=1"
        )
    );
    assert_eq!(cluster.get(&format!("{quotas}/open")).await.json()["status"]["used"]["configmaps"], "2");
}

#[tokio::test]
async fn updates_in_namespaces_that_are_not_there_find_no_namespace() {
    let cluster = Cluster::new().await;
    let reply =
        cluster.admin(Method::POST, "/api/v1/namespaces/gone/configmaps", json!({"metadata": {"name": "m"}})).await;
    assert_eq!((reply.code, reply.message().as_str()), (StatusCode::NOT_FOUND, "namespaces \"gone\" not found"));
}
