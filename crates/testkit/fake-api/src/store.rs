//! The fake's objects, and what each verb does to them.

use crate::Asked;
use crate::watch::{Happened, Watcher, channel, labels};
use pintle_client::Body;
use pintle_types::Status;
use pintle_types::selector::LabelSelector;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Place = (String, String, String);

/// All objects, their history and who watches.
#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Place, Value>,
    version: u64,
    compacted: u64,
    history: Vec<Happened>,
    watchers: Vec<Watcher>,
    seconds: u64,
}

fn place(asked: &Asked) -> Place {
    (asked.resource.clone(), asked.namespace.clone(), asked.name.clone())
}

fn not_found(asked: &Asked) -> Status {
    Status::not_found("", asked.resource.rsplit('/').next().unwrap_or_default(), &asked.name)
}

fn meta(object: &mut Value) -> &mut Map<String, Value> {
    let object = object.as_object_mut().expect("an object is a JSON object");
    object.entry("metadata").or_insert_with(|| json!({})).as_object_mut().expect("metadata is a JSON object")
}

fn meta_text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

impl Store {
    pub(crate) fn set_time(&mut self, seconds: u64) {
        self.seconds = seconds;
    }

    pub(crate) fn break_watches(&mut self) {
        self.watchers.clear();
    }

    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.version;
        self.watchers.clear();
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(resource.into(), namespace.into(), name.into()))
    }

    pub(crate) fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
        selector: &'a LabelSelector,
    ) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(move |((r, ns, _), _)| r == resource && (namespace.is_empty() || ns == namespace))
            .map(|(_, object)| object)
            .filter(|object| selector.matches(&labels(object)))
    }

    pub(crate) fn list_body(&self, resource: &str, namespace: &str, selector: &LabelSelector) -> Value {
        let items: Vec<&Value> = self.list(resource, namespace, selector).collect();
        json!({
            "kind": "List",
            "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string() },
            "items": items,
        })
    }

    pub(crate) fn watch(
        &mut self,
        resource: &str,
        namespace: &str,
        selector: LabelSelector,
        from: Option<u64>,
    ) -> Result<Body, Status> {
        let from = from.unwrap_or(self.version);
        if from < self.compacted {
            return Err(Status::expired("too old resource version"));
        }
        let (sender, body) = channel();
        let watcher = Watcher { resource: resource.into(), namespace: namespace.into(), selector, sender };
        for happened in self.history.iter().filter(|h| h.version > from) {
            watcher.tell(happened);
        }
        self.watchers.push(watcher);
        Ok(body)
    }

    /// Stores an object (nothing removes it) and tells the watchers. Returns the object as it is now, or was.
    fn commit(&mut self, place: Place, object: Option<Value>) -> Value {
        self.version += 1;
        let old = self.objects.get(&place).cloned();
        let event_type = match (&old, &object) {
            (None, _) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (Some(_), None) => "DELETED",
        };
        let mut told = object.clone().or_else(|| old.clone()).unwrap_or_default();
        meta(&mut told).insert("resourceVersion".into(), self.version.to_string().into());
        match object {
            Some(_) => self.objects.insert(place.clone(), told.clone()),
            None => self.objects.remove(&place),
        };
        let happened = Happened {
            version: self.version,
            event_type,
            resource: place.0,
            namespace: place.1,
            old_labels: old.as_ref().map(labels),
            object: told.clone(),
        };
        self.watchers.retain(|watcher| watcher.tell(&happened));
        self.history.push(happened);
        told
    }

    fn timestamp(&self) -> String {
        let seconds = i64::try_from(self.seconds).unwrap_or_default();
        pintle_types::k8s::jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
    }

    pub(crate) fn put(&mut self, resource: &str, namespace: &str, name: &str, mut object: Value) -> Value {
        let place = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let known = self.objects.get(&place).map(|old| meta_text(old, "uid").to_owned());
        let uid = known.unwrap_or_else(|| format!("uid-{}", self.version + 1));
        let created = self.timestamp();
        let meta = meta(&mut object);
        meta.entry("uid").or_insert_with(|| uid.into());
        meta.entry("creationTimestamp").or_insert_with(|| created.into());
        self.commit(place, Some(object))
    }

    pub(crate) fn remove(&mut self, resource: &str, namespace: &str, name: &str) {
        let place = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        if self.objects.contains_key(&place) {
            self.commit(place, None);
        }
    }

    pub(crate) fn read(&self, asked: &Asked) -> Result<Value, Status> {
        self.objects.get(&place(asked)).cloned().ok_or_else(|| not_found(asked))
    }

    pub(crate) fn create(&mut self, asked: &Asked) -> Result<Value, Status> {
        let mut object = asked.body.clone();
        let mut name = meta_text(&object, "name").to_owned();
        if name.is_empty() {
            name = format!("{}{:05}", meta_text(&object, "generateName"), self.version);
        }
        let place = (asked.resource.clone(), asked.namespace.clone(), name.clone());
        if self.objects.contains_key(&place) {
            let resource = asked.resource.rsplit('/').next().unwrap_or_default();
            return Err(Status::already_exists("", resource, &name));
        }
        let (uid, created) = (format!("uid-{}", self.version + 1), self.timestamp());
        let meta = meta(&mut object);
        meta.insert("name".into(), name.into());
        if !asked.namespace.is_empty() {
            meta.insert("namespace".into(), asked.namespace.clone().into());
        }
        meta.insert("uid".into(), uid.into());
        meta.insert("creationTimestamp".into(), created.into());
        meta.insert("generation".into(), 1.into());
        Ok(self.commit(place, Some(object)))
    }

    pub(crate) fn update(&mut self, asked: &Asked) -> Result<Value, Status> {
        let old = self.read(asked)?;
        let version = meta_text(&asked.body, "resourceVersion");
        if !version.is_empty() && version != meta_text(&old, "resourceVersion") {
            let resource = asked.resource.rsplit('/').next().unwrap_or_default();
            return Err(Status::conflict("", resource, &asked.name, "the object has been modified"));
        }
        self.replace(asked, &old, asked.body.clone())
    }

    fn replace(&mut self, asked: &Asked, old: &Value, mut new: Value) -> Result<Value, Status> {
        match asked.subresource.as_str() {
            "status" => {
                let status = new["status"].take();
                new = old.clone();
                new["status"] = status;
            }
            _ => {
                if let Some(status) = old.get("status") {
                    new["status"] = status.clone();
                }
                let changed = new["spec"] != old["spec"];
                let generation = old["metadata"]["generation"].as_u64().unwrap_or(1) + u64::from(changed);
                meta(&mut new).insert("generation".into(), generation.into());
            }
        }
        if new == *old {
            return Ok(new);
        }
        let deleting = !meta_text(&new, "deletionTimestamp").is_empty();
        let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
        let free = empty(&new["metadata"]["finalizers"])
            && (asked.resource != "/api/v1/namespaces" || empty(&new["spec"]["finalizers"]));
        let remove = deleting && free && asked.resource != "/api/v1/pods";
        Ok(self.commit(place(asked), (!remove).then_some(new)))
    }

    pub(crate) fn patch(&mut self, asked: &Asked) -> Result<Value, Status> {
        let old = self.read(asked)?;
        let mut new = old.clone();
        match asked.body.as_array() {
            Some(operations) => {
                for operation in operations {
                    json_patch(&mut new, operation)?;
                }
            }
            None => merge(&mut new, &asked.body),
        }
        let uid = meta_text(&asked.body, "uid");
        if !uid.is_empty() && uid != meta_text(&old, "uid") {
            let resource = asked.resource.rsplit('/').next().unwrap_or_default();
            return Err(Status::conflict("", resource, &asked.name, "the uid differs"));
        }
        self.replace(asked, &old, new)
    }

    pub(crate) fn delete(&mut self, asked: &Asked) -> Result<Value, Status> {
        let mut object = self.read(asked)?;
        let wanted = asked.body.pointer("/preconditions/uid").and_then(Value::as_str);
        if wanted.is_some_and(|uid| uid != meta_text(&object, "uid")) {
            let resource = asked.resource.rsplit('/').next().unwrap_or_default();
            return Err(Status::conflict("", resource, &asked.name, "the uid differs"));
        }
        let finalizer = match asked.body["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        let now = self.timestamp();
        let meta = meta(&mut object);
        if let Some(finalizer) = finalizer {
            let list = meta.entry("finalizers").or_insert_with(|| json!([])).as_array_mut().expect("a list");
            if !list.contains(&finalizer.into()) {
                list.push(finalizer.into());
            }
        }
        let held = meta.get("finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        // A running pod waits for its kubelet, unless no grace is given.
        let graceful = asked.resource == "/api/v1/pods"
            && asked.body["gracePeriodSeconds"] != 0
            && object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
        if !held && !graceful {
            return Ok(self.commit(place(asked), None));
        }
        self::meta(&mut object).entry("deletionTimestamp").or_insert_with(|| now.into());
        Ok(self.commit(place(asked), Some(object)))
    }

    pub(crate) fn delete_all(&mut self, asked: &Asked, selector: &LabelSelector) -> Result<Value, Status> {
        let list = self.list(&asked.resource, &asked.namespace, selector);
        let names: Vec<(String, String)> =
            list.map(|o| (meta_text(o, "namespace").to_owned(), meta_text(o, "name").to_owned())).collect();
        for (namespace, name) in names {
            self.delete(&Asked { namespace, name, ..asked.clone() })?;
        }
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
    }
}

/// A merge patch (RFC 7386); of strategic patches only lists of finalizers and owners by `$patch`-free replacement.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (field, value) in fields {
        if value.is_null() {
            into.as_object_mut().expect("made above").remove(field);
        } else {
            merge(&mut into[field.as_str()], value);
        }
    }
}

fn json_patch(into: &mut Value, operation: &Value) -> Result<(), Status> {
    let path = operation["path"].as_str().unwrap_or_default();
    let (parent, field) = path.rsplit_once('/').unwrap_or_default();
    let field = field.replace("~1", "/").replace("~0", "~");
    let missing = || Status::failure(422, pintle_types::Reason::Invalid, format!("{path} does not exist"));
    let value = operation["value"].clone();
    if operation["op"] == "test" {
        let same = into.pointer(path) == Some(&value);
        return if same { Ok(()) } else { Err(missing()) };
    }
    match into.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(fields) => match operation["op"].as_str() {
            Some("remove") => fields.remove(&field).map(drop).ok_or_else(missing),
            _ => {
                fields.insert(field, value);
                Ok(())
            }
        },
        Value::Array(list) => {
            let index = if field == "-" { list.len() } else { field.parse().map_err(|_| missing())? };
            match operation["op"].as_str() {
                Some("remove") if index < list.len() => drop(list.remove(index)),
                Some("replace") if index < list.len() => list[index] = value,
                Some("add") if index <= list.len() => list.insert(index, value),
                _ => return Err(missing()),
            }
            Ok(())
        }
        _ => Err(missing()),
    }
}
