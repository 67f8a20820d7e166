//! Another API server behind this one, and a webhook that converts: both on small TLS servers of their own.

mod support;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pintle_apiserver::User;
use pintle_client::Transport;
use pintle_pki::{CertificateAuthority, ClientCertificates, server_config};
use serde_json::{Value, json};
use std::sync::Arc;
use support::{Cluster, request};
use tokio::net::TcpListener;

type Handler = Arc<dyn Fn(&http::request::Parts, Value) -> (StatusCode, Value) + Send + Sync>;

/// A TLS server that answers until it is dropped.
struct Other {
    port: u16,
    ca: String,
    serving: tokio::task::JoinHandle<()>,
    _keys: tempfile::TempDir,
}

impl Drop for Other {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(names: &[&str], handler: Handler) -> Other {
    let keys = tempfile::tempdir().unwrap();
    let now = pintle_clock::system().now();
    let authority = CertificateAuthority::load_or_create(keys.path(), "ca", now).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let identity = authority.issue_server("other", &names, now).unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(server_config(&identity, ClientCertificates::Ignored).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, handler) = (tls.clone(), handler.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| answer(request, handler.clone()));
                // The end of a connection is the client's business.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Other { port, ca: authority.certificate_pem().to_owned(), serving, _keys: keys }
}

async fn answer(request: Request<Incoming>, handler: Handler) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (code, value) = handler(&parts, serde_json::from_slice(&body).unwrap_or_default());
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    if let Some(location) = value["location"].as_str() {
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    Ok(response)
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn things(parts: &http::request::Parts, body: Value) -> (StatusCode, Value) {
    let header = |name: &str| {
        let values = parts.headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.collect::<Vec<_>>().join(",")
    };
    match parts.uri.path() {
        "/apis/other.io/v1" => (
            StatusCode::OK,
            json!({"kind": "APIResourceList", "groupVersion": "other.io/v1", "resources": [
                {"name": "things", "singularName": "thing", "namespaced": false, "kind": "Thing", "verbs": ["get"]},
            ]}),
        ),
        "/openapi/v3" => (
            StatusCode::OK,
            json!({"paths": {"apis/other.io/v1": {"serverRelativeURL": "/openapi/v3/apis/other.io/v1?hash=ABC"}}}),
        ),
        "/openapi/v3/apis/other.io/v1" => (StatusCode::OK, json!({"openapi": "3.0.0", "own": true})),
        "/openapi/v2" => {
            (StatusCode::OK, json!({"paths": {"/apis/other.io/v1/things": {"get": {}}}, "definitions": {}}))
        }
        "/apis/other.io/v1/things/away" => (StatusCode::FOUND, json!({"location": "https://elsewhere/"})),
        "/apis/other.io/v1/things/same" => (StatusCode::NOT_MODIFIED, json!({})),
        path if path.starts_with("/apis/other.io/v1/things") => (
            StatusCode::OK,
            json!({
                "path": parts.uri.to_string().split("/apis").nth(1), "method": parts.method.as_str(), "body": body,
                "user": header("x-remote-user"), "groups": header("x-remote-group"), "extra": header("x-remote-extra-a"),
                "token": header("authorization"),
            }),
        ),
        _ => (StatusCode::NOT_FOUND, json!({})),
    }
}

/// Waits until an APIService has a condition, without asking again and again.
async fn until(cluster: &Cluster, name: &str, reason: &str) -> Value {
    let path = format!("/apis/apiregistration.k8s.io/v1/apiservices?watch=1&fieldSelector=metadata.name%3D{name}");
    let response =
        cluster.server.local_transport(support::admin()).call(request(Method::GET, &path, Value::Null)).await;
    let mut body = response.unwrap().into_body().into_data_stream();
    while let Some(frame) = body.next().await {
        let event: Value = serde_json::from_slice(&frame.unwrap()).unwrap();
        let found = event["object"]["status"]["conditions"][0].clone();
        if found["reason"] == reason {
            return found;
        }
    }
    panic!("the watch ended before {reason}");
}

async fn register(cluster: &Cluster, other: &Other) {
    let services = "/api/v1/namespaces/default/services";
    let external = json!({"type": "ExternalName", "externalName": "localhost"});
    cluster.create(services, json!({"metadata": {"name": "other"}, "spec": external})).await;
    let spec = json!({"group": "other.io", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 10,
        "caBundle": base64(&other.ca), "service": {"namespace": "default", "name": "other", "port": other.port}});
    let object = json!({"metadata": {"name": "v1.other.io"}, "spec": spec});
    cluster.create("/apis/apiregistration.k8s.io/v1/apiservices", object).await;
}

#[tokio::test]
async fn another_server_answers_for_its_group() {
    let other = serve(&["other.default.svc"], Arc::new(things)).await;
    let cluster = Cluster::new().await;
    register(&cluster, &other).await;
    until(&cluster, "v1.other.io", "Passed").await;
    let mut user = User::new("jo", &["system:masters"]);
    user.extra.insert("a".into(), vec!["x".into()]);
    let asked = request(Method::PUT, "/apis/other.io/v1/things/a?x=1", json!({"k": 1}));
    let seen = cluster.send(user, asked).await.json();
    let expected = json!({"path": "/other.io/v1/things/a?x=1", "method": "PUT", "body": {"k": 1}, "user": "jo",
        "groups": "system:masters,system:authenticated", "extra": "x", "token": ""});
    assert_eq!(seen, expected);
    // Nobody is sent elsewhere with what they show to this server.
    let away = cluster.get("/apis/other.io/v1/things/away").await;
    let words = &b"the backend attempted to redirect this request, which is not permitted"[..];
    assert_eq!((away.code, &away.body[..], away.headers.get("location")), (StatusCode::BAD_GATEWAY, words, None));
    assert_eq!(cluster.get("/apis/other.io/v1/things/same").await.code, StatusCode::NOT_MODIFIED);
    let groups = cluster.get("/apis").await.json();
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "other.io"), "{groups}");
    assert_eq!(cluster.get("/apis/other.io").await.json()["preferredVersion"]["version"], "v1");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = Request::builder().uri("/apis").header("accept", accept).body(Bytes::new()).unwrap();
    let all = cluster.send(support::admin(), all).await.json();
    let found = all["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "other.io").unwrap().clone();
    assert_eq!(found["versions"][0]["freshness"], "Current");
    assert_eq!(found["versions"][0]["resources"][0]["resource"], "things");
    let index = cluster.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/other.io/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(cluster.get(&url).await.json()["own"], true);
    let swagger = cluster.get("/openapi/v2").await.json();
    assert!(swagger["paths"]["/apis/other.io/v1/things"].is_object());
}

#[tokio::test]
async fn what_is_not_available_is_said_so() {
    let cluster = Cluster::new().await;
    let spec = json!({"group": "gone.io", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 10,
        "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "gone"}});
    let object = json!({"metadata": {"name": "v1.gone.io"}, "spec": spec});
    cluster.create("/apis/apiregistration.k8s.io/v1/apiservices", object).await;
    let found = until(&cluster, "v1.gone.io", "ServiceNotFound").await;
    assert_eq!(found["message"], "service/gone in \"default\" is not present");
    let reply = cluster.get("/apis/gone.io/v1/things").await;
    assert_eq!((reply.code, &reply.body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"service unavailable\n"[..]));
    let ports = json!({"ports": [{"port": 443}]});
    cluster.create("/api/v1/namespaces/default/services", json!({"metadata": {"name": "gone"}, "spec": ports})).await;
    until(&cluster, "v1.gone.io", "EndpointsNotFound").await;
    let deleted = "/apis/apiregistration.k8s.io/v1/apiservices/v1.gone.io";
    cluster.admin(Method::DELETE, deleted, Value::Null).await;
}

/// Widgets have a `size` in v1, which is a `width` in v2.
fn convert(parts: &http::request::Parts, review: Value) -> (StatusCode, Value) {
    assert_eq!(parts.uri.path(), "/convert");
    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap().to_owned();
    let (from, to) = if wanted.ends_with("v1") { ("width", "size") } else { ("size", "width") };
    let objects = review["request"]["objects"].as_array().unwrap().iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.clone().into();
        if let Some(value) = object["spec"].as_object_mut().and_then(|spec| spec.remove(from)) {
            object["spec"][to] = value;
        }
        object
    });
    let objects: Vec<Value> = objects.collect();
    let fails = objects.iter().any(|object| object["spec"]["bad"] == true);
    let result = if fails { json!({"status": "Failed", "message": "never"}) } else { json!({"status": "Success"}) };
    let response = json!({"uid": review["request"]["uid"], "result": result, "convertedObjects": objects});
    let kind = "ConversionReview";
    (StatusCode::OK, json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": kind, "response": response}))
}

fn version(name: &str, field: &str, stored: bool) -> Value {
    json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"spec": {"type": "object", "properties": {
            field: {"type": "integer"}, "bad": {"type": "boolean"}, "extra": {"type": "string", "default": name},
        }}},
    }}})
}

async fn define(cluster: &Cluster, other: &Other) {
    let config = json!({"url": format!("https://localhost:{}/convert", other.port), "caBundle": base64(&other.ca)});
    let webhook = json!({"clientConfig": config, "conversionReviewVersions": ["v1"]});
    let object = json!({"metadata": {"name": "widgets.w.io"}, "spec": {
        "group": "w.io", "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
        "conversion": {"strategy": "Webhook", "webhook": webhook},
        "versions": [version("v1", "size", true), version("v2", "width", false)],
    }});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let response = cluster.server.local_transport(support::admin());
    cluster.create(path, object).await;
    let watch = request(Method::GET, &format!("{path}?watch=1"), Value::Null);
    let mut events = response.call(watch).await.unwrap().into_body().into_data_stream();
    while let Some(frame) = events.next().await {
        let event: Value = serde_json::from_slice(&frame.unwrap()).unwrap();
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            return;
        }
    }
}

#[tokio::test]
async fn a_webhook_converts_in_both_directions() {
    let other = serve(&["localhost"], Arc::new(convert)).await;
    let cluster = Cluster::new().await;
    define(&cluster, &other).await;
    let (v1, v2) = ("/apis/w.io/v1/widgets", "/apis/w.io/v2/widgets");
    let made = cluster
        .create(
            v2,
            json!({"apiVersion": "w.io/v2", "kind": "Widget", "metadata": {"name": "a"},
                                         "spec": {"width": 3}}),
        )
        .await;
    assert_eq!(made["spec"], json!({"width": 3, "extra": "v2"}));
    assert_eq!(cluster.get(&format!("{v1}/a")).await.json()["spec"], json!({"size": 3, "extra": "v2"}));
    let list = cluster.get(v2).await.json();
    assert_eq!(list["items"][0]["spec"]["width"], 3);
    let patched = cluster.admin(Method::PATCH, &format!("{v2}/a"), json!({"spec": {"width": 4}})).await;
    assert_eq!(patched.json()["spec"]["width"], 4, "{patched:?}");
    assert_eq!(cluster.get(&format!("{v1}/a")).await.json()["spec"]["size"], 4);
    let bad = json!({"apiVersion": "w.io/v2", "kind": "Widget", "metadata": {"name": "b"}, "spec": {"bad": true}});
    let refused = cluster.admin(Method::POST, v2, bad).await;
    assert_eq!(refused.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused.message(), "conversion webhook for w.io/v2, Kind=Widget failed: never");
}
