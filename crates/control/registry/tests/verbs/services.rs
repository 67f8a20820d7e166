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
    assert!(outside.message.contains("IP 10.9.9.9: the provided network does not match the current range"));
    let first = world.create("services", service("c", json!({"clusterIP": "10.43.0.0"}))).await.unwrap_err();
    let why = "the provided IP (10.43.0.0) is not in the valid range. The range of valid IPs is 10.43.0.0/16";
    assert!(first.message.contains(why), "{}", first.message);
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
    let world = World::with(Options { service_ranges: vec![range], ..Options::default() }).await;
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

async fn dual() -> World {
    let ranges = ["10.43.0.0/16", "fd00:43::/112"].map(|range| range.parse().unwrap());
    World::with(Options { service_ranges: ranges.to_vec(), ..Options::default() }).await
}

#[tokio::test]
async fn a_service_has_an_address_of_each_family_it_asks_for() {
    let world = dual().await;
    let create = async |name: &str, spec: Value| world.create("services", service(name, spec)).await;
    let plain = create("plain", json!({})).await.unwrap();
    assert_eq!(plain["spec"]["ipFamilies"], json!(["IPv4"]));
    let both = create("both", json!({"ipFamilyPolicy": "RequireDualStack"})).await.unwrap();
    let addresses = both["spec"]["clusterIPs"].as_array().unwrap();
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!((&addresses[0], addresses.len()), (&both["spec"]["clusterIP"], 2));
    assert!(addresses[1].as_str().unwrap().starts_with("fd00:43::"));
    let six = create("six", json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]})).await.unwrap();
    assert_eq!(six["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]));
    assert!(six["spec"]["clusterIP"].as_str().unwrap().starts_with("fd00:43::"));
    let named = json!({"clusterIP": "fd00:43::7", "clusterIPs": ["fd00:43::7"]});
    assert_eq!(create("named", named.clone()).await.unwrap()["spec"]["ipFamilies"], json!(["IPv6"]));
    let taken = create("again", named).await.unwrap_err();
    assert!(taken.message.ends_with("failed to allocate IP fd00:43::7: provided IP is already allocated"), "{taken:?}");
    let contradicts = json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]});
    assert_eq!(
        create("x", contradicts).await.unwrap_err().message,
        "Service \"x\" is invalid: spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or \
         'PreferDualStack' when multiple IP families are specified"
    );
}

#[tokio::test]
async fn the_second_family_comes_and_goes() {
    let world = dual().await;
    let created = world.create("services", service("a", json!({}))).await.unwrap();
    let policy = |policy: &str| json!({"spec": {"ipFamilyPolicy": policy}});
    let both = world.merge("services", "a", "", policy("RequireDualStack")).await.unwrap();
    let second = both["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
    assert_eq!(both["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    let def = world.def("ipaddresses.networking.k8s.io");
    let options = Default::default();
    let object = || world.registry.get(&def, "", &second, &options);
    assert_eq!(object().await.unwrap().to_value()["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv6");
    let alone = json!({"spec": {"clusterIPs": [created["spec"]["clusterIP"]]}});
    let refused = world.merge("services", "a", "", alone).await.unwrap_err();
    assert!(refused.message.ends_with("must be 'SingleStack' to release the secondary cluster IP"), "{refused:?}");
    let one = world.merge("services", "a", "", policy("SingleStack")).await.unwrap();
    assert_eq!(one["spec"]["clusterIPs"], json!([created["spec"]["clusterIP"]]));
    assert_eq!(one["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(object().await.unwrap_err().code, 404);
}

#[tokio::test]
async fn further_ranges_give_addresses_while_they_are_ready() {
    let world =
        World::with(Options { service_ranges: vec!["10.43.0.0/30".parse().unwrap()], ..Options::default() }).await;
    let address = async |name: &str| {
        let created = world.create("services", service(name, json!({}))).await?;
        Ok::<_, pintle_types::Status>(created["spec"]["clusterIP"].as_str().unwrap().to_owned())
    };
    for name in ["a", "b"] {
        assert!(address(name).await.unwrap().starts_with("10.43.0."));
    }
    assert!(address("c").await.unwrap_err().message.ends_with("range is full"));
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "more", "finalizers": ["example.com/kept"]}, "spec": {"cidrs": ["10.44.0.0/24"]}});
    world.create("servicecidrs.networking.k8s.io", range).await.unwrap();
    assert!(address("c").await.unwrap().starts_with("10.44.0."));
    world.delete("servicecidrs.networking.k8s.io", "more", json!({})).await.unwrap();
    // A read waits until the deletion is seen, which the allocation does not.
    world.get("servicecidrs.networking.k8s.io", "more").await.unwrap();
    assert!(address("d").await.unwrap_err().message.ends_with("range is full"), "it is on its way out");
    let asked = world.create("services", service("e", json!({"clusterIP": "10.44.0.9"}))).await.unwrap_err();
    assert!(asked.message.ends_with("10.44.0.9: the provided network does not match the current range"), "{asked:?}");
}
