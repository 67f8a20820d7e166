//! The worked examples of the documentation, and upstream's rounding.

use super::limits::{History, Limited, Wish};
use super::plan::{Present, Proposal, Reading, Readings, Tolerance, by_average, by_ratio, by_share, by_utilization};
use super::settings::Youth;
use pintle_types::Kind;
use pintle_types::k8s::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

/// Now, in milliseconds since 1970; the pods of tests began an hour before.
const NOW: i64 = 1_700_000_000_000;
const USUAL: Tolerance = Tolerance { down: 0.1, up: 0.1 };

fn time(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).unwrap().to_string()
}

/// A pod that asks for 100m, with what is said of it: `run`, `pending`, `failed`, `deleting`, `unready` (since its start),
/// `young` (ready, just started), `youngest` (not ready, just started).
fn pod(name: &str, state: &str) -> Arc<Pod> {
    let phase = match state {
        "pending" => "Pending",
        "failed" => "Failed",
        _ => "Running",
    };
    let started = if state.starts_with("young") { NOW - 60_000 } else { NOW - 3_600_000 };
    let ready = if matches!(state, "unready" | "youngest") { "False" } else { "True" };
    let mut object = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}]},
        "status": {"phase": phase, "startTime": time(started), "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": time(started + 1000)},
        ]},
    });
    if state == "deleting" {
        object["metadata"]["deletionTimestamp"] = time(NOW).into();
    }
    Arc::new(Pod::from_value(object).unwrap())
}

/// Pods by their states, and what each uses in thousandths; nothing where that is unknown.
fn case(given: &[(&str, Option<i64>)]) -> (Vec<Arc<Pod>>, Readings) {
    let mut readings = Readings::new();
    let one = |(at, (state, value)): (usize, &(&str, Option<i64>))| {
        let name = format!("pod-{at}");
        if let Some(value) = *value {
            readings.insert(name.clone(), Reading { value, at: NOW - 1000, window: 15_000 });
        }
        pod(&name, state)
    };
    let pods = given.iter().enumerate().map(one).collect();
    (pods, readings)
}

fn present(pods: &[Arc<Pod>], replicas: i32) -> Present<'_> {
    Present { replicas, pods, tolerance: USUAL, youth: Youth::default(), now: NOW }
}

fn utilization(given: &[(&str, Option<i64>)], target: i32) -> Result<(i32, i32), String> {
    let (pods, readings) = case(given);
    let replicas = i32::try_from(given.len()).unwrap();
    let found = by_utilization(&present(&pods, replicas), readings, "cpu", None, target)?;
    Ok((found.replicas, found.utilization.unwrap()))
}

#[test]
fn the_ratio_is_followed() {
    let run = |value: i64| ("run", Some(value));
    let rows: [(&[(&str, Option<i64>)], i32, i32, i32); 9] = [
        // "if the current metric value is 200m, and the desired value is 100m, the number of replicas will be doubled"
        (&[run(200)], 100, 2, 200),
        // "if the current value is instead 50m, you'll halve the number of replicas"
        (&[run(50), run(50)], 100, 1, 50),
        // "skips any scaling action if the ratio is sufficiently close to 1.0"
        (&[run(110), run(110)], 100, 2, 110),
        (&[run(90), run(90)], 100, 2, 90),
        (&[run(111), run(111)], 100, 3, 111),
        (&[run(30), run(50), run(70)], 30, 5, 50),
        // Pods that end or failed don't count.
        (&[run(200), ("deleting", Some(900)), ("failed", None)], 100, 2, 200),
        // Missing pods are thought to use nothing on the way up …
        (&[run(300), ("run", None)], 100, 3, 300),
        // … and all of what they request on the way down.
        (&[run(20), ("run", None)], 100, 2, 20),
    ];
    for (given, target, replicas, percent) in rows {
        assert_eq!(utilization(given, target), Ok((replicas, percent)), "{given:?}");
    }
}

#[test]
fn pods_that_are_not_ready_damp_the_way_up() {
    let rows: [(&[(&str, Option<i64>)], i32); 6] = [
        // Alone, 300m would triple; with one that does nothing yet it is 150 percent of two.
        (&[("run", Some(300)), ("pending", None)], 3),
        (&[("run", Some(300)), ("unready", Some(900))], 3),
        (&[("run", Some(300)), ("youngest", Some(900))], 3),
        // It was not measured over a whole window since it became ready: it was, here.
        (&[("run", Some(300)), ("young", Some(300))], 6),
        // What is assumed does not turn the direction.
        (&[("run", Some(120)), ("pending", None)], 2),
        // On the way down they don't count.
        (&[("run", Some(50)), ("run", Some(50)), ("pending", None)], 1),
    ];
    for (given, replicas) in rows {
        assert_eq!(utilization(given, 100).map(|found| found.0), Ok(replicas), "{given:?}");
    }
}

#[test]
fn what_cannot_be_told_is_said() {
    let none = "no pods returned by selector while calculating replica count";
    assert_eq!(utilization(&[], 50), Err(none.into()));
    let unready = "did not receive metrics for targeted pods (pods might be unready)";
    assert_eq!(utilization(&[("pending", None)], 50), Err(unready.into()));
    let (pods, readings) = case(&[("run", Some(5))]);
    let ask = |resource: &str, container: Option<&str>| {
        by_utilization(&present(&pods, 1), readings.clone(), resource, container, 50).unwrap_err()
    };
    assert_eq!(ask("hugepages-2Mi", None), "missing request for hugepages-2Mi in container c of Pod pod-0");
    assert_eq!(ask("cpu", Some("x")), "container x not found in Pod pod-0");
    assert!(by_utilization(&present(&pods, 1), readings.clone(), "cpu", Some("c"), 50).is_ok());
}

#[test]
fn averages_ratios_and_shares() {
    let (pods, readings) = case(&[("run", Some(20_000)), ("run", Some(10_000)), ("youngest", Some(30_000))]);
    let found = by_average(&present(&pods, 3), readings.clone(), false, 10_000);
    assert_eq!(found, Ok(Proposal { replicas: 6, utilization: None, average: 20_000 }));
    // Of the processor, the third is not believed: 30000 over three pods is what is wanted.
    let found = by_average(&present(&pods, 3), readings, true, 10_000);
    assert_eq!(found, Ok(Proposal { replicas: 3, utilization: None, average: 15_000 }));
    // Two of the three are ready.
    assert_eq!(by_ratio(&present(&pods, 3), 2.0), Ok(4));
    assert_eq!(by_ratio(&present(&pods, 3), 1.05), Ok(3));
    assert_eq!(by_ratio(&present(&[], 0), 2.3), Ok(3));
    assert!(by_ratio(&present(&[], 1), 2.3).is_err());
    for (replicas, value, target, expected) in
        [(3, 8600, 2000, (5, 2867)), (4, 8600, 2150, (4, 2150)), (5, 1000, 5000, (1, 200)), (1, 0, 5000, (0, 0))]
    {
        assert_eq!(by_share(replicas, value, target, USUAL), expected);
    }
}

#[test]
fn tolerances_may_differ_by_direction() {
    let (pods, readings) = case(&[("run", Some(103)), ("run", Some(103))]);
    let tight = Present { tolerance: Tolerance { down: 0.1, up: 0.02 }, ..present(&pods, 2) };
    assert_eq!(by_average(&tight, readings, false, 100).map(|found| found.replicas), Ok(3));
}

fn behavior(value: Value) -> HorizontalPodAutoscalerBehavior {
    serde_json::from_value(value).unwrap()
}

fn rules(select: &str, window: i32, policies: &[(&str, i32, i32)]) -> Value {
    let policies: Vec<Value> = policies
        .iter()
        .map(|(kind, value, period)| json!({"type": kind, "value": value, "periodSeconds": period}))
        .collect();
    json!({"selectPolicy": select, "stabilizationWindowSeconds": window, "policies": policies})
}

fn wish(current: i32, proposed: i32) -> Wish {
    Wish { current, proposed, min: 1, max: 100 }
}

fn number(limited: &Limited) -> (i32, &'static str) {
    (limited.replicas, limited.why.0)
}

#[test]
fn without_behavior_the_number_doubles_at_most_and_goes_down_late() {
    let mut history = History::new(300);
    history.begin(5, NOW);
    let rows = [
        (0, wish(5, 20), 10, "ScaleUpLimit", "ReadyForNewScale"),
        (15, wish(10, 15), 20, "ScaleUpLimit", "ScaleDownStabilized"),
        (299, wish(10, 2), 20, "DesiredWithinRange", "ScaleDownStabilized"),
        (301, wish(20, 2), 15, "DesiredWithinRange", "ScaleDownStabilized"),
        (700, wish(15, 0), 1, "TooFewReplicas", "ReadyForNewScale"),
        (800, Wish { max: 3, ..wish(1, 9) }, 3, "TooManyReplicas", "ReadyForNewScale"),
    ];
    for (seconds, wish, replicas, limit, able) in rows {
        let found = history.limit(None, wish, NOW + seconds * 1000);
        let expected = if seconds == 15 { (20, "DesiredWithinRange") } else { (replicas, limit) };
        assert_eq!((number(&found), found.able.0), (expected, able), "after {seconds} s");
    }
}

#[test]
fn policies_bound_the_rate() {
    // "allow at most 4 replicas to be scaled down in one minute; at most 10% of the current replicas in one minute";
    // the highest change is chosen: 80 → 72 → 64 → 57 → 51 …, "when the number falls below 40" 4 at a time.
    let down = |select: &str| behavior(json!({"scaleDown": rules(select, 0, &[("Pods", 4, 60), ("Percent", 10, 60)])}));
    for (select, current, expected) in [
        ("Max", 80, 72),
        ("Max", 72, 64),
        ("Max", 64, 57),
        ("Max", 40, 36),
        ("Max", 36, 32),
        ("Min", 80, 76),
        ("Min", 20, 18),
        ("Disabled", 80, 80),
    ] {
        let found = History::new(300).limit(Some(&down(select)), wish(current, 1), NOW);
        assert_eq!(number(&found), (expected, "ScaleDownLimit"), "{select} {current}");
    }
    // "double the replicas, or add 4, in 15 seconds": what is higher.
    let up = behavior(json!({"scaleUp": rules("Max", 0, &[("Percent", 100, 15), ("Pods", 4, 15)])}));
    for (current, expected) in [(1, 5), (3, 7), (5, 10), (40, 80)] {
        let found = History::new(300).limit(Some(&up), wish(current, 99), NOW);
        assert_eq!(number(&found), (expected, "ScaleUpLimit"));
    }
    // A share of few pods is rounded such that something happens.
    let slow = behavior(json!({"scaleUp": rules("Max", 0, &[("Percent", 10, 60)])}));
    assert_eq!(number(&History::new(300).limit(Some(&slow), wish(1, 9), NOW)), (2, "ScaleUpLimit"));
}

#[test]
fn changes_count_for_their_period() {
    let slow = behavior(json!({"scaleUp": rules("Max", 0, &[("Pods", 4, 60)])}));
    let mut history = History::new(300);
    assert_eq!(number(&history.limit(Some(&slow), wish(1, 20), NOW)), (5, "ScaleUpLimit"));
    history.note_change(Some(&slow), 1, 5, NOW);
    let later = NOW + 30_000;
    assert_eq!(number(&history.limit(Some(&slow), wish(5, 20), later)), (5, "ScaleUpLimit"));
    let later = NOW + 61_000;
    assert_eq!(number(&history.limit(Some(&slow), wish(5, 20), later)), (9, "ScaleUpLimit"));
}

#[test]
fn windows_keep_the_number_where_it_was() {
    let calm = behavior(json!({
        "scaleUp": rules("Max", 60, &[("Percent", 100, 15)]),
        "scaleDown": rules("Max", 60, &[("Percent", 100, 15)]),
    }));
    let mut history = History::new(300);
    history.begin(4, NOW);
    let up = history.limit(Some(&calm), wish(4, 8), NOW + 15_000);
    assert_eq!((up.replicas, up.able.0), (4, "ScaleUpStabilized"));
    let down = history.limit(Some(&calm), wish(4, 2), NOW + 30_000);
    assert_eq!((down.replicas, down.able.0), (4, "ScaleDownStabilized"));
    let later = history.limit(Some(&calm), wish(4, 6), NOW + 120_000);
    assert_eq!((later.replicas, later.able.0), (6, "ReadyForNewScale"));
}
