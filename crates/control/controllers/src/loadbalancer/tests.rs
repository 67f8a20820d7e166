//! Services get the addresses of nodes that can take their packets.

use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_fake_api::FakeApi;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Node, Service};
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

fn node(name: &str, address: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": ready}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    })
}

fn service(name: &str, port: u16, more: Value) -> Value {
    let mut spec = json!({"type": "LoadBalancer", "clusterIP": "10.43.0.9", "ports": [{"port": port}]});
    for (field, value) in more.as_object().expect("an object") {
        spec[field] = value.clone();
    }
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})
}

fn ingress(api: &FakeApi, name: &str) -> Vec<String> {
    let service = api.get::<Service>("ns", name).expect("a service");
    let status = service.status.and_then(|status| status.load_balancer);
    let ingress = status.and_then(|status| status.ingress).unwrap_or_default();
    ingress.into_iter().filter_map(|one| one.ip).collect()
}

#[tokio::test(start_paused = true)]
async fn addresses_follow_the_nodes() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<Node>(node("a", "192.0.2.1", "True")).await;
    cluster.create::<Node>(node("b", "192.0.2.2", "False")).await;
    cluster.create::<Service>(service("web", 80, json!({}))).await;
    cluster.create::<Service>(service("other", 81, json!({"loadBalancerClass": "example.com/other"}))).await;
    cluster.until("the ready node is told", |api| ingress(api, "web") == ["192.0.2.1"]).await;
    cluster.change::<Node>("", "b", |node| {
        node.status.as_mut().expect("status").conditions.as_mut().expect("conditions")[0].status = "True".into();
    });
    cluster.until("both are told", |api| ingress(api, "web") == ["192.0.2.1", "192.0.2.2"]).await;
    cluster.change::<Node>("", "a", |node| {
        let label = ("node.kubernetes.io/exclude-from-external-load-balancers".to_owned(), String::new());
        node.metadata.labels = Some([label].into());
    });
    cluster
        .until("one is left out", |api| ingress(api, "web") == ["192.0.2.2"] && ingress(api, "other").is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_local_asks_for_an_endpoint_on_the_node() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<Node>(node("a", "192.0.2.1", "True")).await;
    cluster.create::<Node>(node("b", "192.0.2.2", "True")).await;
    cluster
        .create::<EndpointSlice>(json!({
            "metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.42.0.1"], "nodeName": "b"},
                {"addresses": ["10.42.0.2"], "nodeName": "a", "conditions": {"ready": false}},
            ],
        }))
        .await;
    cluster.create::<Service>(service("web", 80, json!({"externalTrafficPolicy": "Local"}))).await;
    cluster.until("only b is told", |api| ingress(api, "web") == ["192.0.2.2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_port_is_had_by_one_service_and_never_one_of_the_cluster() {
    let cluster = Cluster::new().start(|context| run(context).boxed());
    cluster.create::<Node>(node("a", "192.0.2.1", "True")).await;
    cluster.create::<Service>(service("kubelet", 10250, json!({}))).await;
    cluster.create::<Service>(service("first", 80, json!({}))).await;
    cluster.until("the first has it", |api| !ingress(api, "first").is_empty()).await;
    cluster.create::<Service>(service("second", 80, json!({}))).await;
    cluster.create::<Service>(service("third", 81, json!({}))).await;
    cluster.until("the third has its own", |api| !ingress(api, "third").is_empty()).await;
    cluster
        .until("they are told so", |_| cluster.events().iter().filter(|event| event.contains("PortInUse")).count() == 2)
        .await;
    cluster.until("they wait", |api| ingress(api, "second").is_empty() && ingress(api, "kubelet").is_empty()).await;
    cluster.change::<Service>("ns", "first", |service| {
        service.spec.as_mut().expect("a spec").ports.as_mut().expect("ports")[0].port = 82;
    });
    cluster.until("the second has it", |api| ingress(api, "second") == ["192.0.2.1"]).await;
}

#[test]
fn nodes_that_can_take_packets_lend_their_addresses() {
    use super::plan::{EXCLUDED_LABEL, addresses};
    let node = |name: &str, change: Value| {
        let address = |kind: &str, text: &str| json!({ "type": kind, "address": text });
        let mut object = json!({
            "metadata": { "name": name }, "spec": {},
            "status": {
                "conditions": [{ "type": "Ready", "status": "True" }],
                "addresses": [address("InternalIP", "10.0.0.1"), address("InternalIP", "fd00::1")],
            },
        });
        for (path, value) in change.as_object().unwrap() {
            *object.pointer_mut(path).unwrap() = value.clone();
        }
        Node::from_value(object).unwrap()
    };
    let plain = || node("a", json!({}));
    let external =
        json!([{ "type": "ExternalIP", "address": "203.0.113.7" }, { "type": "InternalIP", "address": "10.0.0.2" }]);
    let endpoint =
        |node: &str, ready: bool| json!({ "addresses": [], "nodeName": node, "conditions": { "ready": ready } });
    let slice = |endpoints: Value| -> EndpointSlice {
        EndpointSlice::from_value(json!({ "addressType": "IPv4", "endpoints": endpoints, "ports": [] })).unwrap()
    };
    let both = json!({ "ipFamilies": ["IPv4", "IPv6"] });
    let local = || json!({ "externalTrafficPolicy": "Local" });
    for (spec, nodes, endpoints, expected) in [
        (json!({}), vec![plain()], json!([]), &["10.0.0.1"][..]),
        (both, vec![plain()], json!([]), &["10.0.0.1", "fd00::1"]),
        (
            json!({}),
            vec![plain(), node("b", json!({ "/status/addresses": external }))],
            json!([]),
            &["10.0.0.1", "203.0.113.7"],
        ),
        (json!({}), vec![node("a", json!({ "/status/conditions/0/status": "False" }))], json!([]), &[]),
        (
            json!({}),
            vec![node("a", json!({ "/metadata": { "name": "a", "labels": { (EXCLUDED_LABEL): "" } } }))],
            json!([]),
            &[],
        ),
        (
            json!({}),
            vec![node(
                "a",
                json!({ "/spec": { "taints": [{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }] } }),
            )],
            json!([]),
            &[],
        ),
        (local(), vec![plain()], json!([endpoint("a", true)]), &["10.0.0.1"]),
        (local(), vec![plain()], json!([endpoint("a", false), endpoint("b", true)]), &[]),
    ] {
        let service = json!({ "metadata": { "name": "s" }, "spec": spec });
        let service = Service::from_value(service).unwrap();
        assert_eq!(addresses(&service, &nodes, &[slice(endpoints)]), expected, "{spec}");
    }
}
