//! Policies decide as upstream's do, events have its form, and sinks keep what they are given.

use super::*;
use parking_lot::Mutex;
use pintle_metrics::Registry;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints]}]}
- {level: None, userGroups: ["system:authenticated"], nonResourceURLs: ["/api*", "/version"]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [c]}], namespaces: [kube-system]}
- {level: Metadata, resources: [{group: "", resources: [secrets, "pods/log", "*/scale"]}]}
- {level: RequestResponse, omitManagedFields: true, omitStages: [], resources: [{group: apps}]}
"#;

fn level(user: &str, verb: &str, path: &str, resource: Option<Resource<'_>>) -> &'static str {
    let groups = ["system:authenticated".to_owned()];
    let policy = Policy::parse(POLICY).unwrap();
    policy.verdict(&Attributes { user, groups: &groups, verb, path, resource }).level.as_str()
}

#[test]
fn the_first_rule_that_matches_decides() {
    let core = |resource, subresource, namespace, name| {
        Some(Resource { group: "", version: "v1", resource, subresource, namespace, name })
    };
    assert_eq!(level("system:kube-proxy", "watch", "", core("endpoints", "", "", "")), "None");
    assert_eq!(level("jane", "get", "/api/v1", None), "None");
    assert_eq!(level("jane", "get", "/metrics", None), "None");
    assert_eq!(level("jane", "get", "", core("configmaps", "", "kube-system", "c")), "Request");
    assert_eq!(level("jane", "get", "", core("configmaps", "", "kube-system", "d")), "None");
    assert_eq!(level("jane", "get", "", core("pods", "log", "a", "p")), "Metadata");
    assert_eq!(level("jane", "get", "", core("pods", "", "a", "p")), "None");
    assert_eq!(level("jane", "update", "", core("replicationcontrollers", "scale", "a", "p")), "Metadata");
    let apps = Resource { group: "apps", version: "v1", resource: "deployments", ..Resource::default() };
    assert_eq!(level("jane", "create", "", Some(apps)), "RequestResponse");
}

#[test]
fn wrong_policies_are_refused() {
    let refused = |text: &str| Policy::parse(text).unwrap_err().to_string();
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    assert!(refused("kind: Policy\napiVersion: audit.k8s.io/v1beta1\nrules: [{level: None}]").contains("v1beta1"));
    assert!(refused(head).contains("no rules"));
    assert!(refused(&format!("{head}rules: [{{level: Everything}}]")).contains("Everything"));
    assert!(refused(&format!("{head}rules: [{{level: None, verb: [x]}}]")).contains("verb"));
    let both = format!("{head}rules: [{{level: None, nonResourceURLs: [/a], namespaces: [b]}}]");
    assert!(refused(&both).contains("rules[0]"));
}

#[derive(Default)]
struct Kept(Mutex<Vec<Value>>);

impl Sink for Kept {
    fn write(&self, event: &Arc<Event>) {
        self.0.lock().push(serde_json::to_value(&**event).unwrap());
    }

    fn name(&self) -> &'static str {
        "kept"
    }
}

fn begin(auditor: &Arc<Auditor>) -> Record {
    let resource =
        Resource { group: "apps", version: "v1", resource: "deployments", namespace: "a", ..Resource::default() };
    let groups = ["g".to_owned()];
    let request = Attributes { user: "jane", groups: &groups, verb: "create", path: "/x", resource: Some(resource) };
    let fill = |event: &mut Event| {
        event.audit_id = "id".into();
        event.request_uri = "/x?y=z".into();
        event.user = User { username: "jane".into(), groups: groups.to_vec(), ..User::default() };
        event.source_ips = vec!["10.0.0.1".into()];
        event.user_agent = "kubectl".into();
    };
    auditor.begin(&request, fill).unwrap()
}

fn auditor(sink: Arc<dyn Sink>, registry: &Registry) -> Arc<Auditor> {
    Auditor::new(Policy::parse(POLICY).unwrap(), vec![sink], pintle_clock::system(), registry)
}

#[test]
fn events_have_upstreams_form() {
    let kept = Arc::new(Kept::default());
    let registry = Registry::default();
    let record = begin(&auditor(kept.clone(), &registry));
    record.request_object(&json!({"metadata": {"name": "n", "managedFields": []}, "spec": {}}));
    record.annotate("authorization.k8s.io/decision", "allow");
    record.annotate("authorization.k8s.io/decision", "forbid");
    record.complete(
        409,
        Some(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "m", "code": 409,
        })),
    );
    let mut events = kept.0.lock().clone();
    assert_eq!(events.len(), 1, "RequestReceived is omitted");
    let event = events.pop().unwrap();
    let time = event["stageTimestamp"].as_str().unwrap();
    assert_eq!(time.len(), "2006-01-02T15:04:05.000000Z".len());
    let names: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(!names.contains(&"impersonatedUser"));
    let mut rest = event.clone();
    for field in ["stageTimestamp", "requestReceivedTimestamp"] {
        rest.as_object_mut().unwrap().remove(field);
    }
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "id",
        "stage": "ResponseComplete", "requestURI": "/x?y=z", "verb": "create",
        "user": {"username": "jane", "groups": ["g"]}, "sourceIPs": ["10.0.0.1"], "userAgent": "kubectl",
        "objectRef": {"resource": "deployments", "namespace": "a", "name": "n", "apiGroup": "apps", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "status": "Failure", "message": "m", "code": 409},
        "requestObject": {"metadata": {"name": "n"}, "spec": {}},
        "responseObject": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "m",
                           "code": 409},
        "annotations": {"authorization.k8s.io/decision": "allow"},
    });
    assert_eq!(rest, expected);
    assert!(registry.render().contains("apiserver_audit_level_total{level=\"RequestResponse\"} 1\n"));
}

#[tokio::test]
async fn the_log_is_written_and_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/audit.log");
    let stop = CancellationToken::new();
    let registry = Registry::default();
    let options = LogOptions { path: path.clone(), max_size_mib: 1, max_backups: 1, ..LogOptions::default() };
    let (sink, task) = LogSink::open(options, pintle_clock::system(), &registry, stop.clone()).unwrap();
    let auditor = auditor(sink, &registry);
    let long = json!({"metadata": {}, "text": "x".repeat(700_000)});
    let record = begin(&auditor);
    record.request_object(&long);
    record.complete(200, None);
    record.complete(200, None);
    stop.cancel();
    task.await;
    let lines = std::fs::read_to_string(&path).unwrap();
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["auditID"] == "id"));
    let options =
        LogOptions { path: path.clone(), max_size_mib: 1, max_backups: 1, blocking: true, ..LogOptions::default() };
    let (sink, task) = LogSink::open(options, pintle_clock::system(), &registry, stop).unwrap();
    let record = begin(&self::auditor(sink, &registry));
    record.request_object(&long);
    record.complete(200, None);
    record.complete(200, None);
    task.await;
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 2, "the log and one rotated file");
    assert!(registry.render().contains("apiserver_audit_error_total{plugin=\"log\"} 0\n"));
}

struct Server {
    fail: Mutex<u32>,
    bodies: Mutex<Vec<Value>>,
}

#[async_trait::async_trait]
impl pintle_client::Transport for Server {
    async fn call(
        &self,
        request: http::Request<bytes::Bytes>,
    ) -> Result<http::Response<pintle_client::Body>, pintle_client::TransportError> {
        let mut fail = self.fail.lock();
        if *fail > 0 {
            *fail -= 1;
            return Err(pintle_client::TransportError::new("not yet"));
        }
        self.bodies.lock().push(serde_json::from_slice(request.body()).unwrap());
        Ok(http::Response::new(pintle_client::empty_body()))
    }
}

#[tokio::test(start_paused = true)]
async fn webhooks_get_batches_and_failures_are_tried_again() {
    let server = Arc::new(Server { fail: Mutex::new(2), bodies: Mutex::default() });
    let registry = Registry::default();
    let stop = CancellationToken::new();
    let (sink, task) = WebhookSink::new(WebhookOptions::default(), server.clone(), &registry, stop.clone());
    let auditor = auditor(sink, &registry);
    let task = tokio::spawn(task);
    for _ in 0..3 {
        begin(&auditor).complete(200, None);
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    stop.cancel();
    task.await.unwrap();
    let bodies = server.bodies.lock();
    assert_eq!(bodies.len(), 1);
    assert_eq!(bodies[0]["kind"], "EventList");
    assert_eq!(bodies[0]["items"].as_array().unwrap().len(), 3);
}
