//! Pretending nodes against an API server in memory.

use crate::{Config, Times, Watching, run};
use pintle_clock::{RuntimeClock, Timestamp};
use pintle_fake_api::FakeApi;
use pintle_types::Kind;
use pintle_types::k8s::api::coordination::v1::Lease;
use pintle_types::k8s::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Hollow {
    api: FakeApi,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

/// Two nodes.
fn start(change: impl FnOnce(&mut Config)) -> Hollow {
    let api = FakeApi::new();
    let clock = RuntimeClock::new(Timestamp::from_second(1_700_000_000).unwrap());
    let mut config = Config::new(api.client(), clock, 2);
    change(&mut config);
    let stop = CancellationToken::new();
    Hollow { ended: tokio::spawn(run(config, stop.clone())), api, stop }
}

impl Hollow {
    /// Waits for so long at most: timers move by themselves.
    async fn until(&self, what: &str, holds: impl Fn(&FakeApi) -> bool) {
        for _ in 0..600 {
            if holds(&self.api) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {what}");
    }
}

fn pod(name: &str, node: &str, policy: &str) -> Pod {
    let object: Value = json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") },
        "spec": { "nodeName": node, "restartPolicy": policy, "containers": [{ "name": "main", "image": "app" }] },
        "status": { "phase": "Pending" },
    });
    Pod::from_value(object).unwrap()
}

fn phase(api: &FakeApi, name: &str) -> Option<String> {
    api.get::<Pod>("default", name)?.status?.phase
}

#[tokio::test(start_paused = true)]
async fn nodes_register_and_renew_their_leases() {
    let hollow = start(|_| ());
    hollow.until("two nodes", |api| api.all::<Node>().len() == 2).await;
    hollow.until("two leases", |api| api.all::<Lease>().len() == 2).await;
    let renewed = |api: &FakeApi| api.all::<Lease>()[0].spec.as_ref().unwrap().renew_time.clone();
    let first = renewed(&hollow.api);
    hollow.until("a renewal", |api| renewed(api) != first).await;
    let node = &hollow.api.all::<Node>()[0];
    let ready = node.status.as_ref().unwrap().conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((node.name(), ready.status.as_str()), ("hollow-1", "True"));
    assert_eq!(node.annotation("volumes.kubernetes.io/controller-managed-attach-detach"), Some("true"));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_there_are_taken_up_and_marked() {
    let known = json!({ "metadata": { "name": "hollow-1", "uid": "known", "annotations": { "mine": "stays" } } });
    let hollow = start(|config| config.count = 1);
    hollow.api.put(&Node::from_value(known).unwrap());
    let marked = |node: Node| node.annotation("volumes.kubernetes.io/controller-managed-attach-detach").is_some();
    hollow.until("it is marked", |api| api.get::<Node>("", "hollow-1").is_some_and(marked)).await;
    let node = hollow.api.get::<Node>("", "hollow-1").unwrap();
    assert_eq!((node.uid(), node.annotation("mine")), ("known", Some("stays")));
}

#[tokio::test(start_paused = true)]
async fn bound_pods_run_and_those_that_may_end_do() {
    for watching in [Watching::Together, Watching::Each] {
        let hollow = start(|config| config.watching = watching);
        for pod in [pod("web", "hollow-1", "Always"), pod("task", "hollow-2", "Never"), pod("else", "real", "Always")] {
            hollow.api.put(&pod);
        }
        hollow.until("it runs", |api| phase(api, "web").as_deref() == Some("Running")).await;
        hollow.until("it ends", |api| phase(api, "task").as_deref() == Some("Succeeded")).await;
        assert_eq!(phase(&hollow.api, "web").as_deref(), Some("Running"));
        assert_eq!(phase(&hollow.api, "else").as_deref(), Some("Pending"), "another node's");
        let status = hollow.api.get::<Pod>("default", "web").unwrap().status.unwrap();
        assert!(status.pod_ip.is_some_and(|ip| ip.starts_with("100.64.1.")));
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_pods_are_removed_when_they_have_ended() {
    let hollow = start(|config| config.times = Times { end: Duration::from_secs(20), ..Times::default() });
    let mut deleted = pod("web", "hollow-1", "Always").to_value();
    deleted["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:30Z".into();
    deleted["metadata"]["deletionGracePeriodSeconds"] = 5.into();
    let began = tokio::time::Instant::now();
    hollow.api.put(&Pod::from_value(deleted).unwrap());
    hollow.until("it is removed", |api| api.all::<Pod>().is_empty()).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(10), "{took:?}: the grace period is shorter");
}

#[tokio::test(start_paused = true)]
async fn nodes_are_removed_at_the_end_when_asked_to_be() {
    let hollow = start(|config| config.remove = true);
    hollow.until("two nodes", |api| api.all::<Node>().len() == 2).await;
    hollow.stop.cancel();
    hollow.ended.await.unwrap();
    assert!(hollow.api.all::<Node>().is_empty());
}
