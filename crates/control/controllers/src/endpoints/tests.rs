//! Endpoints as pods come, become ready and go.

use super::slices::{LARGEST, MANAGED_BY, MANAGER, SERVICE_NAME};
use super::{run, run_legacy, run_mirror};
use crate::testing::Cluster;
use futures::FutureExt;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Endpoints, Node, Pod, Service};
use pintle_types::k8s::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster::new().start(|context| run(context).boxed()).start(|context| run_legacy(context).boxed())
}

fn service() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "selector": { "app": "web" },
            "clusterIP": "10.96.0.10",
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http" }],
        },
    })
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "main", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
    })
}

fn endpoints(cluster: &Cluster) -> Vec<Endpoint> {
    cluster.api.all::<EndpointSlice>().into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default()).collect()
}

fn ready(cluster: &Cluster) -> usize {
    endpoints(cluster).iter().filter(|e| e.conditions.as_ref().unwrap().ready == Some(true)).count()
}

fn addresses(cluster: &Cluster) -> (usize, usize) {
    let subsets = cluster.api.get::<Endpoints>("default", "web").and_then(|e| e.subsets).unwrap_or_default();
    let count = |of: fn(&pintle_types::k8s::api::core::v1::EndpointSubset) -> usize| subsets.iter().map(of).sum();
    (
        count(|subset| subset.addresses.iter().flatten().count()),
        count(|subset| subset.not_ready_addresses.iter().flatten().count()),
    )
}

#[tokio::test(start_paused = true)]
async fn endpoints_follow_their_pods() {
    let cluster = cluster();
    cluster.create::<Service>(service()).await;
    cluster.until("an empty slice", |api| api.all::<EndpointSlice>().len() == 1).await;
    for name in ["a", "b"] {
        cluster.create::<Pod>(pod(name)).await;
        cluster.report("default", name, "Running");
    }
    cluster.until("both ready", |_| ready(&cluster) == 2 && addresses(&cluster) == (2, 0)).await;
    cluster.until("no empty slice left", |api| api.all::<EndpointSlice>().len() == 1).await;
    let slice = cluster.api.all::<EndpointSlice>().remove(0);
    assert_eq!(slice.label(SERVICE_NAME), Some("web"));
    assert_eq!(slice.label(MANAGED_BY), Some(MANAGER));
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));

    // A pod that is being deleted serves on until it is gone, but gets no new connections.
    cluster.change::<Pod>("default", "a", |pod| {
        pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
    });
    cluster.until("one ready", |_| ready(&cluster) == 1 && addresses(&cluster) == (1, 0)).await;
    let going = endpoints(&cluster).into_iter().map(|e| e.conditions.unwrap()).find(|c| c.terminating == Some(true));
    assert_eq!(going.unwrap().serving, Some(true));
    cluster.api.remove::<Pod>("default", "a");
    cluster.report("default", "b", "Pending");
    cluster.until("none ready", |_| endpoints(&cluster).len() == 1 && addresses(&cluster) == (0, 1)).await;

    cluster.api.remove::<Service>("default", "web");
    cluster.until("no Endpoints", |api| api.all::<Endpoints>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_holds_a_hundred() {
    let cluster = cluster();
    for i in 0..LARGEST + 20 {
        cluster.create::<Pod>(pod(&format!("p{i}"))).await;
        cluster.report("default", &format!("p{i}"), "Running");
    }
    cluster.create::<Service>(service()).await;
    cluster.until("all ready", |_| ready(&cluster) == LARGEST + 20).await;
    let mut sizes: Vec<usize> =
        cluster.api.all::<EndpointSlice>().iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [20, 100]);
}

#[tokio::test(start_paused = true)]
async fn headless_services_name_their_pods() {
    let cluster = cluster();
    let mut headless = service();
    headless["spec"]["clusterIP"] = json!("None");
    headless["spec"]["publishNotReadyAddresses"] = json!(true);
    headless["spec"].as_object_mut().unwrap().remove("ports");
    cluster.create::<Service>(headless).await;
    let mut object = pod("web-0");
    object["spec"]["hostname"] = json!("web-0");
    object["spec"]["subdomain"] = json!("web");
    cluster.create::<Pod>(object).await;
    cluster.report("default", "web-0", "Pending");
    cluster.until("the endpoint", |_| ready(&cluster) == 1 && addresses(&cluster) == (1, 0)).await;
    assert_eq!(endpoints(&cluster)[0].hostname.as_deref(), Some("web-0"));
    let slice = cluster.api.all::<EndpointSlice>().remove(0);
    assert_eq!(slice.label("service.kubernetes.io/headless"), Some(""));
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_meant_for_those_who_are_near() {
    let cluster = cluster();
    let zone = json!({ "topology.kubernetes.io/zone": "east" });
    cluster.create::<Node>(json!({ "metadata": { "name": "node", "labels": zone } })).await;
    let mut object = service();
    object["spec"]["trafficDistribution"] = json!("PreferSameNode");
    cluster.create::<Service>(object).await;
    cluster.create::<Pod>(pod("a")).await;
    cluster.report("default", "a", "Running");
    let hints = |cluster: &Cluster| serde_json::to_value(&endpoints(cluster).first()?.hints).ok();
    let near = json!({ "forNodes": [{ "name": "node" }], "forZones": [{ "name": "east" }] });
    cluster.until("hints of both", |_| hints(&cluster) == Some(near.clone())).await;
    for distribution in ["PreferClose", "PreferSameZone"] {
        cluster.change::<Service>("default", "web", |service| {
            service.spec.as_mut().unwrap().traffic_distribution = Some(distribution.into());
        });
        let near = json!({ "forZones": [{ "name": "east" }] });
        cluster.until("hints of zones", |_| hints(&cluster) == Some(near.clone())).await;
    }
    cluster.change::<Node>("", "node", |node| {
        node.metadata.labels.as_mut().unwrap().insert("topology.kubernetes.io/zone".into(), "west".into());
    });
    let near = json!({ "forZones": [{ "name": "west" }] });
    cluster.until("hints of the other zone", |_| hints(&cluster) == Some(near.clone())).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_people_write_are_mirrored() {
    let cluster = Cluster::new().start(|context| run_mirror(context).boxed());
    let meta = json!({ "name": "outside", "namespace": "default", "labels": { "team": "a" } });
    let subsets = json!([
        { "addresses": [{ "ip": "10.1.2.3" }, { "ip": "2001:db8::1" }], "ports": [{ "port": 80 }] },
        { "notReadyAddresses": [{ "ip": "10.1.2.4" }], "ports": [{ "port": 81, "name": "other" }] },
    ]);
    cluster.create::<Endpoints>(json!({ "metadata": meta, "subsets": subsets })).await;
    cluster.pass(2.0).await;
    assert!(cluster.api.all::<EndpointSlice>().is_empty(), "there is no such Service");
    cluster.create::<Service>(json!({ "metadata": meta, "spec": { "ports": [{ "port": 80 }] } })).await;
    cluster.until("three slices", |api| api.all::<EndpointSlice>().len() == 3).await;
    let slices = cluster.api.all::<EndpointSlice>();
    let six = slices.iter().find(|slice| slice.address_type == "IPv6").unwrap();
    assert_eq!((six.label("team"), six.label(SERVICE_NAME)), (Some("a"), Some("outside")));
    assert_eq!(six.label(MANAGED_BY), Some("endpointslicemirroring-controller.k8s.io"));
    assert_eq!(six.metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
    assert_eq!(ready(&cluster), 2);
    cluster.change::<Endpoints>("default", "outside", |endpoints| {
        endpoints.subsets.as_mut().unwrap().truncate(1);
    });
    cluster.until("two slices", |api| api.all::<EndpointSlice>().len() == 2).await;
    cluster.change::<Service>("default", "outside", |service| {
        service.spec.as_mut().unwrap().selector = Some([("a".to_owned(), "b".to_owned())].into());
    });
    cluster.until("none", |api| api.all::<EndpointSlice>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn zones_get_their_share_of_endpoints_where_the_service_asks_for_it() {
    let cluster = cluster();
    for zone in ["a", "b"] {
        let status = json!({ "allocatable": { "cpu": "2" }, "conditions": [{ "type": "Ready", "status": "True" }] });
        let meta = json!({ "name": zone, "labels": { "topology.kubernetes.io/zone": zone } });
        cluster.create::<Node>(json!({ "metadata": meta, "status": status })).await;
    }
    let mut asking = service();
    asking["metadata"]["annotations"] = json!({ "service.kubernetes.io/topology-mode": "Auto" });
    cluster.create::<Service>(asking).await;
    let few = "TopologyAwareHintsDisabled: Insufficient number of endpoints (0 endpoints, 2 zones), addressType: IPv4";
    cluster.until("too few", |_| cluster.events().iter().any(|event| event == few)).await;
    for name in ["one", "two"] {
        cluster.create::<Pod>(pod(name)).await;
        cluster.report("default", name, "Running");
        cluster.change::<Pod>("default", name, |pod| pod.spec.as_mut().unwrap().node_name = Some("a".into()));
    }
    let hints = || {
        let zone = |endpoint: Endpoint| Some(endpoint.hints?.for_zones?.remove(0).name);
        let mut zones: Vec<String> = endpoints(&cluster).into_iter().filter_map(zone).collect();
        zones.sort();
        zones
    };
    cluster.until("one is lent", |_| hints() == ["a", "b"]).await;
    let enabled = "TopologyAwareHintsEnabled: Topology Aware Hints has been enabled, addressType: IPv4";
    cluster.until("it is told", |_| cluster.events().iter().any(|event| event == enabled)).await;
    // Of one zone alone no share can be told.
    cluster.change::<Node>("", "b", |node| {
        node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
    });
    cluster.until("no hints", |_| hints().is_empty()).await;
}
