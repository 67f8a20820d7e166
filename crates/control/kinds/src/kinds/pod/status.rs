//! What a change of a pod's status may say.

use crate::{
    check::{Errors, name, net},
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// The status of `new` against that of `old`.
pub(super) fn validate(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::new("status");
    let (now, before) = (&new["status"], &old["status"]);
    conditions(errors, tree::list(now, "conditions"));
    let nominated = tree::text(now, "nominatedNodeName");
    if nominated != tree::text(before, "nominatedNodeName") && !nominated.is_empty() {
        let wrong = names::dns1123_subdomain_errors(nominated);
        errors.invalid_for(&path.child("nominatedNodeName"), nominated, wrong);
    }
    for field in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        ended_stay_ended(errors, &path.child(field), field, new, old);
    }
    claims(errors, &path.child("resourceClaimStatuses"), new);
    addresses(errors, &path.child("podIPs"), now, "podIPs");
    addresses(errors, &path.child("hostIPs"), now, "hostIPs");
}

/// Upstream looks for the names of conditions in the metadata, and clients see it.
fn conditions(errors: &mut Errors, conditions: &[Value]) {
    for (i, condition) in conditions.iter().enumerate() {
        let kind = tree::text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let at = Path::new("metadata.conditions").index(i).child("Type");
            errors.invalid_for(&at, kind, name::qualified(kind));
        }
    }
}

/// Containers that are not restarted don't leave their end.
fn ended_stay_ended(errors: &mut Errors, path: &Path, field: &str, new: &Value, old: &Value) {
    let spec = &old["spec"];
    let pod_policy = match field {
        "ephemeralContainerStatuses" => "Never",
        _ => tree::text(spec, "restartPolicy"),
    };
    for (i, before) in tree::list(&old["status"], field).iter().enumerate() {
        let (own, ended) = (tree::text(before, "name"), &before["state"]["terminated"]);
        if ended.is_null() || may_restart(spec, own, pod_policy, tree::int(ended, "exitCode")) {
            continue;
        }
        for now in tree::list(&new["status"], field).iter().filter(|now| tree::text(now, "name") == own) {
            if !tree::has(&now["state"], "terminated") {
                let words = "may not be transitioned to non-terminated state";
                errors.forbidden(&path.index(i).child("state"), words);
            }
        }
    }
}

fn may_restart(spec: &Value, container: &str, pod_policy: &str, exit_code: i64) -> bool {
    let of = |field: &str| tree::list(spec, field).iter().find(|one| tree::text(one, "name") == container);
    let own = of("initContainers").or_else(|| of("containers"));
    let has_rules = own.is_some_and(|own| !tree::list(own, "restartPolicyRules").is_empty());
    let all_restart = tree::list(spec, "containers").iter().chain(tree::list(spec, "initContainers")).any(|one| {
        tree::list(one, "restartPolicyRules").iter().any(|rule| tree::text(rule, "action") == "RestartAllContainers")
    });
    let policy = own.and_then(|own| own.get("restartPolicy").and_then(Value::as_str)).unwrap_or(pod_policy);
    has_rules || all_restart || policy == "Always" || (policy == "OnFailure" && exit_code != 0)
}

fn claims(errors: &mut Errors, path: &Path, pod: &Value) {
    let known = |name: &str| tree::list(&pod["spec"], "resourceClaims").iter().any(|it| tree::text(it, "name") == name);
    let mut seen = crate::check::Seen::default();
    for (i, status) in tree::list(&pod["status"], "resourceClaimStatuses").iter().enumerate() {
        let (at, own) = (path.index(i).child("name"), tree::text(status, "name"));
        if !known(own) {
            errors.invalid(&at, own, "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.first(own) {
            errors.duplicate(&at, own);
        }
        if let Some(claim) = status.get("resourceClaimName").and_then(Value::as_str) {
            errors.invalid_for(&at, claim, names::dns1123_subdomain_errors(claim));
        }
    }
}

/// At most one address of each family.
fn addresses(errors: &mut Errors, path: &Path, status: &Value, field: &str) {
    let all = tree::list(status, field);
    let texts: Vec<&str> = all.iter().map(|one| tree::text(one, "ip")).collect();
    texts.iter().enumerate().for_each(|(i, text)| net::ip(errors, &path.index(i), text));
    let six = texts.iter().filter(|text| text.contains(':')).count();
    if texts.len() > 2 || texts.len() == 2 && six != 1 {
        let shown: Vec<String> = texts.iter().map(|text| format!("{{\"IP\":{}}}", Value::from(*text))).collect();
        let words = "may specify no more than one IP for each IP family";
        errors.invalid_shown(path, &format!("[{}]", shown.join(",")), words);
    }
}
