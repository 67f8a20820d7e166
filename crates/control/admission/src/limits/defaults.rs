//! Default requests and limits of containers.

use pintle_kinds::tree::{child, entries, has, items_mut, list, text};
use serde_json::{Map, Value};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives each container what the range has for containers and the container lacks, and notes so in an annotation.
pub(super) fn apply(range: &Value, pod: &mut Value) {
    let (requests, limits) = container_defaults(range);
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (field, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in items_mut(&mut pod["spec"], field) {
            let name = text(container, "name").to_owned();
            let Some(resources) = child(container, "resources") else { continue };
            for (field, defaults, what) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let set = merge(resources, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if notes.is_empty() {
        return;
    }
    let note = format!("LimitRanger plugin set: {}", notes.join("; "));
    if let Some(annotations) = child(pod, "metadata").and_then(|metadata| child(metadata, "annotations")) {
        annotations[ANNOTATION] = note.into();
    }
}

/// Adds what is missing; answers the names, sorted.
fn merge(resources: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in defaults {
        if resources.get(field).is_some_and(|given| has(given, name)) {
            continue;
        }
        if let Some(given) = child(resources, field) {
            given[name.as_str()] = value.clone();
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

/// The default requests and limits of containers; of several limits in a range the last counts.
fn container_defaults(range: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for limit in list(&range["spec"], "limits").iter().filter(|limit| text(limit, "type") == "Container") {
        for (field, into) in [("defaultRequest", &mut requests), ("default", &mut limits)] {
            for (name, value) in entries(limit, field) {
                into.insert(name.clone(), value.clone());
            }
        }
    }
    (requests, limits)
}
