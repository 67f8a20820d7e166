//! Classification, queueing, fairness between flows, lending, and what an idle server pays.

use super::*;
use crate::level::{Arrival, Level, deal};
use crate::schema::Queuing;
use crate::seats::{Claim, allocate, nominal};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const QUEUING: Queuing = Queuing { queues: 8, hand_size: 2, queue_length_limit: 3 };

fn cluster(total: u32) -> (Arc<Fairness>, pintle_metrics::Registry) {
    let registry = pintle_metrics::Registry::default();
    let fairness = Fairness::new(total, &registry);
    for object in default_levels().iter().chain(&default_schemas()) {
        let mut object = object.clone();
        object["metadata"]["uid"] = format!("uid-{}", object["metadata"]["name"].as_str().unwrap()).into();
        fairness.set(&object);
    }
    fairness.settle();
    (fairness, registry)
}

fn digest<'a>(user: &'a str, groups: &'a [String], verb: &'a str, target: Target<'a>) -> Digest<'a> {
    Digest { user, groups, verb, target }
}

const PODS: Target<'_> = Target::Resource { group: "", resource: "pods", subresource: "", namespace: "a" };
const NODES: Target<'_> = Target::Resource { group: "", resource: "nodes", subresource: "status", namespace: "" };

async fn schema_of(user: &str, groups: &[&str], verb: &str, target: Target<'_>) -> String {
    let (fairness, _) = cluster(600);
    let groups: Vec<String> = groups.iter().map(|g| g.to_string()).collect();
    let seat = fairness.acquire(&digest(user, &groups, verb, target), || 1, Duration::ZERO).await.unwrap();
    seat.schema_uid().to_string()
}

#[tokio::test]
async fn requests_are_classified_as_the_suggested_schemas_say() {
    let authenticated = "system:authenticated";
    assert_eq!(schema_of("root", &["system:masters"], "get", PODS).await, "uid-exempt");
    assert_eq!(schema_of("jane", &[authenticated], "get", PODS).await, "uid-global-default");
    assert_eq!(schema_of("jane", &[authenticated], "get", Target::Path("/healthz")).await, "uid-probes");
    assert_eq!(schema_of("n", &["system:nodes", authenticated], "patch", NODES).await, "uid-system-node-high");
    assert_eq!(schema_of("n", &["system:nodes", authenticated], "get", PODS).await, "uid-system-nodes");
    let account = "system:serviceaccount:kube-system:job-controller";
    assert_eq!(schema_of(account, &["system:serviceaccounts"], "get", PODS).await, "uid-kube-system-service-accounts");
    let account = "system:serviceaccount:a:b";
    assert_eq!(schema_of(account, &["system:serviceaccounts"], "get", PODS).await, "uid-service-accounts");
    assert_eq!(schema_of("system:kube-scheduler", &[authenticated], "get", PODS).await, "uid-kube-scheduler");
    let lease = Target::Resource { group: "coordination.k8s.io", resource: "leases", subresource: "", namespace: "k" };
    assert_eq!(
        schema_of("system:kube-scheduler", &[authenticated], "update", lease).await,
        "uid-system-leader-election"
    );
}

#[test]
fn queues_fill_up_and_empty_in_turn() {
    let mut level = Level::new(Some(QUEUING), 1);
    let arrive = |level: &mut Level, now: f64, hash: u64| level.arrive(now, hash, 1, ("s", "f"));
    let Arrival::Execute(queue) = arrive(&mut level, 0.0, 0) else { panic!("a free seat") };
    // The greedy flow comes first and often, the modest one once: it is not last.
    let greedy: Vec<Arrival> = (0..7).map(|_| arrive(&mut level, 0.1, 0)).collect();
    assert_eq!(greedy.iter().filter(|a| **a == Arrival::QueueFull).count(), 1, "{greedy:?}");
    let Arrival::Wait(modest, 1) = arrive(&mut level, 0.2, 13) else { panic!("a queue of its own") };
    let mut order = Vec::new();
    let mut running = queue;
    for step in 0..7 {
        let now = 1.0 + f64::from(step);
        level.finish(now, running, 1, 1.0);
        let woken = level.dispatch(now);
        assert_eq!(woken.len(), 1);
        running = woken[0].queue;
        order.push(woken[0].ticket);
    }
    let place = order.iter().position(|t| *t == modest).unwrap();
    assert!(place < 3, "the modest flow came as number {place} of {order:?}");
    level.finish(9.0, running, 1, 1.0);
    assert!(level.idle());
}

#[test]
fn a_wide_request_waits_until_it_fits_and_goes_alone_when_it_never_would() {
    let mut level = Level::new(Some(QUEUING), 2);
    let Arrival::Execute(queue) = level.arrive(0.0, 1, 1, ("", "")) else { panic!("free") };
    let Arrival::Wait(ticket, _) = level.arrive(0.0, 1, 5, ("", "")) else { panic!("too wide for now") };
    level.finish(1.0, queue, 1, 1.0);
    let woken = level.dispatch(1.0);
    assert_eq!(woken.iter().map(|w| w.ticket).collect::<Vec<_>>(), [ticket]);
    assert_eq!(level.seats, 5);
}

#[test]
fn levels_without_queues_reject() {
    let mut level = Level::new(None, 1);
    assert_eq!(level.arrive(0.0, 0, 1, ("", "")), Arrival::Execute(0));
    assert_eq!(level.arrive(0.0, 0, 1, ("", "")), Arrival::NoSeat);
}

#[test]
fn hands_have_no_card_twice() {
    for hash in [0, 1, 12_345_678_901_234_567, u64::MAX] {
        let mut hand = deal(hash, 16, 8);
        assert!(hand.iter().all(|card| *card < 16));
        hand.sort_unstable();
        hand.dedup();
        assert_eq!(hand.len(), 8);
    }
}

#[test]
fn seats_go_where_they_are_wanted() {
    assert_eq!(nominal(600, &[30, 5, 0]), [515, 86, 0]);
    let claim = |nominal: f64, least: f64, demand: f64| Claim { nominal, least, most: f64::INFINITY, demand };
    let shared = allocate(100.0, &[claim(50.0, 10.0, 200.0), claim(50.0, 5.0, 0.0)]);
    assert_eq!(shared, [95, 5]);
    let even = allocate(100.0, &[claim(50.0, 10.0, 80.0), claim(50.0, 10.0, 80.0)]);
    assert_eq!(even, [50, 50]);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_a_seat_or_in_time() {
    let (fairness, registry) = cluster(10);
    let groups = ["system:authenticated".to_owned()];
    let jane = digest("jane", &groups, "get", PODS);
    let patience = Duration::from_secs(15);
    let first = fairness.acquire(&jane, || 1, patience).await.unwrap();
    // The level has one seat of ten: a second request waits for it.
    let held = { fairness.clone().acquire(&jane, || 1, patience).await };
    let rejected = held.unwrap_err();
    assert_eq!(rejected.reason, "time-out");
    assert_eq!(&*rejected.level_uid, "uid-global-default");
    let waiting = fairness.acquire(&jane, || 1, patience);
    let release = async { drop(first) };
    let (second, ()) = tokio::join!(waiting, release);
    let second = second.unwrap();
    assert!(fairness.dump_levels().contains("global-default,"));
    drop(second);
    let text = registry.render();
    let labels = "{priority_level=\"global-default\",flow_schema=\"global-default\"";
    assert!(text.contains(&format!("apiserver_flowcontrol_dispatched_requests_total{labels}}} 2\n")), "{text}");
    assert!(text.contains(&format!("apiserver_flowcontrol_rejected_requests_total{labels},reason=\"time-out\"}} 1\n")));
    assert!(text.contains(&format!("apiserver_flowcontrol_current_inqueue_requests{labels}}} 0\n")));
}

#[tokio::test(start_paused = true)]
async fn a_level_in_need_borrows_from_those_that_lend() {
    let (fairness, _) = cluster(600);
    let groups = ["system:authenticated".to_owned()];
    let jane = digest("jane", &groups, "get", PODS);
    let mut seats = Vec::new();
    // 49 seats are its own; after a period it borrows.
    while let Ok(seat) = fairness.acquire(&jane, || 1, Duration::from_millis(1)).await {
        seats.push(seat);
        assert!(seats.len() < 600, "no limit");
    }
    let own = seats.len();
    tokio::time::advance(Duration::from_secs(11)).await;
    let borrowed = fairness.acquire(&jane, || 1, Duration::from_millis(1)).await;
    assert!(borrowed.is_ok(), "{own} seats and no more");
}

#[tokio::test]
async fn objects_come_and_go() {
    let (fairness, _) = cluster(600);
    let schema = json!({"metadata": {"name": "x"}, "spec": {
        "matchingPrecedence": 3, "priorityLevelConfiguration": {"name": "gone"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
                   "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/a/*"]}]}],
    }});
    assert!(fairness.dangling(&schema));
    fairness.set(&schema);
    fairness.remove(true, "exempt");
    fairness.settle();
    // A schema without its level does not count, and the mandatory ones can't be lost.
    let groups = ["system:masters".to_owned()];
    let root = digest("root", &groups, "get", Target::Path("/a/b"));
    let seat = fairness.acquire(&root, || 1, Duration::ZERO).await.unwrap();
    assert_eq!(&**seat.schema_uid(), "");
    assert_eq!(fairness.dump_queues().lines().next().unwrap().split(",").count(), 9);
}
