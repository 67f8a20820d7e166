//! The subresource `resize`: only amounts of processor and memory change, and none is taken away.

use super::qos;
use crate::{check::Errors, tree};
use pintle_types::field::Path;
use serde_json::{Map, Value};

const LISTS: [&str; 2] = ["containers", "initContainers"];
const SIDES: [&str; 2] = ["requests", "limits"];
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The new object of such an update: the old one with the new amounts. Containers that don't fit stay as they are given,
/// so that validation tells.
pub(super) fn prepare(new: &mut Value, old: &Value) {
    let fits = |list: &str| tree::list(&new["spec"], list).len() == tree::list(&old["spec"], list).len();
    if !LISTS.into_iter().all(fits) {
        return;
    }
    let mut kept = old.clone();
    tree::copy_metadata_bookkeeping(&mut kept, new);
    if let Some(spec) = tree::child(&mut kept, "spec") {
        for list in LISTS {
            let (given, before) = (tree::list(&new["spec"], list), tree::list(&old["spec"], list));
            if given.iter().zip(before).any(|(given, before)| given["name"] != before["name"]) {
                tree::set(spec, list, given.to_vec());
                continue;
            }
            for (container, given) in tree::items_mut(spec, list).zip(given) {
                tree::copy(container, given, "resources");
                tree::copy(container, given, "resizePolicy");
            }
        }
        tree::copy(spec, &new["spec"], "resources");
    }
    *new = kept;
}

/// Pods that cannot be resized at all; then nothing else is told.
pub(super) fn refused(old: &Value) -> Option<&'static str> {
    let mirrored = !old["metadata"]["annotations"][MIRROR].is_null();
    match mirrored {
        true => Some("static pods cannot be resized"),
        false if old["spec"]["os"]["name"] == "windows" => Some("windows pods cannot be resized"),
        false => None,
    }
}

/// What the change of the pod `old` into `new` may not do.
pub(super) fn validate(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::new("spec");
    let before = qos::class(&old["spec"]);
    if qos::class(&new["spec"]) != before {
        errors.invalid(&path, before, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_supported(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    let (new, old) = (&new["spec"], &old["spec"]);
    let found = errors.0.len();
    LISTS.into_iter().for_each(|list| same_containers(errors, &path.child(list), list, new, old));
    if errors.0.len() > found {
        return;
    }
    for list in LISTS {
        for (i, (new, old)) in tree::list(new, list).iter().zip(tree::list(old, list)).enumerate() {
            let at = path.child(list).index(i).child("resources");
            if list == "containers" || old["restartPolicy"] == "Always" {
                kept(errors, &at, &new["resources"], &old["resources"], "resource");
            } else if new.get("resources") != old.get("resources") {
                errors.forbidden(&at, "resources for non-sidecar init containers are immutable");
            }
        }
    }
    pod_level(errors, &path, new, old);
    if errors.0.len() == found && undone(new, old) != *old {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

/// A node that reports what running containers have can change it.
fn is_supported(pod: &Value) -> bool {
    let statuses = tree::list(&pod["status"], "containerStatuses");
    let running = statuses.iter().find(|status| !status["state"]["running"].is_null());
    running.is_none_or(|status| !status["resources"].is_null())
}

fn same_containers(errors: &mut Errors, at: &Path, list: &str, new: &Value, old: &Value) {
    let (new, old) = (tree::list(new, list), tree::list(old, list));
    if new.len() != old.len() {
        return errors.forbidden(at, &format!("{list} may not be added or removed on resize"));
    }
    for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new["name"] != old["name"]) {
        errors.forbidden(&at.index(i).child("name"), &format!("{list} may not be renamed or reordered on resize"));
    }
}

fn kept(errors: &mut Errors, at: &Path, new: &Value, old: &Value, what: &str) {
    for side in SIDES {
        if tree::entries(old, side).into_iter().any(|(name, _)| new[side].get(name).is_none()) {
            errors.forbidden(&at.child(side), &format!("{what} {side} cannot be removed"));
        }
    }
}

fn pod_level(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let (at, new, old) = (path.child("resources"), &new["resources"], &old["resources"]);
    if old.is_null() {
        return;
    }
    if new.is_null() {
        return errors.forbidden(&at, "pod-level resources cannot be removed");
    }
    kept(errors, &at, new, old, "pod-level resource");
    if undone_amounts(new, old) != *old {
        errors.forbidden(path, "only cpu and memory resources are mutable at pod-level");
    }
}

/// The new spec with the old amounts of what may change.
fn undone(new: &Value, old: &Value) -> Value {
    let mut spec = new.clone();
    for list in LISTS {
        for (container, before) in tree::items_mut(&mut spec, list).zip(tree::list(old, list)) {
            let amounts = undone_amounts(&container["resources"], &before["resources"]);
            if tree::is_empty(&amounts) && before.get("resources").is_none() {
                tree::remove(container, "resources");
            } else {
                tree::set(container, "resources", amounts);
            }
        }
    }
    if tree::has(old, "resources") {
        let amounts = undone_amounts(&spec["resources"], &old["resources"]);
        tree::set(&mut spec, "resources", amounts);
    }
    spec
}

fn undone_amounts(new: &Value, old: &Value) -> Value {
    let mut resources = if new.is_object() { new.clone() } else { Value::Object(Map::new()) };
    for side in SIDES {
        let mut amounts = resources[side].as_object().cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            match old[side].get(name) {
                Some(before) => drop(amounts.insert(name.into(), before.clone())),
                None => drop(amounts.remove(name)),
            }
        }
        if amounts.is_empty() && old.get(side).is_none() {
            tree::remove(&mut resources, side);
        } else {
            tree::set(&mut resources, side, amounts);
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i", "resources": resources}]}})
    }

    fn resized(new: Value, old: &Value) -> Vec<String> {
        let mut new = new;
        prepare(&mut new, old);
        Errors::of(|errors| validate(errors, &new, old)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn amounts_change_and_nothing_else() {
        let old = pod(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}));
        let with = |resources: Value| resized(pod(resources), &old);
        assert!(with(json!({"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": "3"}})).is_empty());
        assert!(
            with(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}}))
                .is_empty()
        );
        assert_eq!(
            with(json!({"requests": {"cpu": "1"}})),
            [
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
            ]
        );
        let more = json!({"requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1"}, "limits": {"cpu": "2"}});
        assert_eq!(with(more), ["spec: Forbidden: only cpu and memory resources are mutable"]);
        let mut renamed = old.clone();
        renamed["spec"]["containers"][0]["name"] = json!("b");
        assert_eq!(
            resized(renamed, &old),
            ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
        );
        let mut other = old.clone();
        other["spec"]["containers"][0]["image"] = json!("other");
        assert!(resized(other, &old).is_empty(), "what is no amount is left as it was");
    }

    #[test]
    fn the_class_stays() {
        let old = pod(json!({}));
        assert_eq!(
            resized(pod(json!({"requests": {"cpu": "1"}})), &old),
            ["spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing"]
        );
    }

    #[test]
    fn some_pods_cannot_be_resized() {
        let mut old = pod(json!({"requests": {"cpu": "1"}}));
        assert_eq!(refused(&old), None);
        old["status"]["containerStatuses"] = json!([{"state": {"running": {}}}]);
        assert_eq!(resized(old.clone(), &old), ["spec: Forbidden: Pod running on node without support for resize"]);
        old["metadata"]["annotations"] = json!({(MIRROR): "x"});
        assert_eq!(refused(&old), Some("static pods cannot be resized"));
    }
}
