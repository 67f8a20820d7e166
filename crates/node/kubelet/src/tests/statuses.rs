//! Tables of statuses: a pod and what the runtime has of it, and what the API shows.

use super::observed;
use crate::container_status::{Input, StartFailure, StartFailures};
use crate::fake::pods::pod;
use crate::host::RuntimeFacts;
use crate::probe::{ProbeKind, Verdicts};
use crate::status::{Ended, Surroundings, status};
use jiff::Timestamp;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

struct Case {
    pod: Pod,
    runtime: &'static str,
    old: PodStatus,
    failures: StartFailures,
    verdicts: Verdicts,
    terminal: bool,
    ended: Option<Ended>,
}

fn case(spec: Value, runtime: &'static str) -> Case {
    Case {
        pod: pod(spec),
        runtime,
        old: PodStatus::default(),
        failures: StartFailures::default(),
        verdicts: Verdicts::default(),
        terminal: false,
        ended: None,
    }
}

impl Case {
    fn typed(&self) -> PodStatus {
        let observed = observed(&self.pod, self.runtime);
        let input = Input {
            pod: &self.pod,
            runtime: &RuntimeFacts { name: "containerd".into(), recursive_read_only: true },
            observed: &observed,
            old: &self.old,
            failures: &self.failures,
            verdicts: &self.verdicts,
            terminal: self.terminal,
        };
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        status(
            &input,
            &Surroundings {
                host_ips: &["192.0.2.1".into()],
                now,
                ended: self.ended.as_ref(),
                resize: Default::default(),
            },
        )
    }

    fn json(&self) -> Value {
        Pod { status: Some(self.typed()), ..Default::default() }.to_value()["status"].clone()
    }
}

/// `True`, or `False Reason message`.
fn condition(status: &Value, name: &str) -> String {
    let list = status["conditions"].as_array().unwrap();
    let found = list.iter().find(|c| c["type"] == name).unwrap();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    [text("status"), text("reason"), text("message")].join(" ").trim().to_owned()
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn phases_follow_the_containers() {
    let two = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
    for (spec, runtime, phase) in [
        (one("Always"), "", "Pending"),
        (one("Always"), "+", "Pending"),
        (one("Always"), "+ a=created", "Pending"),
        (one("Never"), "+ a=making", "Pending"),
        (one("Never"), "+ a=unknown", "Failed"),
        (one("Always"), "+ a=run", "Running"),
        (one("Always"), "+ a=exit0", "Running"),
        (one("Never"), "+ a=exit0", "Succeeded"),
        (one("Never"), "+ a=exit1", "Failed"),
        (one("OnFailure"), "+ a=exit1", "Running"),
        (one("OnFailure"), "+ a=exit0", "Succeeded"),
        (two("Never"), "+ a=exit1 b=run", "Running"),
        (two("Never"), "+ a=exit0 b=exit1", "Failed"),
        (two("Always"), "+ a=run", "Pending"),
    ] {
        assert_eq!(case(spec, runtime).json()["phase"], phase, "{runtime}");
    }
}

#[test]
fn phases_follow_the_init_containers() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    for (policy, runtime, phase) in [
        ("Always", "+ i=run", "Pending"),
        ("Always", "+ i=exit1", "Pending"),
        ("Never", "+ i=exit1", "Failed"),
        ("Always", "+ i=exit0", "Pending"),
        ("Always", "+ i=exit0 a=run", "Running"),
    ] {
        assert_eq!(case(spec(policy), runtime).json()["phase"], phase, "{policy} {runtime}");
    }
    let beside = json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
    for (runtime, phase) in [
        ("+ s=run", "Pending"),
        ("+ s=run a=run", "Running"),
        ("+ s=run a=exit0", "Running"),
        ("+ s=exit0 a=exit0", "Succeeded"),
        ("+ s=exit1 a=exit1", "Failed"),
    ] {
        assert_eq!(case(beside.clone(), runtime).json()["phase"], phase, "{runtime}");
    }
}

#[test]
fn a_pod_that_waits_says_so() {
    let got = case(one("Always"), "").json();
    assert_eq!(got["containerStatuses"][0]["state"], json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!(got["containerStatuses"][0]["started"], false);
    assert_eq!(condition(&got, "PodReadyToStartContainers"), "False");
    assert_eq!(condition(&got, "Initialized"), "True");
    assert_eq!(condition(&got, "Ready"), "False ContainersNotReady containers with unready status: [a]");
    assert_eq!(condition(&got, "PodScheduled"), "True");
    assert_eq!((&got["qosClass"], &got["startTime"]), (&json!("BestEffort"), &json!("2023-11-14T22:13:20Z")));
    let order: Vec<&str> = got["conditions"].as_array().unwrap().iter().filter_map(|c| c["type"].as_str()).collect();
    assert_eq!(order, ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]);
}

#[test]
fn a_running_pod_is_ready() {
    let got = case(one("Always"), "+ a=run").json();
    for name in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
        assert_eq!(condition(&got, name), "True", "{name}");
    }
    let container = &got["containerStatuses"][0];
    assert_eq!(container["containerID"], "containerd://a0");
    assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
    assert_eq!((&got["podIP"], &got["podIPs"][0]["ip"]), (&json!("10.42.0.5"), &json!("10.42.0.5")));
}

#[test]
fn probes_decide_readiness() {
    let probe = json!({"exec": {"command": ["x"]}});
    let spec = json!({"containers": [{"name": "a", "startupProbe": probe, "readinessProbe": probe}]});
    let mut case = case(spec, "+ a=run");
    let flags = |case: &Case| {
        let status = case.json();
        (status["containerStatuses"][0]["started"].clone(), status["containerStatuses"][0]["ready"].clone())
    };
    assert_eq!(flags(&case), (json!(false), json!(false)));
    case.verdicts.set("a0", ProbeKind::Startup, true);
    assert_eq!(flags(&case), (json!(true), json!(false)));
    case.verdicts.set("a0", ProbeKind::Readiness, true);
    assert_eq!(flags(&case), (json!(true), json!(true)));
}

#[test]
fn a_crash_loop_shows_its_delay_and_its_last_end() {
    let mut case = case(one("Always"), "+ a=exit1 a=exit2");
    let message = "back-off 10s restarting failed container=a pod=p_default(u1)".to_owned();
    case.failures.insert("a".into(), StartFailure { reason: "CrashLoopBackOff".into(), message: message.clone() });
    let got = case.json();
    let container = &got["containerStatuses"][0];
    assert_eq!(container["state"], json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}}));
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 2);
    assert_eq!((&container["restartCount"], &got["phase"]), (&json!(1), &json!("Running")));
}

#[test]
fn a_finished_pod_is_not_ready_and_says_why() {
    let got = case(one("Never"), "- a=exit0").json();
    assert_eq!(condition(&got, "Ready"), "False PodCompleted");
    assert_eq!(condition(&got, "Initialized"), "True PodCompleted");
    let terminated = &got["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&terminated["reason"], &terminated["exitCode"]), (&json!("Completed"), &json!(0)));
    let got = case(one("Never"), "- a=exit1").json();
    assert_eq!(condition(&got, "ContainersReady"), "False PodFailed");
    assert_eq!(got["containerStatuses"][0]["state"]["terminated"]["reason"], "Error");
}

#[test]
fn a_deadline_fails_the_pod() {
    let mut case = case(one("Always"), "+ a=exit137");
    case.terminal = true;
    case.ended = Some(Ended { reason: "DeadlineExceeded".into(), message: "m".into() });
    let got = case.json();
    assert_eq!(
        (&got["phase"], &got["reason"], &got["message"]),
        (&json!("Failed"), &json!("DeadlineExceeded"), &json!("m"))
    );
}

#[test]
fn a_pod_that_the_node_ends_says_so_once_nothing_of_it_runs() {
    let mut case = case(one("Never"), "+ a=run");
    case.old = case.typed();
    case.ended = Some(Ended { reason: "Preempting".into(), message: "m".into() });
    for runtime in ["+ a=run", "+ a=exit0"] {
        case.runtime = runtime;
        let got = case.json();
        assert_eq!((&got["phase"], &got["reason"]), (&json!("Running"), &Value::Null), "{runtime}");
        assert!(!got["conditions"].to_string().contains("DisruptionTarget"), "{got}");
    }
    case.terminal = true;
    let got = case.json();
    assert_eq!((&got["phase"], &got["reason"]), (&json!("Failed"), &json!("Preempting")));
    let target = "True TerminationByKubelet Pod was preempted by Kubelet to accommodate a critical pod.";
    assert_eq!(condition(&got, "DisruptionTarget"), target);
}

#[test]
fn a_container_that_was_lost_is_told_from_what_was_pushed() {
    let mut before = case(one("Always"), "+ a=run");
    let pushed = before.typed();
    before.old = pushed.clone();
    before.runtime = "+";
    let got = before.json();
    assert_eq!(got["containerStatuses"][0]["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(got["containerStatuses"][0]["restartCount"], 1);
    before.terminal = true;
    assert_eq!(before.json()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
}

#[test]
fn transition_times_change_only_with_the_status() {
    let mut case = case(one("Always"), "+ a=run");
    let mut old = case.typed();
    for condition in old.conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(pintle_types::Time(Timestamp::from_second(1_600_000_000).unwrap()));
    }
    case.old = old;
    let since = |case: &Case, name: &str| {
        let got = case.json();
        let list = got["conditions"].as_array().unwrap().clone();
        list.into_iter().find(|c| c["type"] == name).unwrap()["lastTransitionTime"].clone()
    };
    assert_eq!(since(&case, "Ready"), "2020-09-13T12:26:40Z");
    case.runtime = "+ a=exit1";
    assert_eq!(since(&case, "Ready"), "2023-11-14T22:13:20Z");
    assert_eq!(since(&case, "PodScheduled"), "2020-09-13T12:26:40Z");
}

#[test]
fn readiness_gates_wait_for_their_condition() {
    let mut case = case(json!({"readinessGates": [{"conditionType": "g"}], "containers": [{"name": "a"}]}), "+ a=run");
    assert_eq!(
        condition(&case.json(), "Ready"),
        "False ReadinessGatesNotReady corresponding condition of pod readiness gate \"g\" does not exist."
    );
    let gate = json!({"type": "g", "status": "True"});
    case.old.conditions = Some(vec![serde_json::from_value(gate).unwrap()]);
    assert_eq!(condition(&case.json(), "Ready"), "True");
}
