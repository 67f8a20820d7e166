//! Events, which two groups serve in forms of their own.

use crate::{
    check::{Errors, name},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names::dns1123_subdomain_errors,
};
use serde_json::Value;

pub struct Event;

static COLUMNS: &[Column] = &[
    Column::new(
        "Last Seen",
        "string",
        "",
        0,
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    Column::new(
        "Type",
        "string",
        "",
        0,
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    Column::new(
        "Reason",
        "string",
        "",
        0,
        "This should be a short, machine understandable string that gives the reason for the transition into the \
         object's current status.",
    ),
    Column::new("Object", "string", "", 0, "The object that this event is about."),
    Column::new(
        "Subobject",
        "string",
        "",
        1,
        "If referring to a piece of an object instead of an entire object, this string should contain a valid \
         JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object \
         reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" \
         (where \"name\" refers to the name of the container that triggered the event) or if no container name \
         is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to \
         have some well-defined way of referencing a part of an object.",
    ),
    Column::new(
        "Source",
        "string",
        "",
        1,
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    Column::new("Message", "string", "", 0, "A human-readable description of the status of this operation."),
    Column::new(
        "First Seen",
        "string",
        "",
        1,
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    Column::new("Count", "string", "", 1, "The number of times this event has occurred."),
    Column::new(
        "Name",
        "string",
        "name",
        1,
        "Name must be unique within a namespace. Is required when creating resources, although some resources \
         may allow a client to request the generation of an appropriate name automatically. Name is primarily \
         intended for creation idempotence and configuration definition. Cannot be updated. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    ),
];

/// Fields by their names in `events.k8s.io` and in the core group.
const RENAMED: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];
const NEW_GROUP: &str = "events.k8s.io/v1";

impl Strategy for Event {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn to_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == NEW_GROUP {
            RENAMED.iter().for_each(|(new, core)| rename(object, new, core));
        }
    }

    fn from_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == NEW_GROUP {
            RENAMED.iter().for_each(|(new, core)| rename(object, core, new));
        }
    }

    fn validate_request(&self, api_version: &str, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            validate_any(errors, api_version, object);
            if api_version == NEW_GROUP {
                validate_new(errors, object);
            }
        })
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Events of the new group only grow a series; the core group takes any change.
    fn validate_request_update(&self, api_version: &str, new: &Value, old: &Value) -> ErrorList {
        const STAY: [&str; 12] = [
            "involvedObject",
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "type",
            "eventTime",
            "action",
            "related",
            "reportingInstance",
        ];
        Errors::of(|errors| {
            validate_any(errors, api_version, new);
            if api_version != NEW_GROUP {
                return;
            }
            if new["series"] != old["series"] {
                series(errors, &new["series"]);
            }
            for field in STAY {
                errors.immutable(&Path::new(field), &new[field], &old[field]);
            }
            let reporter = "reportingComponent";
            errors.immutable(&Path::new("reportingController"), &new[reporter], &old[reporter]);
        })
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let text = |key: &str| tree::text(object, key);
        let about = &object["involvedObject"];
        let subject = format!("{}/{}", tree::text(about, "kind").to_lowercase(), tree::text(about, "name"));
        let first = first_of(&[&object["firstTimestamp"], &object["eventTime"]]);
        let series = &object["series"];
        let last = first_of(&[&series["lastObservedTime"], &object["lastTimestamp"], first]);
        let count = [tree::int(series, "count"), tree::int(object, "count"), 1].into_iter().find(|count| *count != 0);
        vec![
            column::since(last, now).into(),
            text("type").into(),
            text("reason").into(),
            subject.into(),
            tree::text(about, "fieldPath").into(),
            source_text(object).into(),
            text("message").trim().into(),
            column::since(first, now).into(),
            count.unwrap_or(1).into(),
            tree::text(&object["metadata"], "name").into(),
        ]
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(value) = tree::remove(object, from) {
        tree::set(object, to, value);
    }
}

fn first_of<'a>(times: &[&'a Value]) -> &'a Value {
    times.iter().find(|time| !time.is_null()).copied().unwrap_or(&Value::Null)
}

fn source_text(object: &Value) -> String {
    let (mut component, mut host) = (tree::text(&object["source"], "component"), tree::text(&object["source"], "host"));
    if component.is_empty() {
        component = tree::text(object, "reportingComponent");
    }
    if host.is_empty() {
        host = tree::text(object, "reportingInstance");
    }
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

/// What both groups ask for: less of events without a time, which are of the older sort.
fn validate_any(errors: &mut Errors, api_version: &str, object: &Value) {
    let timed = tree::has(object, "eventTime");
    namespace_matches(errors, object, timed);
    if timed {
        let field = if api_version == NEW_GROUP { "reportingController" } else { "reportingComponent" };
        reporter(errors, object, field);
    }
}

fn namespace_matches(errors: &mut Errors, object: &Value, timed: bool) {
    let own = tree::text(&object["metadata"], "namespace");
    let other = tree::text(&object["involvedObject"], "namespace");
    let fits = match (other.is_empty(), timed) {
        (true, false) => own == "default" || own.is_empty(),
        (true, true) => own == "default" || own == "kube-system",
        (false, true) => true,
        (false, false) => own == other,
    };
    if !fits {
        errors.invalid(&Path::new("involvedObject.namespace"), other, "does not match event.namespace");
    }
}

/// What the new group asks for of new events.
fn validate_new(errors: &mut Errors, object: &Value) {
    // The core group takes any name.
    let name = tree::text(&object["metadata"], "name");
    let wrong = if name.is_empty() { Vec::new() } else { dns1123_subdomain_errors(name) };
    errors.invalid_for(&Path::new("metadata.name"), name, wrong);
    series(errors, &object["series"]);
    if !tree::has(object, "eventTime") {
        errors.required(&Path::new("eventTime"), "");
    }
    let kind = tree::text(object, "type");
    if kind != "Normal" && kind != "Warning" {
        errors.invalid(&Path::new("type"), "", &format!("has invalid value: {kind}"));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        if !tree::is_empty(&object[field]) {
            errors.invalid(&Path::new(field), "", "needs to be unset");
        }
    }
}

fn series(errors: &mut Errors, series: &Value) {
    if series.is_null() {
        return;
    }
    if tree::int(series, "count") < 2 {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    errors.needs(&Path::new("series.lastObservedTime"), tree::text(series, "lastObservedTime"), "");
}

/// Who reports what: the fields that events with a time must have.
fn reporter(errors: &mut Errors, object: &Value, field: &str) {
    let text = |key: &str| tree::text(object, key);
    let (controller, path) = (text("reportingComponent"), Path::new(field));
    errors.needs(&path, controller, "");
    errors.invalid_for(&path, controller, name::qualified(controller));
    for (field, limit) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let path = Path::new(field);
        errors.needs(&path, text(field), "");
        if text(field).len() > limit {
            errors.invalid(&path, "", &format!("can have at most {limit} characters"));
        }
    }
    if text("message").len() > 1024 {
        errors.invalid(&Path::new("message"), "", "can have at most 1024 characters");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_groups_convert() {
        let new = json!({"note": "n", "regarding": {"kind": "Pod"}, "reportingController": "c", "type": "Normal"});
        let mut object = new.clone();
        Event.to_storage(NEW_GROUP, &mut object);
        assert_eq!(object["message"], "n");
        assert_eq!(object["involvedObject"], json!({"kind": "Pod"}));
        Event.from_storage(NEW_GROUP, &mut object);
        assert_eq!(object, new);
    }

    #[test]
    fn the_new_group_asks_for_more() {
        let object = json!({"metadata": {"name": "e", "namespace": "default"}, "type": "Normal"});
        assert!(Event.validate_request("v1", &object).is_empty());
        let fields = |object: &Value| -> Vec<String> {
            Event.validate_request(NEW_GROUP, object).into_iter().map(|error| error.field).collect()
        };
        assert_eq!(fields(&object), ["eventTime"]);
        let mut timed = object.clone();
        timed["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
        timed["series"] = json!({"count": 1});
        let reporter = "reportingController";
        assert_eq!(
            fields(&timed),
            [
                reporter,
                reporter,
                reporter,
                "reportingInstance",
                "action",
                "reason",
                "series.count",
                "series.lastObservedTime"
            ]
        );
    }
}
