//! Addresses and ports of Services.

use crate::world::*;
use pintle_registry::Options;
use serde_json::{Value, json};

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

#[tokio::test]
async fn a_service_gets_an_address() {
    let world = World::new().await;
    let created = world.create("services", service("a", json!({}))).await.unwrap();
    let spec = &created["spec"];
    let address = spec["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.43."), "{address}");
    assert_eq!(spec["clusterIPs"], json!([address]));
    assert_eq!((&spec["ipFamilies"], &spec["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
    let taken = world.create("services", service("b", json!({"clusterIP": address}))).await.unwrap_err();
    assert_eq!(
        taken.message,
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{address}\"]: failed to allocate IP {address}: \
             provided IP is already allocated"
        )
    );
    world.delete("services", "a", json!({})).await.unwrap();
    world.create("services", service("b", json!({"clusterIP": address}))).await.unwrap();
    let outside = world.create("services", service("c", json!({"clusterIP": "10.9.9.9"}))).await.unwrap_err();
    assert!(
        outside
            .message
            .contains("the provided IP (10.9.9.9) is not in the valid range. The range of valid IPs is 10.43.0.0/16")
    );
}

#[tokio::test]
async fn headless_and_external_services_need_none() {
    let world = World::new().await;
    let headless = world.create("services", service("a", json!({"clusterIP": "None"}))).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let bare = json!({"clusterIP": "None", "selector": null});
    let bare = world.create("services", service("b", bare)).await.unwrap();
    assert_eq!(bare["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let external = world.create("services", service("c", external)).await.unwrap();
    assert!(external["spec"].get("clusterIP").is_none_or(Value::is_null));
    let dual = json!({"ipFamilyPolicy": "RequireDualStack"});
    let refused = world.create("services", service("d", dual)).await.unwrap_err();
    assert!(refused.message.contains("this cluster is not configured for dual-stack services"));
}

#[tokio::test]
async fn node_ports_are_given_kept_and_returned() {
    let world = World::new().await;
    let created = world.create("services", service("a", json!({"type": "NodePort"}))).await.unwrap();
    let port = created["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30086..=32767).contains(&port), "{port} is in the upper band");
    let same = |port: i64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let taken = world.create("services", service("b", same(port))).await.unwrap_err();
    assert_eq!(
        taken.message,
        format!(
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"
        )
    );
    let outside = world.create("services", service("b", same(80))).await.unwrap_err();
    assert!(
        outside.message.ends_with("provided port is not in the valid range. The range of valid ports is 30000-32767")
    );
    let updated = world.update("services", "", service("a", json!({"type": "NodePort"}))).await.unwrap();
    assert_eq!(updated["spec"]["ports"][0]["nodePort"], port, "an update that leaves it out keeps it");
    assert_eq!(updated["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    let patched = world.merge("services", "a", "", json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
    assert!(patched["spec"]["ports"][0].get("nodePort").is_none());
    world.create("services", service("b", same(port))).await.unwrap();
}

#[tokio::test]
async fn a_new_registry_knows_what_is_taken() {
    let world = World::new().await;
    let created = world.create("services", service("a", json!({"type": "NodePort"}))).await.unwrap();
    let again = World::over(world.store.clone(), Options::default()).await;
    let spec = json!({"clusterIP": created["spec"]["clusterIP"]});
    assert!(again.create("services", service("b", spec)).await.unwrap_err().message.contains("already allocated"));
}

#[tokio::test]
async fn a_full_range_says_so_and_refused_services_cost_nothing() {
    let range = "10.43.0.0/29".parse().unwrap();
    let world = World::with(Options { service_range: range, ..Options::default() }).await;
    let bad = service("a", json!({"ports": [{"port": 99_999}]}));
    for _ in 0..10 {
        assert_eq!(world.create("services", bad.clone()).await.unwrap_err().code, 422);
    }
    for i in 0..6 {
        world.create("services", service(&format!("s{i}"), json!({}))).await.unwrap();
    }
    let full = world.create("services", service("more", json!({}))).await.unwrap_err();
    assert_eq!(full.message, "Internal error occurred: failed to allocate a serviceIP: range is full");
}

#[tokio::test]
async fn an_address_is_an_object_while_it_is_held() {
    let world = World::new().await;
    let created = world.create("services", service("a", json!({}))).await.unwrap();
    let address = created["spec"]["clusterIP"].as_str().unwrap();
    let def = world.def("ipaddresses.networking.k8s.io");
    let options = Default::default();
    let get = || world.registry.get(&def, "", address, &options);
    let object = get().await.unwrap().to_value();
    assert_eq!(object["spec"], json!({"parentRef": {"resource": "services", "namespace": NS, "name": "a"}}));
    assert_eq!(object["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    world.delete("services", "a", json!({})).await.unwrap();
    assert_eq!(get().await.unwrap_err().code, 404);
}

#[tokio::test]
async fn the_protocols_of_a_port_share_a_node_port() {
    let world = World::new().await;
    let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "port": 53, "protocol": protocol});
    let spec = json!({"type": "NodePort", "ports": [port("TCP"), port("UDP")]});
    let created = world.create("services", service("a", spec)).await.unwrap();
    let ports = &created["spec"]["ports"];
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
    assert!(ports[0]["nodePort"].as_i64().is_some_and(|number| number >= 30_000));
}
