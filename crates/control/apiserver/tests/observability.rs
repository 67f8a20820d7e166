//! What is told about requests: health, metrics, the audit log, and whose turn it is.

mod support;

use http::{Method, StatusCode};
use pintle_apiserver::{AuditConfig, AuditLogOptions, User};
use serde_json::{Value, json};
use support::{Cluster, admin, request};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, verbs: [create, delete, patch], resources: [{group: '', resources: [configmaps]}]}
- {level: Metadata, resources: [{group: '', resources: [configmaps, endpoints]}]}
";

async fn text(cluster: &Cluster, path: &str) -> (u16, String) {
    let reply = cluster.get(path).await;
    (reply.code.as_u16(), String::from_utf8(reply.body.to_vec()).unwrap())
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let cluster = Cluster::new().await;
    assert_eq!(text(&cluster, "/livez").await, (200, "ok".into()));
    assert_eq!(text(&cluster, "/readyz/poststarthook/rbac/bootstrap-roles").await, (200, "ok".into()));
    assert_eq!(text(&cluster, "/livez/shutdown").await.0, 404);
    let (_, verbose) = text(&cluster, "/readyz?verbose&exclude=etcd&exclude=nothing").await;
    assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n"), "{verbose}");
    let end = "[+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \"nothing\"\n\
               readyz check passed\n";
    assert!(verbose.ends_with(end), "{verbose}");
    cluster.stop.cancel();
    let (code, stopping) = text(&cluster, "/readyz").await;
    assert_eq!(code, 500);
    assert!(stopping.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{stopping}");
    assert_eq!(text(&cluster, "/livez").await.0, 200);
}

#[tokio::test]
async fn requests_are_counted_under_upstreams_names() {
    let cluster = Cluster::new().await;
    cluster.create("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "c"}})).await;
    cluster.get("/api/v1/namespaces/default/configmaps/c").await;
    cluster.get("/apis/made.up/v1/things").await;
    cluster.get("/api/v1/endpoints").await;
    cluster.admin(Method::DELETE, "/api/v1/namespaces/default/configmaps/c", Value::Null).await;
    let jane =
        cluster.send(User::new("jane@example.com", &[]), request(Method::GET, "/api/v1/nodes", Value::Null)).await;
    assert_eq!(jane.code, StatusCode::FORBIDDEN);
    let stored = cluster.get("/api/v1/configmaps").await.json()["items"].as_array().map_or(0, Vec::len);
    let (_, metrics) = text(&cluster, "/metrics").await;
    let rest = "dry_run=\"\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"resource\",component=\"apiserver\"";
    for line in [
        format!("apiserver_request_total{{verb=\"POST\",{rest},code=\"201\"}} 1"),
        format!("apiserver_request_total{{verb=\"GET\",{rest},code=\"200\"}} 1"),
        format!("apiserver_request_duration_seconds_count{{verb=\"GET\",{rest}}} 1"),
        format!("apiserver_storage_objects{{resource=\"configmaps\"}} {stored}"),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"catch-all\"} 13".into(),
        "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0".into(),
        "apiserver_requested_deprecated_apis{group=\"\",version=\"v1\",resource=\"endpoints\",subresource=\"\",removed_release=\"\"} 1".into(),
        "authenticated_user_requests{username=\"email_id\"} 1".into(),
        "authorization_attempts_total{result=\"no-opinion\"} 1".into(),
        "authorization_duration_seconds_count{result=\"no-opinion\"} 1".into(),
        format!("etcd_requests_total{{operation=\"create\",group=\"\",resource=\"configmaps\"}} {}", stored + 1),
        "etcd_request_duration_seconds_count{operation=\"delete\",group=\"\",resource=\"configmaps\"} 1".into(),
        format!("apiserver_watch_cache_events_dispatched_total{{group=\"\",resource=\"configmaps\"}} {}", stored + 2),
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in {metrics}");
    }
    assert!(!metrics.contains("made.up"));
    // As many attempts as requests that were answered, and this one.
    let sum = |family: &str, label: &str| -> f64 {
        let lines = metrics.lines().filter(|l| l.starts_with(family) && l.contains(label));
        lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    let attempts = sum("authentication_attempts{", "success");
    assert_eq!(attempts, sum("apiserver_request_total{", "") + 1.0);
    assert_eq!(attempts, sum("authentication_duration_seconds_count{", "success"));
    assert_eq!(attempts, sum("authorization_attempts_total{", ""));
    assert!(metrics.contains("\nprocess_resident_memory_bytes "));
}

#[tokio::test]
async fn requests_are_audited_as_the_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let options = AuditLogOptions { path: log.clone(), blocking: true, ..AuditLogOptions::default() };
    let audit = AuditConfig { policy_file: policy, log: Some(options), webhook: None };
    let cluster = Cluster::with(|config, _| config.audit = Some(audit)).await;
    cluster.create("/api/v1/namespaces/default/configmaps", json!({"metadata": {"generateName": "c-"}})).await;
    let mut get = request(Method::GET, "/api/v1/namespaces/default/configmaps/none?x=y", Value::Null);
    get.headers_mut().insert("audit-id", "mine".parse().unwrap());
    get.headers_mut().insert("impersonate-user", "jane".parse().unwrap());
    let reply = cluster.send(admin(), get).await;
    assert_eq!(reply.headers["audit-id"], "mine");
    cluster.get("/api/v1/endpoints").await;
    let events: Vec<Value> =
        std::fs::read_to_string(&log).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(events[2]["annotations"]["k8s.io/deprecated"], "true");
    let create = &events[0];
    assert_eq!(create["verb"], "create");
    assert_eq!(create["requestObject"]["metadata"]["generateName"], "c-");
    assert_eq!(create["responseObject"]["kind"], "ConfigMap");
    assert_eq!(create["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(create["annotations"]["authorization.k8s.io/decision"], "allow");
    let get = &events[1];
    assert_eq!(get["auditID"], "mine");
    assert_eq!(get["user"]["username"], "admin");
    assert_eq!(get["impersonatedUser"]["username"], "jane");
    assert_eq!(get["requestURI"], "/api/v1/namespaces/default/configmaps/none?x=y");
    assert_eq!(get["responseStatus"]["reason"], "Forbidden");
    assert_eq!(get["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert!(get.get("responseObject").is_none());
}

#[tokio::test]
async fn turns_are_told_and_too_many_are_refused() {
    // One seat for each level, and none to spare.
    let cluster = Cluster::with(|config, _| (config.max_in_flight, config.max_mutating_in_flight) = (1, 0)).await;
    let jane = || User::new("jane", &[]);
    let version = || request(Method::GET, "/version", Value::Null);
    let schemas = cluster.get("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas").await.json();
    let uid = |name: &str| {
        let items = schemas["items"].as_array().unwrap();
        items.iter().find(|i| i["metadata"]["name"] == name).unwrap()["metadata"]["uid"].clone()
    };
    assert_eq!(schemas["items"].as_array().unwrap().len(), 13);
    let reply = cluster.send(jane(), version()).await;
    assert_eq!(reply.headers["x-kubernetes-pf-flowschema-uid"], *uid("global-default").as_str().unwrap());
    assert!(reply.headers.contains_key("x-kubernetes-pf-prioritylevel-uid"));
    let reply = cluster.send(admin(), version()).await;
    assert_eq!(reply.headers["x-kubernetes-pf-flowschema-uid"], *uid("exempt").as_str().unwrap());
    // A level that rejects all.
    let level = json!({"metadata": {"name": "closed"}, "spec": {
        "type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}},
    }});
    cluster.create("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", level).await;
    let schema = json!({"metadata": {"name": "closed"}, "spec": {
        "matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "closed"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
                   "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/version"]}]}],
    }});
    cluster.create("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", schema).await;
    let dangling = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas?watch=1&fieldSelector=metadata.name%3Dclosed&timeoutSeconds=20";
    first_status(&cluster, dangling).await;
    let reply = cluster.send(jane(), version()).await;
    assert_eq!(
        (reply.code, &reply.body[..]),
        (StatusCode::TOO_MANY_REQUESTS, &b"Too many requests, please try again later.\n"[..])
    );
    assert_eq!(reply.headers["retry-after"], "1");
    let (_, levels) = text(&cluster, "/debug/api_priority_and_fairness/dump_priority_levels").await;
    assert!(
        levels
            .starts_with("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests\n")
    );
}

/// Reads a watch until an object with its condition comes: by then the change is in effect.
async fn first_status(cluster: &Cluster, path: &str) {
    use http_body_util::BodyExt;
    use pintle_client::Transport;
    let transport = cluster.server.local_transport(admin());
    let mut body = transport.call(request(Method::GET, path, Value::Null)).await.unwrap().into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.unwrap().into_data().unwrap();
        let events = serde_json::Deserializer::from_slice(&frame).into_iter::<Value>();
        let is_false = |event: Value| event["object"]["status"]["conditions"][0]["status"] == "False";
        if events.map(Result::unwrap).any(is_false) {
            return;
        }
    }
    panic!("the watch ended without a condition");
}

#[tokio::test]
async fn timeouts_must_be_durations() {
    let cluster = Cluster::new().await;
    let reply = cluster.get("/api/v1/namespaces?timeout=soon").await;
    let words = "invalid timeout specified in the request URL - time: invalid duration \"soon\"";
    assert_eq!((reply.code.as_u16(), reply.message()), (400, words.to_owned()));
    assert_eq!(cluster.get("/api/v1/namespaces?timeout=5s").await.code, 200);
}

#[tokio::test]
async fn administrators_see_what_the_server_is() {
    let cluster = Cluster::new().await;
    assert!(text(&cluster, "/statusz").await.1.starts_with("\nkube-apiserver statusz\nWarning: "));
    assert!(text(&cluster, "/flagz").await.1.contains("\nmax-requests-inflight=400\n"));
    assert_eq!(text(&cluster, "/debug/pprof/heap").await.0, 501);
    let reply = cluster.send(User::new("jane", &[]), request(Method::GET, "/debug/pprof/", Value::Null)).await;
    assert_eq!(reply.code, StatusCode::FORBIDDEN);
    assert!(text(&cluster, "/debug/pprof/").await.1.contains("\tcmdline\n"));
    let (taken, other) = tokio::join!(cluster.get("/debug/pprof/profile?seconds=1"), async {
        cluster.get("/debug/pprof/profile?seconds=1").await.code
    });
    assert_eq!((taken.code.as_u16(), other.as_u16()), (200, 500), "one at a time");
    let without = Cluster::with(|config, _| config.profiling = false).await;
    for path in ["/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/profile"] {
        assert_eq!(text(&without, path).await.0, 404, "{path}");
    }
}
