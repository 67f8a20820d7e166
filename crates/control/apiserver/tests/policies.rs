//! Admission policies, asked through a whole server: what they refuse, warn of, change, and tell of themselves.

mod support;

use http::{Method, StatusCode};
use pintle_apiserver::{AuditConfig, AuditLogOptions};
use serde_json::{Value, json};
use support::{Cluster, Reply};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

fn rules(resource: &str) -> Value {
    json!({"resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]},
    ]})
}

/// Makes a policy and its binding, and waits until it is in force: a write that it concerns then gets another answer.
async fn bind(cluster: &Cluster, flavor: &str, name: &str, spec: Value, binding: Value) {
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    cluster.create(&format!("{POLICIES}/{flavor}admissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": name}, "spec": binding});
    cluster.create(&format!("{POLICIES}/{flavor}admissionpolicybindings"), binding).await;
}

/// Writes until the answer is as wanted: policies take effect a moment after they are stored.
async fn until(cluster: &Cluster, object: Value, wanted: impl Fn(&Reply) -> bool) -> Reply {
    let path = format!("{CONFIGMAPS}?dryRun=All");
    for _ in 0..10_000 {
        let reply = cluster.admin(Method::POST, &path, object.clone()).await;
        if wanted(&reply) {
            return reply;
        }
        tokio::task::yield_now().await;
    }
    panic!("the policy never took effect");
}

#[tokio::test]
async fn writes_that_break_a_policy_are_refused_with_its_message() {
    let cluster = Cluster::new().await;
    cluster.create(CONFIGMAPS, json!({"metadata": {"name": "limit"}, "data": {"most": "2"}})).await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": rules("configmaps"),
        "matchConditions": [{"name": "named", "expression": "object.metadata.name.startsWith('checked')"}],
        "variables": [{"name": "most", "expression": "int(params.data.most)"}],
        "validations": [{
            "expression": "size(object.data) <= variables.least",
            "messageExpression": "'at most %d keys'.format([variables.most])",
            "reason": "Forbidden",
        }],
    });
    let reference = json!({"name": "limit", "namespace": "default", "parameterNotFoundAction": "Deny"});
    let refused = json!({"metadata": {"name": "p"}, "spec": spec});
    let reply = cluster.admin(Method::POST, &format!("{POLICIES}/validatingadmissionpolicies"), refused).await;
    assert_eq!(reply.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(reply.message().contains("undefined field 'least'"), "{reply:?}");
    let mut spec = spec;
    spec["validations"][0]["expression"] =
        json!("size(object.data) <= variables.most || !authorizer.path('/x').check('get').allowed()");
    let binding = json!({"policyName": "p", "paramRef": reference, "validationActions": ["Deny"]});
    bind(&cluster, "validating", "p", spec, binding).await;
    let many = json!({"metadata": {"name": "checked"}, "data": {"a": "1", "b": "2", "c": "3"}});
    let reply = until(&cluster, many, |reply| reply.code == StatusCode::FORBIDDEN).await;
    let words = "configmaps \"checked\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: at \
                 most 2 keys";
    assert_eq!(reply.message(), words);
    assert_eq!(reply.json()["details"]["causes"][0]["message"], words.split_once(": ").unwrap().1);
    let few = json!({"metadata": {"name": "checked"}, "data": {"a": "1"}});
    cluster.create(CONFIGMAPS, few).await;
    let other = json!({"metadata": {"name": "other"}, "data": {"a": "1", "b": "2", "c": "3"}});
    cluster.create(CONFIGMAPS, other).await;
}

#[tokio::test]
async fn policies_can_only_warn_and_say_in_their_status_what_is_wrong_with_them() {
    let cluster = Cluster::new().await;
    let spec = json!({"matchConstraints": rules("configmaps"), "validations": [
        {"expression": "has(object.data)", "message": "no data"}, {"expression": "!has(object.nothing)"},
    ]});
    bind(&cluster, "validating", "p", spec, json!({"policyName": "p", "validationActions": ["Warn"]})).await;
    let empty = json!({"metadata": {"name": "a"}});
    let reply = until(&cluster, empty, |reply| reply.headers.contains_key("warning")).await;
    assert_eq!(reply.code, StatusCode::CREATED);
    let warning = reply.headers["warning"].to_str().unwrap();
    assert!(
        warning.contains("Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': no data"),
        "{warning}"
    );
    let path = format!("{POLICIES}/validatingadmissionpolicies/p");
    let mut status = Value::Null;
    for _ in 0..10_000 {
        status = cluster.get(&path).await.json()["status"].take();
        if status["observedGeneration"] == 1 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let warning = &status["typeChecking"]["expressionWarnings"][0];
    assert_eq!(warning["fieldRef"], "spec.validations[1].expression");
    assert!(warning["warning"].as_str().unwrap().starts_with("/v1, Kind=ConfigMap: ERROR: <input>:1:5"), "{warning}");
}

#[tokio::test]
async fn policies_change_what_is_written() {
    let cluster = Cluster::new().await;
    let spec = json!({
        "matchConstraints": rules("configmaps"),
        "reinvocationPolicy": "IfNeeded",
        "failurePolicy": "Fail",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: Object.metadata.labels{by: request.userInfo.username}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/n'), value: string(size(object.metadata.labels))}]"}},
        ],
    });
    bind(&cluster, "mutating", "p", spec, json!({"policyName": "p"})).await;
    let object = json!({"metadata": {"name": "a", "labels": {"own": "1"}}});
    let reply = until(&cluster, object, |reply| reply.json()["metadata"]["labels"]["by"].is_string()).await;
    assert_eq!(reply.json()["metadata"]["labels"], json!({"own": "1", "by": "admin", "x/n": "2"}));
}

#[tokio::test]
async fn policies_tell_the_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let (rules_of_log, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
                rules: [{level: Metadata, verbs: [create], resources: [{group: '', resources: [configmaps]}]}]\n";
    std::fs::write(&rules_of_log, text).unwrap();
    let options = AuditLogOptions { path: log.clone(), blocking: true, ..AuditLogOptions::default() };
    let audit = AuditConfig { policy_file: rules_of_log, log: Some(options), webhook: None };
    let cluster = Cluster::with(|config, _| config.audit = Some(audit)).await;
    let spec = json!({
        "matchConstraints": rules("configmaps"),
        "variables": [{"name": "keys", "expression": "has(object.data) ? size(object.data) : 0"}],
        "validations": [{"expression": "variables.keys < 2", "message": "many keys"}],
        "auditAnnotations": [
            {"key": "keys", "valueExpression": "'there are %d'.format([variables.keys])"},
            {"key": "never", "valueExpression": "null"},
        ],
    });
    bind(&cluster, "validating", "p.io", spec, json!({"policyName": "p.io", "validationActions": ["Audit", "Warn"]}))
        .await;
    let many = json!({"metadata": {"name": "a"}, "data": {"a": "1", "b": "2"}});
    until(&cluster, many.clone(), |reply| reply.headers.contains_key("warning")).await;
    cluster.create(CONFIGMAPS, many).await;
    let text = std::fs::read_to_string(&log).unwrap();
    let event: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let notes = &event["annotations"];
    assert_eq!(notes["p.io/keys"], "there are 2", "{event}");
    assert!(notes["p.io/never"].is_null(), "{event}");
    let failures: Value =
        serde_json::from_str(notes["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap()).unwrap();
    let failure = json!([{"message": "many keys", "policy": "p.io", "binding": "p.io", "expressionIndex": 0, "validationActions": ["Audit", "Warn"]}]);
    assert_eq!(failures, failure);
}

#[tokio::test]
async fn what_policies_change_follows_their_parameters() {
    let cluster = Cluster::new().await;
    for (name, team) in [("first", "red"), ("second", "blue")] {
        let object = json!({"metadata": {"name": name, "labels": {"for": "policy"}}, "data": {"team": team}});
        cluster.create(CONFIGMAPS, object).await;
    }
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": rules("configmaps"),
        "matchConditions": [{"name": "marked", "expression": "object.metadata.name.startsWith('marked')"}],
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'team-' + params.metadata.name: params.data.team}}}"}}],
    });
    let reference = json!({"selector": {"matchLabels": {"for": "policy"}}, "parameterNotFoundAction": "Deny"});
    bind(&cluster, "mutating", "p", spec, json!({"policyName": "p", "paramRef": reference})).await;
    let object = json!({"metadata": {"name": "marked"}});
    let both = json!({"team-first": "red", "team-second": "blue"});
    until(&cluster, object.clone(), |reply| reply.json()["metadata"]["labels"] == both).await;
    let green = json!({"data": {"team": "green"}});
    cluster.admin(Method::PATCH, &format!("{CONFIGMAPS}/second"), green).await;
    until(&cluster, object.clone(), |reply| reply.json()["metadata"]["labels"]["team-second"] == "green").await;
    let unlabelled = json!({"metadata": {"labels": null}});
    for name in ["first", "second"] {
        cluster.admin(Method::PATCH, &format!("{CONFIGMAPS}/{name}"), unlabelled.clone()).await;
    }
    let refused = until(&cluster, object, |reply| !reply.code.is_success()).await;
    assert!(refused.message().contains("no params found"), "{refused:?}");
}
