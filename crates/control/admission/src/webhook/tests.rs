//! Hooks are asked as upstream asks them, and their answers mean what they mean there.

use super::config::{Flavor, ReviewVersion};
use super::review::{answer, refusal};
use super::{Index, config::Hook};
use crate::matching::Rule;
use pintle_types::Status;
use serde_json::{Value, json};

fn hooks(rules: Value) -> Vec<std::sync::Arc<Hook>> {
    let client = json!({"service": {"namespace": "ns", "name": "hook", "path": "check"}, "caBundle": ""});
    let hook = json!({"name": "a.example.com", "rules": rules, "clientConfig": client,
                      "admissionReviewVersions": ["v2", "v1"], "failurePolicy": "Ignore", "timeoutSeconds": 3});
    Hook::all_of(Flavor::Validating, &json!({"metadata": {"name": "c"}, "webhooks": [hook]}), &[])
}

#[test]
fn the_index_knows_whom_a_resource_may_concern() {
    let named =
        json!([{"resources": ["pods", "pods/status"], "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"]}]);
    let index = Index::new(&hooks(named));
    assert_eq!(index.hooks_of("pods").len(), 1);
    assert!(index.hooks_of("services").is_empty());
    let all = json!([{"resources": ["*"], "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"]}]);
    assert_eq!(Index::new(&hooks(all)).hooks_of("services").len(), 1);
}

#[test]
fn a_hook_is_what_its_configuration_says() {
    let hook = &hooks(json!([]))[0];
    assert_eq!(hook.review, Some(ReviewVersion::V1));
    assert!(!hook.fail && !hook.exact && !hook.reinvoke && hook.timeout.as_secs() == 3);
    assert!(hook.selectors.are_everything());
    let client = hook.client.as_ref().ok().unwrap();
    assert_eq!(client.url, "https://hook.ns.svc:443/check");
    let rule = Rule::new(&json!({"resources": ["pods/*"]}));
    assert_eq!(rule.resources, [("pods".to_owned(), "*".to_owned())]);
}

fn judge(flavor: Flavor, response: Value) -> Result<bool, String> {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    answer(ReviewVersion::V1, "u", flavor, review.to_string().as_bytes()).map(|verdict| verdict.allowed)
}

#[test]
fn answers_are_checked() {
    use Flavor::{Mutating, Validating};
    let cases = [
        (Validating, json!({"uid": "u", "allowed": true}), Ok(true)),
        (Validating, json!({"uid": "u", "allowed": false, "status": {"metadata": null}}), Ok(false)),
        (Validating, json!({"uid": "x"}), Err("expected response.uid=\"u\", got \"x\"")),
        (Validating, Value::Null, Err("webhook response was absent")),
        (Validating, json!({"uid": "u", "patch": "W10="}), Err("validating webhook may not return response.patch")),
        (
            Mutating,
            json!({"uid": "u", "patch": "W10="}),
            Err("webhook returned response.patch but not response.patchType"),
        ),
        (
            Mutating,
            json!({"uid": "u", "patchType": "JSONPatch"}),
            Err("webhook returned response.patchType but not response.patch"),
        ),
        (Mutating, json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}), Ok(true)),
    ];
    for (flavor, response, expected) in cases {
        assert_eq!(judge(flavor, response.clone()), expected.map_err(str::to_owned), "{response}");
    }
    let other = json!({"apiVersion": "v1", "kind": "Pod", "response": {"uid": "u"}}).to_string();
    let why = answer(ReviewVersion::V1, "u", Validating, other.as_bytes()).unwrap_err();
    assert_eq!(why, "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Pod");
}

#[test]
fn refusals_are_worded_as_upstream_words_them() {
    let given = |status: Value| -> Status { serde_json::from_value(status).unwrap() };
    let cases = [
        (None, "without explanation", 400),
        (Some(given(json!({"message": "no", "code": 403}))), ": no", 403),
        (Some(given(json!({"reason": "Forbidden", "code": 200}))), ": Forbidden", 400),
    ];
    for (status, tail, code) in cases {
        let status = refusal("w", status);
        assert!(status.message.starts_with("admission webhook \"w\" denied the request"), "{}", status.message);
        assert!(status.message.ends_with(tail), "{}", status.message);
        assert_eq!((status.code, &*status.status), (code, "Failure"));
    }
}
