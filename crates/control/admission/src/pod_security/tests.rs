//! What the levels say of pods, in upstream's words.

use super::Configuration;
use super::policy::{Level, Policies, Policy};
use serde_json::{Value, json};

fn judge(level: Level, spec: Value) -> Option<String> {
    Policy { level, version: None }.told(&json!({}), &spec)
}

#[test]
fn a_plain_pod_lacks_four_things_for_the_restricted_level() {
    let spec = json!({"containers": [{"name": "a", "image": "x"}]});
    assert_eq!(judge(Level::Baseline, spec.clone()), None);
    let expected = "allowPrivilegeEscalation != false (container \"a\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    assert_eq!(judge(Level::Restricted, spec).as_deref(), Some(expected));
}

#[test]
fn a_hardened_pod_passes() {
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        }}],
    });
    assert_eq!(judge(Level::Restricted, spec), None);
}

#[test]
fn the_baseline_level_names_each_way_to_the_node() {
    let one = |extra: Value| {
        let mut spec = json!({"containers": [{"name": "a"}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    let context = |context: Value| json!({"containers": [{"name": "a", "securityContext": context}]});
    let cases = [
        (one(json!({"hostNetwork": true, "hostPID": true})), "host namespaces (hostNetwork=true, hostPID=true)"),
        (one(json!({"volumes": [{"name": "v", "hostPath": {}}]})), "hostPath volumes (volume \"v\")"),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 81}]}]}),
            "hostPort (container \"a\" uses hostPorts 80, 81)",
        ),
        (
            context(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            context(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            one(json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}})),
            "forbidden sysctls (kernel.msgmax)",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(judge(Level::Baseline, spec).as_deref(), Some(expected));
    }
}

#[test]
fn labels_say_level_and_version() {
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.24",
        "pod-security.kubernetes.io/warn": "what", "pod-security.kubernetes.io/audit-version": "1.24",
    });
    let (policies, errors) = Policies::of(&labels, &Policies::default());
    assert_eq!(policies.enforce.to_string(), "baseline:v1.24");
    assert_eq!(policies.warn.to_string(), "privileged:latest", "wrong levels count only where they are enforced");
    assert_eq!(policies.audit.to_string(), "privileged:latest");
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.24\": must be \"latest\" or \
             \"v1.x\"",
            "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"what\": must be one of privileged, \
             baseline, restricted",
        ]
    );
    let (wrong, _) = Policies::of(&json!({"pod-security.kubernetes.io/enforce": "x"}), &Policies::default());
    assert_eq!(wrong.enforce.to_string(), "restricted:latest");
}

#[test]
fn a_configuration_gives_defaults_and_lets_off() {
    let configuration = Configuration::parse(&json!({
        "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"},
        "exemptions": {"usernames": ["ann"], "namespaces": ["kube-system"], "runtimeClasses": ["kata"]},
    }))
    .unwrap();
    let (policies, _) = Policies::of(&serde_json::Value::Null, &configuration.defaults);
    assert_eq!(
        (policies.enforce.to_string(), policies.warn.to_string()),
        ("baseline:v1.30".into(), "restricted:latest".into())
    );
    assert!(configuration.lets_off("default", "ann") && configuration.lets_off("kube-system", "bob"));
    assert!(
        !configuration.lets_off("default", "bob") && configuration.lets_off_class(&json!({"runtimeClassName": "kata"}))
    );
    let wrong = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
                       "defaults": {"audit": "most"}});
    let why = Configuration::parse(&wrong).unwrap_err();
    assert_eq!(why, "defaults.audit: Invalid value: \"most\": must be one of privileged, baseline, restricted");
}
