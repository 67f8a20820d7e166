//! Several servers over one etcd: each sees what the others write, and none gives away what another has.

use crate::world::*;
use futures::StreamExt;
use pintle_registry::{EventKind, ListOptions, Options, WatchOptions};
use pintle_store::etcd::{self, EtcdStore};
use pintle_store::{KeyRange, Op, RangeRequest, Store, Txn};
use pintle_store_contract::etcd::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

async fn store(cluster: &Cluster) -> Arc<dyn Store> {
    let options = etcd::Options { compact_every: None, ..etcd::Options::new(cluster.endpoints()) };
    Arc::new(EtcdStore::open(options).await.expect("open"))
}

async fn server(cluster: &Cluster, options: Options) -> Arc<World> {
    Arc::new(World::over(store(cluster).await, options).await)
}

async fn put(store: &dyn Store, key: &str, value: Vec<u8>) {
    let then = vec![Op::Put { key: key.to_owned().into(), value: value.into(), lease: 0 }];
    store.txn(Txn { then, ..Txn::default() }).await.expect("put");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_see_each_others_writes() {
    let cluster = Cluster::start(1);
    let (one, two) = (server(&cluster, Options::default()).await, server(&cluster, Options::default()).await);
    let mut watch = two.watch("configmaps", WatchOptions::default()).await.unwrap();
    for i in 0..20 {
        let name = format!("c{i:02}");
        let created = one.create("configmaps", config_map(&name, "1")).await.unwrap();
        assert_eq!(two.get("configmaps", &name).await.unwrap(), created);
        let changed = two.merge("configmaps", &name, "", json!({"data": {"k": "2"}})).await.unwrap();
        let list = one.list("configmaps", ListOptions::default()).await.unwrap();
        assert_eq!((list.items.len(), list.items[0].to_value()["data"]["k"].clone()), (1, json!("2")));
        assert!(list.revision >= version(&changed));
        one.delete("configmaps", &name, json!({})).await.unwrap();
        assert_eq!(two.get("configmaps", &name).await.unwrap_err().code, 404);
        for kind in [EventKind::Added, EventKind::Modified, EventKind::Deleted] {
            assert_eq!(watch.next().await.unwrap().kind, kind);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_of_the_newest_state_though_others_write_elsewhere() {
    let cluster = Cluster::start(1);
    let (world, raw) = (server(&cluster, Options::default()).await, store(&cluster).await);
    for _ in 0..3 {
        put(&*raw, "/elsewhere", b"x".to_vec()).await;
        let newest = raw.revision().await.unwrap();
        assert!(world.list("configmaps", ListOptions::default()).await.unwrap().revision >= newest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_object_are_made_one_after_the_other() {
    let cluster = Cluster::start(1);
    let servers = [server(&cluster, Options::default()).await, server(&cluster, Options::default()).await];
    servers[0].create("configmaps", config_map("c", "v")).await.unwrap();
    let writers = (0..8).map(|writer| {
        let world = servers[writer % 2].clone();
        tokio::spawn(async move {
            for i in 0..5 {
                let key = format!("{writer}-{i}");
                world.merge("configmaps", "c", "", json!({"data": {key: "x"}})).await.expect("patch");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("writer");
    }
    let data = servers[1].get("configmaps", "c").await.unwrap()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 41);
}

fn service(name: &str, address: Option<&str>) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    if let Some(address) = address {
        object["spec"]["clusterIP"] = address.into();
    }
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_given_to_one_service() {
    let cluster = Cluster::start(1);
    let small = || Options {
        service_ranges: vec!["10.50.0.0/28".parse().expect("range")],
        node_ports: 30000..=30013,
        ..Options::default()
    };
    let servers = [server(&cluster, small()).await, server(&cluster, small()).await];
    let creators = (0..14).map(|i| {
        let world = servers[i % 2].clone();
        tokio::spawn(async move { world.create("services", service(&format!("s{i}"), None)).await.expect("create") })
    });
    let mut given = BTreeSet::new();
    for creator in creators.collect::<Vec<_>>() {
        let service = creator.await.expect("creator");
        given.insert((service["spec"]["clusterIP"].to_string(), service["spec"]["ports"][0]["nodePort"].to_string()));
    }
    let (addresses, ports): (BTreeSet<_>, BTreeSet<_>) = given.into_iter().unzip();
    assert_eq!((addresses.len(), ports.len()), (14, 14), "each has its own");
    let full = servers[0].create("services", service("more", None)).await.unwrap_err();
    assert_eq!(full.code, 500);
    // What one server deletes another can give away.
    let gone = servers[0].get("services", "s3").await.unwrap();
    servers[0].delete("services", "s3", json!({})).await.unwrap();
    let address = gone["spec"]["clusterIP"].as_str().unwrap();
    let taken = servers[1].create("services", service("more", Some(address))).await.unwrap();
    assert_eq!(taken["spec"]["clusterIP"], address);
    let again = servers[0].create("services", service("again", Some(address))).await.unwrap_err();
    assert!(again.message.contains("already allocated"), "{}", again.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_upstreams_server_stored_is_read() {
    let cluster = Cluster::start(1);
    let raw = store(&cluster).await;
    let object = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"},
               "metadata": {"name": name, "namespace": NS, "uid": "u", "labels": {"app": "web"}}})
    };
    let protobuf = pintle_schema::protobuf::encode(&object("before")).expect("encode");
    put(&*raw, "/registry/configmaps/default/before", protobuf).await;
    let world = server(&cluster, Options::default()).await;
    let protobuf = pintle_schema::protobuf::encode(&object("after")).expect("encode");
    put(&*raw, "/registry/configmaps/default/after", protobuf).await;
    // Members in the order in which a map has them.
    put(&*raw, "/registry/configmaps/default/json", object("json").to_string().into_bytes()).await;
    let selected = ListOptions { labels: labels("app=web"), ..ListOptions::default() };
    let list = world.list("configmaps", selected).await.unwrap();
    assert_eq!(names(&list), ["after", "before", "json"]);
    for item in &list.items {
        let written: Value = serde_json::from_slice(&item.to_json()).unwrap();
        assert_eq!((&written["data"]["k"], &written["kind"]), (&json!("v"), &json!("ConfigMap")));
        assert_eq!(written, item.to_value());
    }
    let changed = world.merge("configmaps", "before", "", json!({"data": {"k": "2"}})).await.unwrap();
    let key = KeyRange::key("/registry/configmaps/default/before");
    let stored = raw.range(RangeRequest { range: key, at: None, limit: 0 }).await.unwrap().kvs.remove(0);
    assert_eq!(stored.mod_revision, version(&changed));
    let stored: Value = serde_json::from_slice(&stored.value).expect("JSON, which upstream reads as well");
    assert_eq!((&stored["data"]["k"], &stored["metadata"]["uid"]), (&json!("2"), &json!("u")));
}
