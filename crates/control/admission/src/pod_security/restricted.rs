//! The restricted level: hardened pods.

use super::containers::{all, names, of, quoted, setters, unique};
use super::{Violation, violation};
use serde_json::Value;

/// The kinds of volumes that are no way to the node.
const VOLUMES: [&str; 9] = [
    "configMap",
    "downwardAPI",
    "emptyDir",
    "projected",
    "secret",
    "csi",
    "persistentVolumeClaim",
    "ephemeral",
    "image",
];

/// In upstream's order.
pub(super) fn violations(spec: &Value, minor: u32) -> Vec<Violation> {
    // From 1.25 on what is Linux' own is not asked of pods for Windows.
    let windows = minor >= 25 && spec["os"]["name"] == "windows";
    let mut found = Vec::new();
    if minor >= 8 && !windows {
        found.extend(escalation(spec));
    }
    if minor >= 22 && !windows {
        found.extend(capabilities(spec));
    }
    found.extend(volumes(spec));
    let user_namespace = minor >= 35 && spec["hostUsers"] == false;
    if !user_namespace {
        found.extend(non_root(spec));
        if minor >= 23 {
            found.extend(root_user(spec));
        }
    }
    if minor >= 19 && !windows {
        found.extend(seccomp(spec));
    }
    found
}

fn escalation(spec: &Value) -> Option<Violation> {
    let bad = names(spec, |container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", of(&bad));
    (!bad.is_empty()).then(|| violation("allowPrivilegeEscalation != false", detail()))
}

fn capabilities(spec: &Value) -> Option<Violation> {
    let list = |container: &Value, field: &str| -> Vec<String> {
        let items = container["securityContext"]["capabilities"][field].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let forbidden = |container: &Value| -> Vec<String> {
        list(container, "add").into_iter().filter(|capability| capability != "NET_BIND_SERVICE").collect()
    };
    let keeps = names(spec, |container| !list(container, "drop").iter().any(|capability| capability == "ALL"));
    let adds = names(spec, |container| !forbidden(container).is_empty());
    let which = unique(all(spec).flat_map(forbidden).collect());
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", of(&keeps)));
    }
    if !adds.is_empty() {
        details.push(format!("{} must not include {} in securityContext.capabilities.add", of(&adds), quoted(&which)));
    }
    (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; ")))
}

fn volumes(spec: &Value) -> Option<Violation> {
    let (mut bad, mut kinds) = (Vec::new(), Vec::new());
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let kind = volume.as_object().into_iter().flatten().find(|(key, value)| *key != "name" && !value.is_null());
        let Some((kind, _)) = kind.filter(|(kind, _)| !VOLUMES.contains(&kind.as_str())) else { continue };
        bad.push(volume["name"].as_str().unwrap_or_default());
        kinds.push(kind.clone());
    }
    let kinds = unique(kinds);
    let (word, uses) = if bad.len() == 1 { ("volume", "uses") } else { ("volumes", "use") };
    let types = if kinds.len() == 1 { "type" } else { "types" };
    let detail = || format!("{word} {} {uses} restricted volume {types} {}", quoted(&bad), quoted(&kinds));
    (!bad.is_empty()).then(|| violation("restricted volume types", detail()))
}

fn non_root(spec: &Value) -> Option<Violation> {
    let said = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    let says_no = names(spec, |container| said(container) == Some(false));
    let silent = names(spec, |container| said(container).is_none());
    let pod = said(spec);
    if pod == Some(false) || !says_no.is_empty() {
        let who = setters(pod == Some(false), &says_no);
        return Some(violation(
            "runAsNonRoot != true",
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        ));
    }
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", of(&silent));
    (pod.is_none() && !silent.is_empty()).then(|| violation("runAsNonRoot != true", detail()))
}

fn root_user(spec: &Value) -> Option<Violation> {
    let is_root = |holder: &Value| holder["securityContext"]["runAsUser"] == 0;
    let bad = names(spec, is_root);
    let who = setters(is_root(spec), &bad);
    (!who.is_empty()).then(|| violation("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp(spec: &Value) -> Option<Violation> {
    let profile = |holder: &Value| holder["securityContext"]["seccompProfile"]["type"].as_str().map(str::to_owned);
    let fine = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let is_bad = |holder: &Value| profile(holder).is_some_and(|kind| !fine(&kind));
    let bad = names(spec, is_bad);
    if is_bad(spec) || !bad.is_empty() {
        let holders = all(spec).chain(Some(spec));
        let kinds = unique(holders.filter_map(profile).filter(|kind| !fine(kind)).collect());
        let who = setters(is_bad(spec), &bad);
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds));
        return Some(violation("seccompProfile", detail));
    }
    let silent = names(spec, |container| profile(container).is_none());
    let wanted = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    (profile(spec).is_none() && !silent.is_empty())
        .then(|| violation("seccompProfile", format!("pod or {} {wanted}", of(&silent))))
}
