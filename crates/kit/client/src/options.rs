//! The options of requests, and how they are written into queries and bodies.

use crate::path::Query;
use serde_json::{Map, Value};

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// In query form; empty for all.
    pub label_selector: String,
    /// In query form; empty for all.
    pub field_selector: String,
    /// Objects per page; zero for 500. `Client::list` reads all pages in any case.
    pub limit: u32,
    /// Empty for the newest; `"0"` for whatever the server has at hand.
    pub resource_version: String,
}

impl ListOptions {
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { label_selector: selector.into(), ..Self::default() }
    }

    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: selector.into(), ..Self::default() }
    }

    pub(crate) fn write(&self, query: &mut Query, token: &str) {
        query.add("labelSelector", &self.label_selector);
        query.add("fieldSelector", &self.field_selector);
        query.add("limit", &(if self.limit == 0 { 500 } else { self.limit }).to_string());
        if token.is_empty() {
            query.add("resourceVersion", &self.resource_version);
        }
        query.add("continue", token);
    }
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// Events after this version; empty for the present state as `Added` events first.
    pub resource_version: String,
    /// Ask for bookmarks, which tell a version to resume from.
    pub bookmarks: bool,
    /// When the server should end the watch; zero for its own choice.
    pub timeout_seconds: u32,
    /// The present state first, then a bookmark with the annotation `k8s.io/initial-events-end`.
    pub send_initial_events: bool,
}

impl WatchOptions {
    pub(crate) fn write(&self, query: &mut Query) {
        query.add("watch", "true");
        query.add("labelSelector", &self.label_selector);
        query.add("fieldSelector", &self.field_selector);
        query.add("resourceVersion", &self.resource_version);
        if self.bookmarks || self.send_initial_events {
            query.add("allowWatchBookmarks", "true");
        }
        if self.send_initial_events {
            query.add("sendInitialEvents", "true");
            query.add("resourceVersionMatch", "NotOlderThan");
        }
        if self.timeout_seconds > 0 {
            query.add("timeoutSeconds", &self.timeout_seconds.to_string());
        }
    }
}

/// A change to an object, in one of the four forms that the server takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// A list of operations (RFC 6902).
    Json(Value),
    /// A merge patch (RFC 7386).
    Merge(Value),
    /// A strategic merge patch, which knows the keys of lists.
    Strategic(Value),
    /// Server-side apply: the fields that the field manager wants to own.
    Apply(Value),
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            Self::Apply(_) => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn value(&self) -> &Value {
        match self {
            Self::Json(value) | Self::Merge(value) | Self::Strategic(value) | Self::Apply(value) => value,
        }
    }
}

/// How to patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchOptions {
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Who applies; needed for `Patch::Apply`.
    pub field_manager: String,
    /// Take over fields that others own (apply only).
    pub force: bool,
}

impl PatchOptions {
    /// A patch of the status.
    pub fn status() -> Self {
        Self { subresource: "status".into(), ..Self::default() }
    }
}

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner and stay.
    Orphan,
    /// The garbage collector deletes them afterwards.
    Background,
    /// They go first; the object stays until they are gone.
    Foreground,
}

impl Propagation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// What the object must still be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl Preconditions {
    pub fn uid(uid: impl Into<String>) -> Self {
        Self { uid: Some(uid.into()), resource_version: None }
    }
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds; zero is at once.
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<Propagation>,
    pub preconditions: Preconditions,
}

impl DeleteOptions {
    /// Only the object with this uid.
    pub fn of_uid(uid: impl Into<String>) -> Self {
        Self { preconditions: Preconditions::uid(uid), ..Self::default() }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = Map::new();
        body.insert("apiVersion".into(), "v1".into());
        body.insert("kind".into(), "DeleteOptions".into());
        if let Some(seconds) = self.grace_period_seconds {
            body.insert("gracePeriodSeconds".into(), seconds.into());
        }
        if let Some(policy) = self.propagation_policy {
            body.insert("propagationPolicy".into(), policy.as_str().into());
        }
        let mut preconditions = Map::new();
        if let Some(uid) = &self.preconditions.uid {
            preconditions.insert("uid".into(), uid.as_str().into());
        }
        if let Some(version) = &self.preconditions.resource_version {
            preconditions.insert("resourceVersion".into(), version.as_str().into());
        }
        if !preconditions.is_empty() {
            body.insert("preconditions".into(), preconditions.into());
        }
        Value::Object(body).to_string().into_bytes()
    }
}
