//! Admission webhooks asked by a whole server: what they are asked, and what becomes of their answers.

#[path = "support/hooks.rs"]
mod hooks_server;
mod support;

use bytes::Bytes;
use hooks_server::{CONFIGURATIONS, Does, Hooks, patch};
use http::{Method, StatusCode};
use pintle_apiserver::User;
use serde_json::{Value, json};
use std::sync::Arc;
use support::{Cluster, Reply, request};

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

fn configmap(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

async fn post(cluster: &Cluster, path: &str, body: Value) -> Reply {
    cluster.admin(Method::POST, path, body).await
}

async fn with(flavor: &str, hooks: impl FnOnce(&Hooks) -> Vec<Value>) -> (Cluster, Hooks) {
    let (cluster, server) = (Cluster::new().await, Hooks::serve(true).await);
    let hooks = hooks(&server);
    server.install(&cluster, flavor, hooks).await;
    (cluster, server)
}

#[tokio::test]
async fn refusals_carry_what_the_hook_said() {
    let more = json!({});
    let (cluster, hooks) = with("validating", |h| vec![h.hook("/a", &["configmaps"], &["*"], more)]).await;
    let cases = [
        (
            json!({"allowed": false}),
            400,
            "",
            "admission webhook \"a.example.com\" denied the request without explanation",
        ),
        (
            json!({"allowed": false, "status": {"message": "not here", "code": 409, "reason": "Conflict"}}),
            409,
            "Conflict",
            "admission webhook \"a.example.com\" denied the request: not here",
        ),
        (
            json!({"allowed": false, "status": {"reason": "Forbidden", "code": 200}}),
            400,
            "Forbidden",
            "admission webhook \"a.example.com\" denied the request: Forbidden",
        ),
        (
            json!({"allowed": true, "uid": "other"}),
            500,
            "InternalError",
            "Internal error occurred: failed calling webhook \"a.example.com\": received invalid webhook response: \
             expected response.uid=",
        ),
        (
            json!({"allowed": true, "patch": "W10="}),
            500,
            "InternalError",
            "Internal error occurred: failed calling webhook \"a.example.com\": received invalid webhook response: \
             validating webhook may not return response.patch",
        ),
    ];
    for (response, code, reason, message) in cases {
        hooks.on("/a", Does::Respond(response.clone()));
        let reply = post(&cluster, CONFIGMAPS, configmap("refused")).await;
        let status = reply.json();
        assert_eq!(reply.code.as_u16(), code, "{response}: {status}");
        assert_eq!(status["reason"].as_str().unwrap_or_default(), reason, "{response}");
        assert!(reply.message().starts_with(message), "{response}: {}", reply.message());
    }
    hooks.on("/a", Does::allow());
    hooks.forget();
    cluster.create(CONFIGMAPS, configmap("let-in")).await;
    let seen = &hooks.seen("/a")[0];
    assert_eq!(seen["object"]["metadata"]["name"], "let-in");
    assert_eq!(
        (&seen["operation"], &seen["namespace"], &seen["name"], &seen["dryRun"]),
        (&json!("CREATE"), &json!("default"), &json!("let-in"), &json!(false))
    );
    assert_eq!(seen["userInfo"], json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]}));
    assert_eq!(seen["options"]["kind"], "CreateOptions");
    assert_eq!(seen["oldObject"], Value::Null);
}

#[tokio::test]
async fn patches_are_applied_and_defaulted() {
    let (cluster, hooks) = with("mutating", |h| vec![h.hook("/a", &["services"], &["CREATE"], json!({}))]).await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "a", "port": 80}]}});
    hooks.on(
        "/a",
        Does::patch(json!([
            {"op": "add", "path": "/spec/ports/-", "value": {"name": "b", "port": 81, "unheard": 1}},
            {"op": "add", "path": "/metadata/labels", "value": {"by": "hook"}},
        ])),
    );
    let made = cluster.create(services, service("good")).await;
    assert_eq!(made["spec"]["ports"][1], json!({"name": "b", "port": 81, "protocol": "TCP", "targetPort": 81}));
    assert_eq!(made["metadata"]["labels"], json!({"by": "hook"}));
    // What the hook made of it is validated like anything else.
    hooks.on("/a", Does::patch(json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 70000}])));
    let reply = post(&cluster, services, service("bad")).await;
    assert_eq!(reply.code, StatusCode::UNPROCESSABLE_ENTITY, "{reply:?}");
    assert!(reply.message().contains("spec.ports[0].port: Invalid value: 70000"), "{}", reply.message());
    hooks.on("/a", Does::patch(json!([{"op": "remove", "path": "/spec/nothing"}])));
    assert_eq!(post(&cluster, services, service("bad")).await.code, StatusCode::INTERNAL_SERVER_ERROR);
    hooks.on("/a", Does::Respond(json!({"allowed": true, "patchType": "JSONPatch", "patch": "e30="})));
    let reply = post(&cluster, services, service("bad")).await;
    assert!(reply.message().contains("received undecodable patch in webhook response"), "{}", reply.message());
}

fn label(request: &Value, name: &str) -> Value {
    let labels = &request["object"]["metadata"]["labels"];
    match labels.get(name) {
        Some(_) => json!({"allowed": true}),
        None if labels.is_null() => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {name: "x"}}])),
        None => patch(json!([{"op": "add", "path": format!("/metadata/labels/{name}"), "value": "x"}])),
    }
}

#[tokio::test]
async fn hooks_are_called_in_order_and_those_that_ask_for_it_again() {
    let (cluster, hooks) = with("mutating", |h| {
        vec![
            h.hook("/a", &["configmaps"], &["CREATE"], json!({"reinvocationPolicy": "IfNeeded"})),
            h.hook("/b", &["configmaps"], &["CREATE"], json!({})),
            h.hook("/c", &["configmaps"], &["CREATE"], json!({"reinvocationPolicy": "IfNeeded"})),
        ]
    })
    .await;
    hooks.on("/a", Does::Decide(|request| label(request, "a")));
    hooks.on("/b", Does::Decide(|request| label(request, "b")));
    hooks.on("/c", Does::allow());
    let made = cluster.create(CONFIGMAPS, configmap("m")).await;
    assert_eq!(made["metadata"]["labels"], json!({"a": "x", "b": "x"}));
    // Nothing changed after the last, so only the first sees it again.
    assert_eq!(hooks.order(), ["/a", "/b", "/c", "/a"]);
}

#[tokio::test]
async fn validating_hooks_are_asked_at_once() {
    let names = ["/a", "/b", "/c"];
    let (cluster, hooks) =
        with("validating", |h| names.map(|n| h.hook(n, &["configmaps"], &["CREATE"], json!({}))).to_vec()).await;
    let barrier = Arc::new(tokio::sync::Barrier::new(3));
    names.iter().for_each(|name| hooks.on(name, Does::Meet(barrier.clone())));
    cluster.create(CONFIGMAPS, configmap("m")).await;
}

#[tokio::test]
async fn hooks_that_fail_refuse_or_not_by_their_policy() {
    let (cluster, hooks) = with("validating", |h| {
        let nobody = json!({"url": "https://127.0.0.1:1"});
        vec![
            h.hook("/fail", &["configmaps"], &["CREATE"], json!({})),
            h.hook("/ignore", &["secrets"], &["CREATE"], json!({"failurePolicy": "Ignore"})),
            h.hook("/nobody", &["services"], &["CREATE"], json!({"clientConfig": nobody, "timeoutSeconds": 3})),
            h.hook(
                "/other",
                &["endpoints"],
                &["CREATE"],
                json!({"clientConfig": {
                "service": {"namespace": "default", "name": "missing", "path": "/x/"}}}),
            ),
        ]
    })
    .await;
    let failed = "Internal error occurred: failed calling webhook \"fail.example.com\": failed to call webhook: ";
    let cases: [(Does, &str); 3] = [
        (Does::Write(StatusCode::NOT_FOUND, Bytes::new()), "the server could not find the requested resource"),
        (
            Does::Write(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(b"broken")),
            "an error on the server (\"broken\") has prevented the request from succeeding",
        ),
        (Does::Write(StatusCode::OK, Bytes::from(vec![b' '; 9 << 20])), "Post "),
    ];
    for (does, message) in cases {
        hooks.on("/fail", does.clone());
        hooks.on("/ignore", does);
        let reply = post(&cluster, CONFIGMAPS, configmap("m")).await;
        assert_eq!(reply.code, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(reply.message().starts_with(&format!("{failed}{message}")), "{}", reply.message());
        let reply = post(&cluster, "/api/v1/namespaces/default/secrets?dryRun=All", configmap("s")).await;
        assert_eq!(reply.code, StatusCode::CREATED, "{reply:?}");
    }
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(
        post(&cluster, "/api/v1/namespaces/default/services", service).await.message(),
        "Internal error occurred: failed calling webhook \"nobody.example.com\": failed to call webhook: Post \
         \"https://127.0.0.1:1/?timeout=3s\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
    assert_eq!(
        post(&cluster, "/api/v1/namespaces/default/endpoints", configmap("e")).await.message(),
        "Internal error occurred: failed calling webhook \"other.example.com\": failed to call webhook: Post \
         \"https://missing.default.svc:443/x?timeout=10s\": service \"missing\" not found"
    );
}

#[tokio::test]
async fn hooks_that_hang_are_given_up_with_the_request() {
    let (cluster, hooks) = with("mutating", |h| {
        vec![
            h.hook("/fail", &["configmaps"], &["CREATE"], json!({})),
            h.hook("/ignore", &["secrets"], &["CREATE"], json!({"failurePolicy": "Ignore"})),
        ]
    })
    .await;
    hooks.on("/fail", Does::Hang);
    hooks.on("/ignore", Does::Hang);
    let reply = post(&cluster, &format!("{CONFIGMAPS}?timeout=60ms"), configmap("m")).await;
    let port = hooks.port;
    assert_eq!(
        reply.message(),
        format!(
            "Internal error occurred: failed calling webhook \"fail.example.com\": failed to call webhook: Post \
             \"https://127.0.0.1:{port}/fail?timeout=1s\": context deadline exceeded"
        )
    );
    let reply = post(&cluster, "/api/v1/namespaces/default/secrets?timeout=60ms", configmap("s")).await;
    assert_eq!((reply.code.as_u16(), reply.json()["reason"].as_str()), (504, Some("Timeout")), "{reply:?}");
    assert!(reply.message().starts_with("Timeout: request did not complete within requested timeout"));
}

#[tokio::test]
async fn a_dry_run_asks_only_hooks_without_side_effects() {
    let (cluster, hooks) = with("validating", |h| {
        vec![
            h.hook("/some", &["configmaps"], &["CREATE"], json!({"sideEffects": "NoneOnDryRun"})),
            h.hook("/beta", &["secrets"], &["CREATE"], json!({"admissionReviewVersions": ["v1beta1"]})),
        ]
    })
    .await;
    hooks.on("/some", Does::allow());
    hooks.on("/beta", Does::allow());
    let path = format!("{CONFIGMAPS}?dryRun=All");
    assert_eq!(post(&cluster, &path, configmap("m")).await.code, StatusCode::CREATED);
    let seen = &hooks.seen("/some")[0];
    assert_eq!((&seen["dryRun"], &seen["options"]["dryRun"]), (&json!(true), &json!(["All"])));
    assert_eq!(post(&cluster, "/api/v1/namespaces/default/secrets", configmap("s")).await.code, StatusCode::CREATED);
}

#[tokio::test]
async fn selectors_and_conditions_choose_the_writes() {
    let (cluster, hooks) = with("validating", |h| {
        let labelled = json!({"matchLabels": {"hook": "yes"}});
        let names = |names: &[&str]| json!({"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": names}]});
        let conditions = json!([
            {"name": "named", "expression": "object.metadata.name.startsWith('c-')"},
            {"name": "who", "expression": "request.userInfo.username == 'admin'"},
            {"name": "may", "expression": "authorizer.group('').resource('pods').namespace('default').check('get').allowed()"},
            {"name": "this", "expression": "authorizer.requestResource.check('create').allowed()"},
        ]);
        let broken = json!([{"name": "broken", "expression": "object.data.missing == 'x'"}]);
        vec![
            h.hook("/label", &["configmaps"], &["*"], json!({"objectSelector": labelled})),
            h.hook("/space", &["configmaps", "namespaces"], &["*"], json!({"namespaceSelector": names(&["other"])})),
            h.hook("/condition", &["configmaps"], &["*"], json!({"matchConditions": conditions})),
            h.hook("/broken", &["secrets"], &["*"], json!({"matchConditions": broken})),
            h.hook("/open", &["secrets"], &["*"], json!({"matchConditions": broken, "failurePolicy": "Ignore"})),
        ]
    })
    .await;
    for path in ["/label", "/space", "/condition", "/broken", "/open"] {
        hooks.on(path, Does::allow());
    }
    cluster.create(CONFIGMAPS, configmap("plain")).await;
    assert_eq!(hooks.order(), [""; 0]);
    let mut labelled = configmap("labelled");
    labelled["metadata"]["labels"] = json!({"hook": "yes"});
    cluster.create(CONFIGMAPS, labelled).await;
    // The old object's labels count too.
    let gone = json!({"metadata": {"labels": null}});
    cluster.admin(Method::PATCH, &format!("{CONFIGMAPS}/labelled"), gone).await;
    assert_eq!(hooks.order(), ["/label", "/label"]);
    hooks.forget();
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await;
    cluster.create("/api/v1/namespaces/other/configmaps", configmap("m")).await;
    assert_eq!(hooks.order(), ["/space", "/space"]);
    assert_eq!(hooks.seen("/space")[0]["namespace"], "other");
    hooks.forget();
    cluster.create(CONFIGMAPS, configmap("c-1")).await;
    assert_eq!(hooks.order(), ["/condition"]);
    let robot = User::new("robot", &["system:masters"]);
    let reply = cluster.send(robot, request(Method::POST, CONFIGMAPS, configmap("c-2"))).await;
    assert_eq!((reply.code, hooks.order().len()), (StatusCode::CREATED, 1));
    let reply = post(&cluster, "/api/v1/namespaces/default/secrets", configmap("s")).await;
    assert_eq!(reply.code, StatusCode::FORBIDDEN);
    let words =
        "secrets \"s\" is forbidden: expression 'object.data.missing == 'x'' resulted in error: no such key: data";
    assert_eq!(reply.message(), words);
    assert!(hooks.seen("/broken").is_empty() && hooks.seen("/open").is_empty());
}

#[tokio::test]
async fn a_hook_sees_the_version_that_its_rule_names() {
    let (cluster, hooks) = with("mutating", |h| {
        let rule = |policy: &str| {
            json!({"matchPolicy": policy, "rules": [{"apiGroups": ["autoscaling"],
            "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"], "operations": ["CREATE"]}]})
        };
        vec![h.hook("/same", &[], &[], rule("Equivalent")), h.hook("/exact", &[], &[], rule("Exact"))]
    })
    .await;
    hooks.on("/same", Does::patch(json!([{"op": "replace", "path": "/spec/maxReplicas", "value": 7}])));
    let scaler = json!({"metadata": {"name": "h"}, "spec": {
        "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 60}}}],
    }});
    let made = cluster.create("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", scaler).await;
    assert_eq!((&made["apiVersion"], &made["spec"]["maxReplicas"]), (&json!("autoscaling/v2"), &json!(7)));
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    assert_eq!(hooks.order(), ["/same"]);
    let seen = &hooks.seen("/same")[0];
    assert_eq!((&seen["kind"]["version"], &seen["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(seen["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(seen["object"]["spec"]["targetCPUUtilizationPercentage"], 60);
}

#[tokio::test]
async fn warnings_are_passed_on_with_refusals_too() {
    let (cluster, hooks) = with("validating", |h| vec![h.hook("/a", &["configmaps"], &["CREATE"], json!({}))]).await;
    hooks.on("/a", Does::Respond(json!({"allowed": true, "warnings": ["careful", "very \"careful\""]})));
    let reply = post(&cluster, CONFIGMAPS, configmap("m")).await;
    let warnings: Vec<_> = reply.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(warnings, ["299 - \"careful\"", "299 - \"very \\\"careful\\\"\""]);
    hooks.on("/a", Does::Respond(json!({"allowed": false, "warnings": ["no way"]})));
    let reply = post(&cluster, CONFIGMAPS, configmap("n")).await;
    assert_eq!(reply.headers["warning"], "299 - \"no way\"");
}

#[tokio::test]
async fn nobody_is_asked_about_the_objects_that_say_who_is_asked() {
    let (cluster, hooks) = with("validating", |h| {
        vec![h.hook("/a", &["validatingwebhookconfigurations", "validatingadmissionpolicies"], &["*"], json!({}))]
    })
    .await;
    hooks.on("/a", Does::Respond(json!({"allowed": false})));
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations");
    cluster.create(&path, json!({"metadata": {"name": "free"}, "webhooks": []})).await;
    assert_eq!(cluster.admin(Method::DELETE, &format!("{path}/free"), Value::Null).await.code, StatusCode::OK);
    assert!(hooks.seen("/a").is_empty());
}

#[tokio::test]
async fn deletions_show_what_goes_object_by_object() {
    let (cluster, hooks) = with("validating", |h| vec![h.hook("/a", &["configmaps"], &["DELETE"], json!({}))]).await;
    for name in ["one", "two", "three"] {
        let mut object = configmap(name);
        object["metadata"]["labels"] = json!({"set": "a"});
        cluster.create(CONFIGMAPS, object).await;
    }
    hooks.on("/a", Does::allow());
    assert_eq!(cluster.admin(Method::DELETE, &format!("{CONFIGMAPS}/one"), Value::Null).await.code, StatusCode::OK);
    let seen = &hooks.seen("/a")[0];
    assert_eq!((&seen["object"], &seen["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("one")));
    assert_eq!((&seen["operation"], &seen["options"]["kind"]), (&json!("DELETE"), &json!("DeleteOptions")));
    hooks.forget();
    let path = format!("{CONFIGMAPS}?labelSelector=set%3Da");
    assert_eq!(cluster.admin(Method::DELETE, &path, Value::Null).await.code, StatusCode::OK);
    let mut names: Vec<_> = hooks.seen("/a").iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["three", "two"]);
    hooks.on("/a", Does::patch(json!([{"op": "add", "path": "/metadata/labels", "value": {}}])));
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn connections_and_subresources_are_asked_about() {
    let all = [
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "pods/proxy",
        "pods/status",
        "pods/eviction",
        "pods/binding",
        "deployments/scale",
    ];
    let (cluster, hooks) = with("validating", |h| vec![h.hook("/a", &all, &["*"], json!({}))]).await;
    cluster.default_account("default").await;
    let pods = "/api/v1/namespaces/default/pods";
    cluster.create(pods, pod("p")).await;
    hooks.on("/a", Does::Respond(json!({"allowed": false, "status": {"message": "no", "code": 403}})));
    let at = |sub: &str| format!("{pods}/p/{sub}");
    let denied = "admission webhook \"a.example.com\" denied the request: no";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    cluster.create("/apis/apps/v1/namespaces/default/deployments", deployment).await;
    let cases = [
        (
            Method::POST,
            at("exec?command=sh&command=-c&container=c&stdin=true&stdout=true&tty=true"),
            Value::Null,
            "CONNECT",
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["sh", "-c"], "container": "c", "stdin": true,
                "stdout": true, "tty": true}),
        ),
        (
            Method::POST,
            at("attach?stdout=true"),
            Value::Null,
            "CONNECT",
            json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdout": true}),
        ),
        (
            Method::POST,
            at("portforward"),
            Value::Null,
            "CONNECT",
            json!({"kind": "PodPortForwardOptions", "apiVersion": "v1"}),
        ),
        (
            Method::GET,
            at("proxy/some/where"),
            Value::Null,
            "CONNECT",
            json!({"kind": "PodProxyOptions", "apiVersion": "v1", "path": "/some/where"}),
        ),
        (
            Method::POST,
            at("eviction"),
            json!({"metadata": {"name": "p"}}),
            "CREATE",
            json!({"kind": "Eviction", "apiVersion": "policy/v1"}),
        ),
        (
            Method::POST,
            at("binding"),
            json!({"metadata": {"name": "p"}, "target": {"name": "n"}}),
            "CREATE",
            json!({"kind": "Binding", "target": {"name": "n"}}),
        ),
        (
            Method::PATCH,
            at("status"),
            json!({"status": {"message": "m"}}),
            "UPDATE",
            json!({"kind": "Pod", "status": {"message": "m"}}),
        ),
        (
            Method::PATCH,
            "/apis/apps/v1/namespaces/default/deployments/d/scale".into(),
            json!({"spec": {"replicas": 4}}),
            "UPDATE",
            json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": 4}}),
        ),
    ];
    for (method, path, body, operation, object) in cases {
        hooks.forget();
        let reply = cluster.admin(method, &path, body).await;
        assert_eq!((reply.code, reply.message().as_str()), (StatusCode::FORBIDDEN, denied), "{path}");
        let seen = hooks.seen("/a");
        assert_eq!((seen.len(), seen[0]["operation"].as_str()), (1, Some(operation)), "{path}");
        assert_eq!(seen[0]["kind"]["kind"], object["kind"], "{path}: {}", seen[0]);
        assert!(seen[0]["subResource"].as_str().is_some_and(|sub| path.contains(sub)), "{path}");
        for (key, value) in object.as_object().unwrap() {
            let got = &seen[0]["object"][key];
            let inside = |(k, v): (&String, &Value)| got[k] == *v;
            let same = got == value || value.as_object().is_some_and(|map| map.iter().all(inside));
            assert!(same, "{path}: {key} of {}", seen[0]["object"]);
        }
    }
}

#[tokio::test]
async fn custom_resources_are_asked_about_in_the_version_of_the_rule() {
    let (cluster, hooks) = with("mutating", |h| {
        let rule = json!({"rules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["things"],
            "operations": ["*"]}]});
        vec![h.hook("/a", &[], &[], rule)]
    })
    .await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"}, "kind": {"type": "string", "default": "plain"}}}}}});
    let version =
        |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [version("v1", true), version("v2", false)],
    }});
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    hooks.on("/a", Does::patch(json!([{"op": "add", "path": "/spec/size", "value": 3}])));
    let path = "/apis/example.com/v2/namespaces/default/things";
    let thing = json!({"apiVersion": "example.com/v2", "kind": "Thing", "metadata": {"name": "t"}, "spec": {}});
    for _ in 0..10_000 {
        if cluster.get(path).await.code == StatusCode::OK {
            break;
        }
        tokio::task::yield_now().await;
    }
    let made = cluster.create(path, thing).await;
    assert_eq!(made["apiVersion"], "example.com/v2");
    assert_eq!(made["spec"], json!({"size": 3, "kind": "plain"}));
    let seen = &hooks.seen("/a")[0];
    assert_eq!(
        (&seen["object"]["apiVersion"], &seen["requestKind"]["version"]),
        (&json!("example.com/v1"), &json!("v2"))
    );
}

#[tokio::test]
async fn connections_are_kept_and_calls_are_counted() {
    for http2 in [true, false] {
        let (cluster, hooks) = (Cluster::new().await, Hooks::serve(http2).await);
        hooks.on("/a", Does::Decide(|request| json!({"allowed": request["name"] != "bad"})));
        let hook = hooks.hook("/a", &["configmaps"], &["CREATE"], json!({}));
        hooks.install(&cluster, "validating", vec![hook]).await;
        cluster.create(CONFIGMAPS, configmap("m0")).await;
        let before = hooks.connections();
        for n in 1..6 {
            cluster.create(CONFIGMAPS, configmap(&format!("m{n}"))).await;
        }
        assert_eq!(hooks.connections(), before, "HTTP/2: {http2}");
        assert_eq!(post(&cluster, CONFIGMAPS, configmap("bad")).await.code, StatusCode::BAD_REQUEST);
        let reply = cluster.get("/metrics").await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        for line in [
            "apiserver_admission_webhook_request_total{code=\"200\",name=\"a.example.com\",operation=\"CREATE\",rejected=\"false\",type=\"validating\"} 6",
            "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"a.example.com\",operation=\"CREATE\",rejection_code=\"400\",type=\"validating\"} 1",
        ] {
            assert!(text.contains(line) || has_series(&text, line), "{line}\n{}", series(&text));
        }
    }
}

/// Whether the text has a line with the same name, labels (in any order) and value.
fn has_series(text: &str, line: &str) -> bool {
    let parts = |line: &str| {
        let (name, rest) = line.split_once('{')?;
        let (labels, value) = rest.split_once("} ")?;
        let mut labels: Vec<String> = labels.split(',').map(str::to_owned).collect();
        labels.sort();
        Some((name.to_owned(), labels, value.to_owned()))
    };
    text.lines().any(|other| parts(other) == parts(line) && parts(line).is_some())
}

fn series(text: &str) -> String {
    text.lines().filter(|line| line.starts_with("apiserver_admission_webhook")).collect::<Vec<_>>().join("\n")
}
