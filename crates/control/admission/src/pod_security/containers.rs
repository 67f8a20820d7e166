//! All containers of a pod, and words for several of them.

use serde_json::Value;

/// Init, usual and ephemeral containers, in upstream's order.
pub(super) fn all(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten())
}

/// The names of the containers for which something holds.
pub(super) fn names(spec: &Value, holds: impl Fn(&Value) -> bool) -> Vec<&str> {
    all(spec).filter(|container| holds(container)).map(|c| c["name"].as_str().unwrap_or_default()).collect()
}

/// `"a", "b"`.
pub(super) fn quoted<S: AsRef<str>>(texts: &[S]) -> String {
    texts.iter().map(|text| format!("{:?}", text.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn of(names: &[&str]) -> String {
    format!("{} {}", if names.len() == 1 { "container" } else { "containers" }, quoted(names))
}

/// `pod`, `container "a"`, or both.
pub(super) fn setters(pod: bool, names: &[&str]) -> String {
    let mut setters: Vec<String> = Vec::new();
    setters.extend(pod.then(|| "pod".to_owned()));
    setters.extend((!names.is_empty()).then(|| of(names)));
    setters.join(" and ")
}

/// Each once, sorted.
pub(super) fn unique(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts.dedup();
    texts
}
