//! Requests over a real connection, watches in pieces, kubeconfigs good and bad.

use crate::{
    Body, BoxError, Client, EventType, HttpConfig, HttpTransport, Kubeconfig, KubeconfigError, ListOptions, RawWatch,
    Token, Transport, TransportError, Watch, WatchEvent, body_from,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pintle_types::k8s::api::core::v1::{ConfigMap, Pod};
use pintle_types::{Kind, Status};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Answers what it is told to, and remembers what it was asked.
struct Canned<F>(F);

#[async_trait::async_trait]
impl<F> Transport for Canned<F>
where
    F: Fn(&Request<Bytes>) -> Response<Body> + Send + Sync + 'static,
{
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        Ok((self.0)(&request))
    }
}

fn client(answer: impl Fn(&Request<Bytes>) -> Response<Body> + Send + Sync + 'static) -> Client {
    Client::new(Arc::new(Canned(answer)))
}

fn failure(status: &Status) -> Response<Body> {
    let mut response = Response::new(body_from(status.to_json()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap();
    response
}

#[tokio::test(start_paused = true)]
async fn what_is_served_is_asked_until_there_is_an_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let client = client(move |request| match (request.uri().path(), count.fetch_add(1, Ordering::SeqCst)) {
        (_, 0) => failure(&Status::internal("not yet")),
        ("/apis/batch/v1", _) => Response::new(body_from(r#"{"kind":"APIResourceList"}"#)),
        (path, _) => failure(&Status::not_found("", "", path)),
    });
    assert!(client.serves("/apis/batch/v1").await);
    assert!(!client.serves("/apis/batch/v9").await);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let client = client(|request| {
        let page = match request.uri().query().unwrap() {
            "limit=2" => r#"{"metadata":{"resourceVersion":"7","continue":"a b"},"items":[{"metadata":{"name":"x"}}]}"#,
            "limit=2&continue=a%20b" => r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"y"}}]}"#,
            other => panic!("{other}"),
        };
        Response::new(body_from(page))
    });
    let options = ListOptions { limit: 2, ..ListOptions::default() };
    let list = client.list::<ConfigMap>("default", &options).await.unwrap();
    let names: Vec<&str> = list.items.iter().map(ConfigMap::name).collect();
    assert_eq!((names, list.resource_version.as_str()), (vec!["x", "y"], "7"));
}

#[tokio::test]
async fn refusals_come_out_as_their_status() {
    let missing = client(|_| failure(&Status::not_found("", "pods", "web")));
    assert!(missing.get::<Pod>("d", "web").await.unwrap_err().is_not_found());
    assert!(missing.get_opt::<Pod>("d", "web").await.unwrap().is_none());
    let broken = client(|_| {
        let mut response = Response::new(body_from("no healthy upstream"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    let error = broken.get::<Pod>("d", "web").await.unwrap_err();
    assert!(error.to_string().contains("no healthy upstream"), "{error}");
    let nonsense = client(|_| Response::new(body_from("{")));
    assert!(matches!(nonsense.get::<Pod>("d", "web").await, Err(crate::ClientError::Decode(_))));
}

struct Silent;

#[async_trait::async_trait]
impl Transport for Silent {
    async fn call(&self, _request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    let client = Client::new(Arc::new(Silent)).with_timeout(Duration::from_secs(5));
    let error = client.get::<Pod>("d", "web").await.unwrap_err();
    assert_eq!(error.to_string(), "GET /api/v1/namespaces/d/pods/web: no answer within 5s");
}

fn pieces(text: &'static [&'static str]) -> Body {
    let frames = futures::stream::iter(text.iter().map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from(*text)))));
    Body::new(StreamBody::new(frames))
}

#[tokio::test]
async fn watch_events_may_come_in_any_pieces() {
    let body = pieces(&[
        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\"",
        ":\"a\",\"resourceVersion\":\"1\"}}}\n\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"5\",",
        "\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n",
    ]);
    let events: Vec<WatchEvent<Pod>> = Watch::new(RawWatch::new(body)).try_collect().await.unwrap();
    assert!(matches!(&events[0], WatchEvent::Added(pod) if pod.name() == "a"));
    assert_eq!(events[1], WatchEvent::Bookmark { resource_version: "5".into(), initial_events_end: true });
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn a_watch_ends_with_what_went_wrong() {
    let gone = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"Expired\",\
                \"code\":410}}\n";
    let mut watch = RawWatch::new(body_from(gone));
    assert!(watch.next().await.unwrap().unwrap_err().is_gone());
    assert!(watch.next().await.is_none());
    let mut half = RawWatch::new(body_from("{\"type\":"));
    assert!(half.next().await.unwrap().is_err());
    let mut endless = RawWatch::new(body_from(vec![b'x'; (16 << 20) + 1]));
    assert!(endless.next().await.unwrap().unwrap_err().to_string().contains("longer than"));
    let mut strange = RawWatch::new(body_from("{\"type\":\"NEW\",\"object\":{}}\n"));
    assert!(strange.next().await.unwrap().unwrap_err().to_string().contains("\"NEW\""));
    let deleted = body_from("{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n");
    let event = RawWatch::new(deleted).next().await.unwrap().unwrap();
    assert_eq!((event.event_type, event.resource_version().unwrap().as_str()), (EventType::Deleted, "9"));
}

/// Serves connections one after the other, each for `requests` requests; answers with the token it was given.
async fn serve(listener: TcpListener, connections: Arc<AtomicUsize>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.fetch_add(1, Ordering::Relaxed);
        let (closing, closed) = tokio::sync::watch::channel(false);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let closing = closing.clone();
            async move {
                let token = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
                let answer = format!("{} {token}", request.uri().path());
                let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                if &body[..] == b"close" {
                    closing.send_replace(true);
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
            }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut closed = closed;
        tokio::select! {
            _ = connection.as_mut() => continue,
            _ = closed.wait_for(|closed| *closed) => (),
        }
        connection.as_mut().graceful_shutdown();
        let _ended = connection.await;
    }
}

#[tokio::test]
async fn a_connection_is_shared_and_made_anew_when_it_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let serving = tokio::spawn(serve(listener, connections.clone()));
    let config = HttpConfig { server, tls: None, server_name: None, token: Some(Token::Fixed("secret".into())) };
    let client = Client::new(Arc::new(HttpTransport::new(config).unwrap()));
    let ask = async |body: &'static str| {
        let request = Request::post("/healthz").body(Bytes::from(body)).unwrap();
        let body = client.raw(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert_eq!(ask("").await, "/healthz Bearer secret");
    let both = tokio::join!(ask(""), ask("close"));
    assert_eq!(both.0, both.1);
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert_eq!(ask("").await, "/healthz Bearer secret");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    serving.abort();
}

fn kubeconfig(folder: &Path, cluster: &str, user: &str) -> Result<Kubeconfig, KubeconfigError> {
    let path = folder.join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{name: here, context: {{cluster: c, user: u, namespace: team}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    Kubeconfig::load(path)
}

#[tokio::test]
async fn kubeconfigs_are_read_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = kubeconfig(folder.path(), "server: 'http://10.0.0.1:8080'", "tokenFile: token").unwrap();
    assert_eq!((good.server(), good.namespace.as_deref()), ("http://10.0.0.1:8080", Some("team")));
    assert!(good.transport().is_ok());
    for (cluster, user, expected) in [
        ("server: x, insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify is not supported"),
        ("server: x", "exec: {command: aws}", "exec is not supported"),
        ("server: x", "username: me", "username is not supported"),
    ] {
        let error = kubeconfig(folder.path(), cluster, user).err().expect("it is refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    for (cluster, user, expected) in [
        ("server: 'https://h'", "", "certificate-authority: is needed for https"),
        ("server: 'https://h', certificate-authority-data: '*'", "", "certificate-authority: Invalid"),
        ("server: 'https://h', certificate-authority-data: ''", "", "holds no certificate"),
        ("server: 'ftp://h'", "", "begins with neither"),
    ] {
        let config = kubeconfig(folder.path(), cluster, user).unwrap();
        let error = config.transport().err().expect("it is refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(matches!(Kubeconfig::load(folder.path().join("none")), Err(KubeconfigError::Read { .. })));
}

#[test]
fn broken_kubeconfigs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
                contexts:\n- {name: here, context: {cluster: c, user: u}}\n\
                clusters:\n- name: c\n  cluster: &c {server: 'https://h:1', certificate-authority-data: LS0tCg==}\n\
                users:\n- name: u\n  user: {token: t, client-key-data: '-----BEGIN'}\n";
    pintle_noise::feed(&[text.as_bytes()], 300, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        if let Ok(config) = Kubeconfig::load(&path) {
            let _ = config.transport().is_ok();
        }
    });
}
