//! Tables of plans: a pod and what the runtime has of it, and what is to be done.

use super::observed;
use crate::fake::pods::pod;
use crate::plan::{Action, plan};
use crate::probe::{ProbeKind, Verdicts};
use crate::reference::ContainerKind;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Value, json};

/// `kill-pod sandbox0 init0 web:0 kill:web1`
fn short(actions: &[Action]) -> String {
    let word = |action: &Action| match action {
        Action::Resize { name, .. } => format!("resize {name}"),
        Action::KillPod => "kill-pod".to_owned(),
        Action::Kill { id, .. } => format!("kill:{id}"),
        Action::CreateSandbox { attempt } => format!("sandbox{attempt}"),
        Action::Start { kind: ContainerKind::Init, index } => format!("init{index}"),
        Action::Start { kind: ContainerKind::Regular, index } => format!("start{index}"),
        Action::Start { kind: ContainerKind::Ephemeral, index } => format!("debug{index}"),
    };
    actions.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn check(pod: &Pod, runtime: &str, expected: &str) {
    check_with(pod, runtime, &Verdicts::default(), expected);
}

fn check_with(pod: &Pod, runtime: &str, verdicts: &Verdicts, expected: &str) {
    assert_eq!(short(&plan(pod, &observed(pod, runtime), verdicts)), expected, "{runtime}");
}

fn two(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
}

fn with_init(policy: &str, init: Value) -> Pod {
    pod(json!({"restartPolicy": policy, "initContainers": init, "containers": [{"name": "a"}]}))
}

#[test]
fn a_pod_begins_with_its_sandbox() {
    check(&two("Always"), "", "sandbox0 start0 start1");
    check(&two("Always"), "+", "start0 start1");
    check(&two("Always"), "+ a=run", "start1");
    check(&two("Always"), "+ a=run b=run", "");
    check(&two("Always"), "+ a=created b=run", "start0");
}

#[test]
fn restart_policies_decide_what_comes_back() {
    check(&two("Always"), "+ a=exit0 b=run", "start0");
    check(&two("OnFailure"), "+ a=exit0 b=run", "");
    check(&two("OnFailure"), "+ a=exit1 b=run", "start0");
    check(&two("Never"), "+ a=exit1 b=run", "");
    check(&two("Never"), "+ a=exit1 b=exit0", "kill-pod");
    check(&two("OnFailure"), "+ a=exit0 b=exit0", "kill-pod");
}

#[test]
fn a_container_may_have_a_policy_and_rules_of_its_own() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "restartPolicy": "OnFailure"},
        {"name": "b", "restartPolicy": "Never", "restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}));
    check(&pod, "+ a=exit1 b=exit1", "start0");
    check(&pod, "+ a=exit0 b=exit42", "start1");
}

#[test]
fn a_lost_sandbox_takes_everything_with_it() {
    check(&two("Always"), "- a=exit137 b=run", "kill-pod sandbox1 start0 start1");
    check(&two("Always"), "+ + a=run b=run", "kill-pod sandbox1 start0 start1");
    check(&two("Never"), "- a=exit0 b=exit0", "kill-pod");
    check(&two("OnFailure"), "- a=exit0 b=exit1", "kill-pod sandbox1 start1");
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = with_init("Always", json!([{"name": "i"}, {"name": "j"}]));
    check(&pod, "", "sandbox0 init0");
    check(&pod, "+", "init0");
    check(&pod, "+ i=run", "");
    check(&pod, "+ i=exit0", "init1");
    check(&pod, "+ i=exit1", "init0");
    check(&pod, "+ i=exit0 j=run", "");
    check(&pod, "+ i=exit0 j=exit0", "start0");
    check(&pod, "+ i=exit0 j=exit0 a=run", "");
    check(&pod, "+ i=exit0 j=exit0 a=exit1", "start0");
    check(&pod, "+ j=exit0", "start0");
    check(&with_init("Never", json!([{"name": "i"}])), "+ i=exit1", "kill-pod");
}

#[test]
fn a_sidecar_keeps_running_and_goes_with_the_pod() {
    let pod = with_init("Always", json!([{"name": "s", "restartPolicy": "Always"}, {"name": "j"}]));
    check(&pod, "+", "init0");
    check(&pod, "+ s=run", "init1");
    check(&pod, "+ s=run j=run", "");
    check(&pod, "+ s=run j=exit0", "start0");
    check(&pod, "+ s=exit1 j=exit0 a=run", "init0");
    let job = with_init("Never", json!([{"name": "s", "restartPolicy": "Always"}]));
    check(&job, "+ s=run a=exit0", "kill-pod");
    check(&job, "+ s=exit0 a=exit0", "kill-pod");
}

#[test]
fn a_sidecar_with_a_startup_probe_is_waited_for() {
    let pod = with_init(
        "Always",
        json!([{"name": "s", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}}]),
    );
    check(&pod, "+ s=run", "");
    let mut verdicts = Verdicts::default();
    verdicts.set("s0", ProbeKind::Startup, true);
    check_with(&pod, "+ s=run", &verdicts, "start0");
    verdicts.set("s0", ProbeKind::Startup, false);
    check_with(&pod, "+ s=run", &verdicts, "kill:s0 init0");
}

#[test]
fn probes_that_fail_restart_their_container() {
    for kind in [ProbeKind::Liveness, ProbeKind::Startup] {
        let mut verdicts = Verdicts::default();
        verdicts.set("a0", kind, false);
        check_with(&two("Always"), "+ a=run b=run", &verdicts, "kill:a0 start0");
        check_with(&two("Never"), "+ a=run b=run", &verdicts, "kill:a0");
    }
    let mut verdicts = Verdicts::default();
    verdicts.set("a0", ProbeKind::Readiness, false);
    check_with(&two("Always"), "+ a=run b=run", &verdicts, "");
}

#[test]
fn a_changed_image_restarts_its_container() {
    let old = pod(json!({"containers": [{"name": "a", "image": "x:1"}]}));
    let new = pod(json!({"containers": [{"name": "a", "image": "x:2"}]}));
    let got = plan(&new, &observed(&old, "+ a=run"), &Verdicts::default());
    assert_eq!(short(&got), "kill:a0 start0");
    let Action::Kill { message, .. } = &got[0] else { panic!("the first is the kill") };
    assert_eq!(message, "Container a definition changed, will be restarted");
}

#[test]
fn ephemeral_containers_start_once() {
    let pod = pod(json!({"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "d"}]}));
    check(&pod, "+ a=run", "debug0");
    check(&pod, "+ a=run d=run", "");
    check(&pod, "+ a=run d=exit1", "");
}

#[test]
fn the_host_network_needs_no_address() {
    let pod = pod(json!({"hostNetwork": true, "containers": [{"name": "a"}]}));
    let mut observed = observed(&pod, "+ a=run");
    observed.sandboxes[0].ips.clear();
    observed.sandboxes[0].namespaces.network = pintle_cri::NamespaceMode::Node;
    assert_eq!(short(&plan(&pod, &observed, &Verdicts::default())), "");
}
