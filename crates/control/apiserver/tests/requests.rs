//! The pipeline from a request to its answer: rights, bodies, views, admission, tokens.

mod support;

use base64::Engine;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use pintle_apiserver::User;
use pintle_client::Transport;
use serde_json::{Value, json};
use support::{Cluster, admin, events, request};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn accepting(path: &str, accept: &str) -> Request<Bytes> {
    Request::builder().uri(path).header("accept", accept).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let cluster = Cluster::new().await;
    let check = async |method: Method, path: &str, code: u16, words: &str| {
        let reply = cluster.admin(method, path, Value::Null).await;
        assert_eq!(reply.code.as_u16(), code, "{path}: {reply:?}");
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(text.contains(words), "{path}: {text}");
    };
    check(Method::GET, "/nope", 404, "404 page not found").await;
    check(Method::GET, "/apis/none.io", 404, "404 page not found").await;
    check(Method::GET, "/apis/apps/v9/deployments", 404, "the server could not find the requested resource").await;
    check(Method::GET, "/api/v1/nopes", 404, "the server could not find the requested resource").await;
    check(Method::GET, "/api/v1/namespaces/default/pods/x", 404, "pods \\\"x\\\" not found").await;
    check(Method::POST, &format!("{MAPS}/a"), 405, "the server does not allow this method").await;
    check(Method::PUT, MAPS, 405, "the server does not allow this method").await;
    check(Method::POST, "/api/v1/pods", 405, "the server does not allow this method").await;
    check(Method::GET, "/readyz?verbose", 200, "readyz check passed").await;
    check(Method::GET, "/version", 200, "{\n  \"major\": \"1\",\n  \"minor\": \"36\",\n").await;
}

#[tokio::test]
async fn what_is_written_is_read_listed_and_shown_as_a_table() {
    let cluster = Cluster::new().await;
    let made = cluster.create(MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "tests");
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.json(), made);
    let list = cluster.get(MAPS).await.json();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 1));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let shown = cluster.send(admin(), accepting(MAPS, table)).await.json();
    assert_eq!(shown["kind"], "Table");
    assert_eq!(shown["rows"][0]["cells"][0], "a");
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let shown = cluster.send(admin(), accepting(&format!("{MAPS}/a"), partial)).await.json();
    assert!(shown["data"].is_null() && shown["metadata"]["name"] == "a");
    let yaml = cluster.send(admin(), accepting(&format!("{MAPS}/a"), "application/yaml")).await;
    assert!(String::from_utf8_lossy(&yaml.body).contains("name: a\n"), "{yaml:?}");
}

#[tokio::test]
async fn protobuf_is_read_and_written_for_those_who_prefer_it() {
    let cluster = Cluster::new().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let protobuf = "application/vnd.kubernetes.protobuf";
    let mut post = request(Method::POST, MAPS, Value::Null);
    post.headers_mut().insert("content-type", protobuf.parse().unwrap());
    *post.body_mut() = pintle_schema::protobuf::encode(&map).unwrap().into();
    assert_eq!(cluster.send(admin(), post).await.json()["data"], json!({"k": "v"}));
    let reply = cluster.send(admin(), accepting(&format!("{MAPS}/a"), protobuf)).await;
    assert_eq!(reply.headers["content-type"], protobuf);
    let envelope = pintle_schema::protobuf::Envelope::open(&reply.body).unwrap();
    let read = envelope.object(("", ""), Default::default()).unwrap();
    assert_eq!(read, cluster.get(&format!("{MAPS}/a")).await.json());
    let both = cluster.send(admin(), accepting(MAPS, "application/vnd.kubernetes.protobuf,application/json")).await;
    assert_eq!(both.headers["content-type"], protobuf);
    let list = cluster.get(MAPS).await.json();
    assert_eq!(pintle_schema::protobuf::encode(&list).unwrap(), both.body, "as if the JSON were encoded");
    let missing = cluster.send(admin(), accepting(&format!("{MAPS}/b"), protobuf)).await;
    assert_eq!((missing.code.as_u16(), &missing.headers["content-type"]), (404, &protobuf.parse().unwrap()));
    let status = pintle_schema::protobuf::Envelope::open(&missing.body).unwrap();
    assert_eq!(status.object(("", ""), Default::default()).unwrap()["reason"], "NotFound");
}

#[tokio::test]
async fn odd_bodies_are_refused_or_warned_about() {
    let cluster = Cluster::new().await;
    let odd = json!({"metadata": {"name": "a"}, "datum": 1});
    let strict = cluster.admin(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), odd.clone()).await;
    assert_eq!(
        strict.message(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"datum\""
    );
    let warned = cluster.admin(Method::POST, MAPS, odd).await;
    assert_eq!(warned.code, StatusCode::CREATED);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"datum\\\"\"");
    let large = json!({"metadata": {"name": "b"}, "data": {"k": "x".repeat(4 << 20)}});
    assert_eq!(cluster.admin(Method::POST, MAPS, large).await.code, StatusCode::PAYLOAD_TOO_LARGE);
    let mut text = request(Method::POST, MAPS, json!({}));
    text.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(cluster.send(admin(), text).await.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn roles_decide_who_may_do_what() {
    let cluster = Cluster::new().await;
    let jane = || User::new("jane", &["dev"]);
    let list = || request(Method::GET, "/api/v1/namespaces/default/pods", Value::Null);
    let refused = cluster.send(jane(), list()).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let watch = cluster.server.local_transport(admin());
    let binding = json!({
        "metadata": {"name": "dev"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}],
    });
    cluster.create("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    // Roles are followed by a task: its turn comes while this one waits for answers.
    let mut allowed = false;
    for _ in 0..1000 {
        allowed = cluster.send(jane(), list()).await.code == StatusCode::OK;
        if allowed {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(allowed, "the binding of an aggregated role took no effect");
    drop(watch);
    let elsewhere = request(Method::GET, "/api/v1/namespaces/kube-system/pods", Value::Null);
    assert_eq!(cluster.send(jane(), elsewhere).await.code, StatusCode::FORBIDDEN);
    let review = json!({"spec": {"user": "jane", "groups": ["dev"],
        "resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}}});
    let answer = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await;
    assert_eq!(answer["status"]["allowed"], true, "{answer}");
}

#[tokio::test]
async fn pods_get_an_account_its_token_and_the_usual_tolerations() {
    let cluster = Cluster::new().await;
    cluster.default_account("default").await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = cluster.create(pods, pod.clone()).await;
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    let other = json!({"metadata": {"name": "q"}, "spec": {"serviceAccountName": "none", "containers": [{"name": "c", "image": "i"}]}});
    let refused = cluster.admin(Method::POST, pods, other).await;
    assert_eq!(
        refused.message(),
        "pods \"q\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found"
    );
    let missing = cluster.admin(Method::POST, "/api/v1/namespaces/missing/pods", pod).await;
    assert_eq!(missing.message(), "namespaces \"missing\" not found");
    let kept = cluster.admin(Method::DELETE, "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(kept.message(), "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

// Made with `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /O=system:masters/CN=a`.
const MASTERS: &str = "\
    LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIaE1JR0hBZ0VBTUNVeEZ6QVZCZ05WQkFvTURuTjVjM1JsYlRw\
    dFlYTjBaWEp6TVFvd0NBWURWUVFEREFGaApNRmt3RXdZSEtvWkl6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVlKzdWUTBmUldqSnJq\
    WCtYUjFJZ1o2NTY3ZlkxCjQ2OHBsZHNCc0NvcUc3aGNmMG9SQm94OWxmNWRqcWNrWWdPYXM3MjV0K3BOYUpldUV6cDJGNXBPeXFB\
    QU1Bb0cKQ0NxR1NNNDlCQU1DQTBrQU1FWUNJUUM4S0VXL040bUUyVmthL1paRHZzbDJsQ1FYVVUxOVZWeGdHME9hbWtBZQpBUUlo\
    QUttRGRLT29jQmN0VnB4b3BFak92aGRGaUpYb0szeUNOV2ErR1BKc1ZuVysKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0t\
    LS0tCg==";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn ask(name: &str, signer: &str) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"request": MASTERS, "signerName": signer, "usages": ["client auth"]}})
}

#[tokio::test]
async fn nobody_becomes_an_administrator_by_a_certificate() {
    let cluster = Cluster::new().await;
    let refused = cluster.admin(Method::POST, REQUESTS, ask("a", "kubernetes.io/kube-apiserver-client")).await;
    assert_eq!(
        refused.message(),
        "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: use of \
         kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    // What others sign is not for this server to believe in.
    cluster.create(REQUESTS, ask("b", "example.com/signer")).await;
}

/// Binds a user to a new cluster role.
async fn allow(cluster: &Cluster, user: &str, role: &str, rules: Value) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    cluster.create(&format!("{rbac}/clusterroles"), json!({"metadata": {"name": role}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    cluster.create(&format!("{rbac}/clusterrolebindings"), binding).await;
}

/// Asks until the refusal goes that a role takes away: roles are followed by a task, whose turn comes meanwhile.
async fn once_allowed(cluster: &Cluster, refusal: &str, ask: impl Fn() -> Request<Bytes>) -> support::Reply {
    for _ in 0..1000 {
        let reply = cluster.send(User::new("jane", &[]), ask()).await;
        if !reply.message().contains(refusal) {
            return reply;
        }
        tokio::task::yield_now().await;
    }
    panic!("the role took no effect on {refusal:?}");
}

#[tokio::test]
async fn requests_are_answered_by_those_who_may_do_so_for_the_signer() {
    let cluster = Cluster::new().await;
    for (name, signer) in [("a", "example.com/one"), ("b", "kubernetes.io/kubelet-serving")] {
        cluster.create(REQUESTS, ask(name, signer)).await;
    }
    let condition = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "R"}]}});
    let approve = |name: &str| request(Method::PATCH, &format!("{REQUESTS}/{name}/approval"), condition("Approved"));
    let patch = |name: &str, body: Value| request(Method::PATCH, &format!("{REQUESTS}/{name}/status"), body);
    let certificate = base64::engine::general_purpose::STANDARD.encode(cluster.authority.certificate_pem());
    let signed = json!({"status": {"certificate": certificate}});
    let jane = async |request| cluster.send(User::new("jane", &[]), request).await;
    let refusal = |name: &str, verb: &str, signer: &str| {
        format!(
            "certificatesigningrequests.certificates.k8s.io {name:?} is forbidden: user not permitted to {verb} \
             requests with signerName {signer:?}"
        )
    };

    let resources = json!(["certificatesigningrequests/approval", "certificatesigningrequests/status"]);
    let writes = json!([{"verbs": ["patch"], "apiGroups": ["certificates.k8s.io"], "resources": resources}]);
    allow(&cluster, "jane", "writer", writes).await;
    let refused = once_allowed(&cluster, "cannot patch", || approve("a")).await;
    assert_eq!((refused.code, refused.message()), (StatusCode::FORBIDDEN, refusal("a", "approve", "example.com/one")));
    for body in [signed.clone(), condition("Failed")] {
        assert_eq!(jane(patch("a", body)).await.message(), refusal("a", "sign", "example.com/one"));
    }
    let labelled = jane(patch("a", json!({"metadata": {"labels": {"k": "v"}}}))).await;
    assert_eq!(labelled.code, StatusCode::OK, "what answers nothing needs no right to sign: {labelled:?}");

    let group = "certificates.k8s.io";
    let rule = |verb: &str, name: &str| {
        let names = json!([name]);
        json!({"verbs": [verb], "apiGroups": [group], "resources": ["signers"], "resourceNames": names})
    };
    let rules = json!([rule("approve", "example.com/*"), rule("sign", "example.com/one")]);
    allow(&cluster, "jane", "signer", rules).await;
    let approved = once_allowed(&cluster, "not permitted", || approve("a")).await;
    assert_eq!(approved.code, StatusCode::OK, "{approved:?}");
    let answered = jane(patch("a", signed.clone())).await;
    assert_eq!(answered.json()["status"]["certificate"], signed["status"]["certificate"], "{answered:?}");
    let other = "kubernetes.io/kubelet-serving";
    assert_eq!(jane(approve("b")).await.message(), refusal("b", "approve", other));
    assert_eq!(jane(patch("b", signed.clone())).await.message(), refusal("b", "sign", other));
}

#[tokio::test]
async fn the_controller_signs_for_the_signers_of_every_cluster_only() {
    let cluster = Cluster::new().await;
    for (name, signer, code) in [
        ("a", "kubernetes.io/kubelet-serving", StatusCode::OK),
        ("b", "kubernetes.io/kube-apiserver-client-kubelet", StatusCode::OK),
        ("c", "example.com/one", StatusCode::FORBIDDEN),
    ] {
        cluster.create(REQUESTS, ask(name, signer)).await;
        let path = format!("{REQUESTS}/{name}");
        let condition = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "R"}]}});
        let mut approved = cluster.admin(Method::PATCH, &format!("{path}/approval"), condition).await.json();
        approved["status"]["certificate"] =
            base64::engine::general_purpose::STANDARD.encode(cluster.authority.certificate_pem()).into();
        let controller = User::service_account("kube-system", "certificate-controller");
        let reply = cluster.send(controller, request(Method::PUT, &format!("{path}/status"), approved)).await;
        assert_eq!(reply.code, code, "{signer}: {reply:?}");
    }
}

#[tokio::test]
async fn old_kinds_and_orphans_are_warned_of() {
    let cluster = Cluster::new().await;
    let warnings = async |method: Method, path: &str, body: Value| {
        let answer = cluster.server.local_transport(admin()).call(request(method, path, body)).await.unwrap();
        let values = answer.headers().get_all("warning").iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let endpoints = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(warnings(Method::GET, "/api/v1/endpoints", Value::Null).await, [endpoints]);
    assert_eq!(warnings(Method::GET, "/api/v1/componentstatuses", Value::Null).await.len(), 1);
    let job = "/apis/batch/v1/namespaces/default/jobs/j";
    let told = warnings(Method::DELETE, job, Value::Null).await;
    assert!(told[0].contains("child pods are preserved by default"), "{told:?}");
    assert!(warnings(Method::DELETE, job, json!({"propagationPolicy": "Background"})).await.is_empty());
}

#[tokio::test]
async fn tokens_last_as_long_as_their_account_and_pod() {
    let cluster = Cluster::new().await;
    cluster.default_account("default").await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.create("/api/v1/namespaces/default/pods", pod).await;
    let bound = json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = cluster.create(path, bound).await["status"]["token"].as_str().unwrap().to_owned();
    let review = json!({"spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = cluster.create(reviews, review.clone()).await["status"].clone();
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default", "{status}");
    let pod_name = &status["user"]["extra"]["authentication.kubernetes.io/pod-name"];
    assert_eq!(pod_name, &json!(["p"]));
    let now = json!({"gracePeriodSeconds": 0});
    cluster.admin(Method::DELETE, "/api/v1/namespaces/default/pods/p", now).await;
    let status = cluster.create(reviews, review).await["status"].clone();
    assert!(status["authenticated"].is_null(), "{status}");
    let short = cluster.admin(Method::POST, path, json!({"spec": {"expirationSeconds": 60}})).await;
    assert!(short.message().ends_with("may not specify a duration less than 10 minutes"), "{short:?}");
}

#[tokio::test]
async fn watches_tell_what_happens_one_line_each() {
    let cluster = Cluster::new().await;
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da");
    let transport = cluster.server.local_transport(admin());
    let response = transport.call(request(Method::GET, &path, Value::Null)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut lines = response.into_body().into_data_stream();
    cluster.create(MAPS, json!({"metadata": {"name": "b"}})).await;
    cluster.create(MAPS, json!({"metadata": {"name": "a"}})).await;
    let line = lines.next().await.unwrap().unwrap();
    let event: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    cluster.stop.cancel();
    assert!(lines.next().await.is_none(), "a stopping server ends its watches");
}

#[tokio::test]
async fn impersonation_needs_the_right_to_it() {
    let cluster = Cluster::new().await;
    let mut as_jane = request(Method::GET, "/api/v1/namespaces/default/pods", Value::Null);
    as_jane.headers_mut().insert("impersonate-user", "jane".parse().unwrap());
    let refused = cluster.send(admin(), as_jane.clone()).await;
    assert!(refused.message().contains("User \"jane\" cannot list"), "{refused:?}");
    let refused = cluster.send(User::new("joe", &[]), as_jane).await;
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"joe\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" in the \
         namespace \"default\""
    );
}

#[tokio::test]
async fn custom_resources_are_served_once_they_are_defined() {
    let cluster = Cluster::new().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer"}, "color": {"type": "string", "default": "blue"}}}}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.create(definitions, definition).await;
    let transport = cluster.server.local_transport(admin());
    let watch = format!("{definitions}?watch=1&fieldSelector=metadata.name%3Dwidgets.example.com");
    let mut lines =
        transport.call(request(Method::GET, &watch, Value::Null)).await.unwrap().into_body().into_data_stream();
    let is_established = |event: &Value| {
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    };
    while !events(&lines.next().await.unwrap().unwrap()).iter().any(is_established) {}
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let made = cluster.create(widgets, json!({"metadata": {"name": "a"}, "spec": {"size": 1}})).await;
    assert_eq!(made["spec"], json!({"size": 1, "color": "blue"}));
    let refused = cluster.admin(Method::POST, widgets, json!({"metadata": {"name": "b"}, "spec": {}})).await;
    assert_eq!(refused.message(), "Widget.example.com \"b\" is invalid: spec.size: Required value");
    assert_eq!(cluster.get(widgets).await.json()["kind"], "WidgetList");
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(cluster.send(admin(), accepting(widgets, protobuf)).await.code, StatusCode::NOT_ACCEPTABLE);
    let mut post = request(Method::POST, widgets, json!({}));
    post.headers_mut().insert("content-type", protobuf.parse().unwrap());
    assert_eq!(
        cluster.send(admin(), post).await.message(),
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml"
    );

    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}, "spec": {"size": 1}});
    cluster.create(widgets, held).await;
    let deleted = cluster.admin(Method::DELETE, &format!("{definitions}/widgets.example.com"), Value::Null).await;
    assert_eq!(deleted.json()["kind"], "CustomResourceDefinition");
    let held = format!("{widgets}/held");
    while cluster.get(&held).await.json()["metadata"]["deletionTimestamp"].is_null() {
        tokio::task::yield_now().await;
    }
    let released = cluster.admin(Method::PATCH, &held, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(released.code, StatusCode::OK, "the definition waits for its objects");
    while !events(&lines.next().await.unwrap().unwrap()).iter().any(|event| event["type"] == "DELETED") {}
}
