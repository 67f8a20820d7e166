//! Critical pods on a full node, as a whole kubelet makes room for them.

use super::whole::Kubelet;
use crate::fake::Script;
use crate::fake::pods::named;
use pintle_types::Kind;
use serde_json::{Value, json};
use std::time::Duration;

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Asks for all processors of the node.
fn pod(name: &str, priority: i32) -> Value {
    let resources = json!({"requests": {"cpu": processors().to_string()}});
    let spec = json!({"nodeName": "n1", "priority": priority, "terminationGracePeriodSeconds": 7,
        "containers": [{"name": name, "image": "i", "resources": resources}]});
    named(name, name, spec).to_value()
}

fn phase(phase: &str) -> impl Fn(&Value) -> bool + '_ {
    move |pod| pod["status"]["phase"] == phase
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_waits_for_the_end_of_those_that_it_displaces() {
    let kubelet = Kubelet::start(None);
    kubelet.runtime.script("usual", Script { ignores_stop: true, ..Default::default() });
    kubelet.server.put(&path("usual"), pod("usual", 0));
    kubelet.server.until(&path("usual"), phase("Running")).await;
    kubelet.server.put(&path("critical"), pod("critical", 2_000_001_000));
    let displaced = kubelet.server.until(&path("usual"), phase("Failed")).await;
    let status = &displaced["status"];
    assert_eq!(status["reason"], "Preempting");
    assert_eq!(status["message"], "Preempted in order to admit critical pod");
    let target = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["reason"], "TerminationByKubelet");
    assert_eq!(target["message"], "Pod was preempted by Kubelet to accommodate a critical pod.");
    kubelet.server.until(&path("critical"), phase("Running")).await;
    let calls = kubelet.runtime.calls();
    let place = |text: &str| calls.iter().position(|call| call == text).unwrap_or_else(|| panic!("{text}: {calls:?}"));
    assert!(place("stop usual in 7") < place("start critical/0"), "{calls:?}");
    // The node is full of what may not go for another of the same rank.
    kubelet.server.put(&path("second"), pod("second", 2_000_001_000));
    let refused = kubelet.server.until(&path("second"), phase("Failed")).await;
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    kubelet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_that_is_deleted_waits_for_nobody() {
    let kubelet = Kubelet::start(None);
    kubelet.runtime.script("usual", Script { ignores_stop: true, ..Default::default() });
    let mut usual = pod("usual", 0);
    usual["spec"]["terminationGracePeriodSeconds"] = 100_000.into();
    kubelet.server.put(&path("usual"), usual);
    kubelet.server.until(&path("usual"), phase("Running")).await;
    let mut critical = kubelet.server.put(&path("critical"), pod("critical", 2_000_001_000));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(kubelet.runtime.calls().contains(&"stop usual in 100000".to_owned()));
    critical["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    kubelet.server.put(&path("critical"), critical);
    kubelet.server.until_gone(&path("critical")).await;
    kubelet.server.until(&path("usual"), phase("Running")).await;
    assert!(!kubelet.runtime.calls().contains(&"start critical/0".to_owned()));
    kubelet.stop().await;
}

#[tokio::test]
async fn a_static_pod_displaces_others_and_one_that_can_not_says_so_in_its_mirror() {
    let dir = crate::fake::temporary_directory();
    let folder = dir.path().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    let kubelet = Kubelet::start_at(dir, |_| {});
    kubelet.server.put(&path("usual"), pod("usual", 0));
    kubelet.server.until(&path("usual"), phase("Running")).await;
    let manifest = |name: &str| {
        let mut pod = pod(name, 0);
        pod["spec"].as_object_mut().unwrap().retain(|key, _| key == "containers");
        pod["metadata"] = json!({"name": name});
        std::fs::write(folder.join(format!("{name}.json")), pod.to_string()).unwrap();
    };
    manifest("own");
    kubelet.server.until(&path("own-n1"), phase("Running")).await;
    assert_eq!(kubelet.server.until(&path("usual"), phase("Failed")).await["status"]["reason"], "Preempting");
    manifest("other");
    let refused = kubelet.server.until(&path("other-n1"), phase("Failed")).await;
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    kubelet.stop().await;
}
