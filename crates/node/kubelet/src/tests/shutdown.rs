//! The end of the machine, as a whole kubelet goes through it: who ends when, what is told, what is refused.

use super::whole::Kubelet;
use crate::fake::Script;
use crate::fake::pods::named;
use pintle_logind::pretended::PretendedBus;
use pintle_types::Kind;
use serde_json::{Value, json};
use std::time::Duration;

const NODE: &str = "/api/v1/nodes/n1";

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn pod(name: &str, priority: i32, grace: i64) -> Value {
    let spec = json!({"nodeName": "n1", "priority": priority, "terminationGracePeriodSeconds": grace,
        "containers": [{"name": name, "image": "i"}]});
    named(name, name, spec).to_value()
}

fn ready(node: &Value) -> Option<&Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

#[tokio::test(start_paused = true)]
async fn pods_end_in_order_before_the_machine_does() {
    let dir = crate::fake::temporary_directory();
    let bus = PretendedBus::start(dir.path(), Duration::from_secs(30));
    let overrides = dir.path().join("logind.conf.d");
    let paths = crate::ShutdownPaths { bus: bus.socket().to_owned(), overrides };
    let kubelet = Kubelet::start_at(dir, |options| {
        options.shutdown_paths = paths;
        options.shutdown = crate::ShutdownOptions::new(Duration::ZERO, Duration::ZERO, "0=20,1000=10").unwrap();
    });
    // It never ends by itself.
    kubelet.runtime.script("deaf", Script { ignores_stop: true, ..Default::default() });
    for (name, priority, grace) in [("deaf", 5, 60), ("quick", 0, 3), ("high", 2000, 30)] {
        kubelet.server.put(&path(name), pod(name, priority, grace));
        kubelet.server.until(&path(name), |pod| pod["status"]["phase"] == "Running").await;
    }
    bus.held_by_someone().await;
    assert_eq!(bus.held(), ["shutdown kubelet Kubelet needs time to handle node shutdown delay"]);
    bus.tell(true);
    let node = kubelet.server.until(NODE, |node| ready(node).is_some_and(|ready| ready["status"] == "False")).await;
    let shown = ready(&node).unwrap();
    assert_eq!((&shown["reason"], &shown["message"]), (&json!("KubeletNotReady"), &json!("node is shutting down")));
    let ended = kubelet.server.until(&path("quick"), |pod| pod["status"]["phase"] == "Failed").await;
    let status = &ended["status"];
    assert_eq!(status["reason"], "Terminated");
    assert_eq!(status["message"], "Pod was terminated in response to imminent node shutdown.");
    let target = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    kubelet.server.put(&path("late"), pod("late", 0, 1));
    let refused = kubelet.server.until(&path("late"), |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(refused["status"]["reason"], "NodeShutdown");
    assert_eq!(refused["status"]["message"], "Pod was rejected: Pod was rejected as the node is shutting down.");
    bus.released().await;
    let stops: Vec<String> = kubelet.runtime.calls().into_iter().filter(|call| call.starts_with("stop ")).collect();
    let place = |text: &str| stops.iter().position(|stop| stop == text).unwrap_or_else(|| panic!("{text}: {stops:?}"));
    assert!(place("stop deaf in 20").max(place("stop quick in 3")) < place("stop high in 10"), "{stops:?}");
    bus.tell(false);
    kubelet.server.until(NODE, |node| ready(node).is_some_and(|ready| ready["status"] == "True")).await;
    bus.held_by_someone().await;
    kubelet.stop().await;
}
