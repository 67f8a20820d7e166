//! A request that is audited: what is known of it so far, and its events.

use crate::event::{Event, Level, ObjectRef, Stage, User, micro};
use crate::policy::{Attributes, Policy};
use parking_lot::Mutex;
use pintle_clock::Clock;
use pintle_metrics::{Counter, Family, Registry};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where events go. Must not wait longer than a write to a file takes.
pub trait Sink: Send + Sync {
    fn write(&self, event: &Arc<Event>);
    /// The name in `apiserver_audit_error_total`.
    fn name(&self) -> &'static str;
}

/// The policy with its sinks.
pub struct Auditor {
    policy: Policy,
    sinks: Vec<Arc<dyn Sink>>,
    clock: Arc<dyn Clock>,
    events: Arc<Counter>,
    levels: Arc<Family<Counter>>,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auditor").field("policy", &self.policy).field("sinks", &self.sinks.len()).finish()
    }
}

impl Auditor {
    pub fn new(policy: Policy, sinks: Vec<Arc<dyn Sink>>, clock: Arc<dyn Clock>, registry: &Registry) -> Arc<Self> {
        let events = registry.counter(
            "apiserver_audit_event_total",
            "[ALPHA] Counter of audit events generated and sent to the audit backend.",
        );
        let levels = registry.counters(
            "apiserver_audit_level_total",
            "[ALPHA] Counter of policy levels for audit events (1 per request).",
            &["level"],
        );
        Arc::new(Self { policy, sinks, clock, events, levels })
    }

    /// A record of the request if the policy wants one; its first stage is written.
    pub fn begin(self: &Arc<Self>, request: &Attributes<'_>, fill: impl FnOnce(&mut Event)) -> Option<Record> {
        let verdict = self.policy.verdict(request);
        self.levels.with(&[verdict.level.as_str()]).inc();
        if verdict.level == Level::None {
            return None;
        }
        let mut event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: verdict.level,
            audit_id: String::new(),
            stage: Stage::RequestReceived,
            request_uri: String::new(),
            verb: request.verb.to_owned(),
            user: User::default(),
            impersonated_user: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: request.resource.map(|r| ObjectRef {
                resource: r.resource.to_owned(),
                namespace: r.namespace.to_owned(),
                name: r.name.to_owned(),
                api_group: r.group.to_owned(),
                api_version: r.version.to_owned(),
                subresource: r.subresource.to_owned(),
                ..ObjectRef::default()
            }),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: micro(self.clock.now()),
            stage_timestamp: String::new(),
            annotations: BTreeMap::new(),
        };
        fill(&mut event);
        let record = Record {
            auditor: self.clone(),
            omit: verdict.omit_stages,
            without_managed_fields: verdict.omit_managed_fields,
            level: verdict.level,
            event: Mutex::new(event),
        };
        record.emit(Stage::RequestReceived);
        Some(record)
    }
}

/// A request that is audited.
pub struct Record {
    auditor: Arc<Auditor>,
    omit: Vec<Stage>,
    without_managed_fields: bool,
    level: Level,
    event: Mutex<Event>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Record {
    pub fn wants_request(&self) -> bool {
        self.level >= Level::Request
    }

    pub fn wants_response(&self) -> bool {
        self.level >= Level::RequestResponse
    }

    /// The object of the request's body. What the path does not tell of it is told by its metadata.
    pub fn request_object(&self, object: &Value) {
        let mut event = self.event.lock();
        if let Some(reference) = &mut event.object_ref {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let fill = |place: &mut String, field: &str| {
                if place.is_empty() {
                    *place = text(field);
                }
            };
            fill(&mut reference.name, "name");
            fill(&mut reference.namespace, "namespace");
            fill(&mut reference.uid, "uid");
            fill(&mut reference.resource_version, "resourceVersion");
        }
        if self.level >= Level::Request {
            event.request_object = Some(self.trimmed(object.clone()));
        }
    }

    /// On whose behalf the request goes on.
    pub fn impersonated(&self, user: User) {
        self.event.lock().impersonated_user = Some(user);
    }

    /// The first value of a key stays.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        self.event.lock().annotations.entry(key.to_owned()).or_insert_with(|| value.into());
    }

    /// The head of an answer that goes on for long.
    pub fn response_started(&self, code: u16) {
        self.event.lock().response_status = Some(json!({"metadata": {}, "code": code}));
        self.emit(Stage::ResponseStarted);
    }

    /// The end of the answer. `body` is its object, or the `Status` of a failure.
    pub fn complete(&self, code: u16, body: Option<Value>) {
        {
            let mut event = self.event.lock();
            let failure = body.as_ref().filter(|b| b["kind"] == "Status" && b["apiVersion"] == "v1");
            event.response_status = Some(match failure {
                Some(status) => short_status(status, code),
                None => json!({"metadata": {}, "code": code}),
            });
            if self.level >= Level::RequestResponse {
                event.response_object = body.map(|body| self.trimmed(body));
            }
        }
        self.emit(Stage::ResponseComplete);
    }

    /// The handler of the request panicked.
    pub fn panicked(&self, message: &str) {
        self.event.lock().response_status = Some(json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("APIServer panic'd: {message}"),
        }));
        self.emit(Stage::Panic);
    }

    fn emit(&self, stage: Stage) {
        if self.omit.contains(&stage) {
            return;
        }
        let mut event = self.event.lock().clone();
        event.stage = stage;
        event.stage_timestamp = match stage {
            Stage::RequestReceived => event.request_received_timestamp.clone(),
            _ => micro(self.auditor.clock.now()),
        };
        self.auditor.events.inc();
        let event = Arc::new(event);
        for sink in &self.auditor.sinks {
            sink.write(&event);
        }
    }

    fn trimmed(&self, mut object: Value) -> Value {
        if !self.without_managed_fields {
            return object;
        }
        strip(&mut object);
        for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            strip(item);
        }
        object
    }
}

fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// A `Status` as `responseStatus` has it: without its kind and version.
fn short_status(status: &Value, code: u16) -> Value {
    let mut short = status.clone();
    if let Some(fields) = short.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
        fields.insert("code".into(), code.into());
    }
    short
}
