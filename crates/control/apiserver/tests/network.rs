//! Over TLS: who clients are, and what is passed on to kubelets.

mod support;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use pintle_client::{HttpConfig, HttpTransport, Token, Transport, collect};
use pintle_pki::{ClientCertificates, Identity, client_config, client_config_http1, server_config};
use serde_json::{Value, json};
use std::net::SocketAddr;
use support::{Cluster, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const WHOAMI: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Serves the cluster on a free port.
async fn serve(cluster: &Cluster) -> SocketAddr {
    let bound = cluster.server.bind().await.unwrap();
    let address = bound.address();
    tokio::spawn(bound.serve(cluster.stop.clone()));
    address
}

async fn whoami(
    cluster: &Cluster,
    address: SocketAddr,
    client: Option<&Identity>,
    token: Option<&str>,
) -> (StatusCode, Value) {
    let config = HttpConfig {
        server: format!("https://{address}").parse().unwrap(),
        tls: Some(client_config(cluster.authority.certificate_pem(), client).unwrap()),
        server_name: None,
        token: token.map(|t| Token::Fixed(t.into())),
    };
    let transport = HttpTransport::new(config).unwrap();
    let response = transport.call(request(Method::POST, WHOAMI, json!({}))).await.unwrap();
    let code = response.status();
    let body = collect(response.into_body(), 1 << 20).await.unwrap();
    (code, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn certificates_tokens_and_nobody_are_told_apart() {
    let cluster = Cluster::new().await;
    let address = serve(&cluster).await;
    let now = pintle_clock::system().now();
    let jane = cluster.authority.issue_client("jane", &["dev"], now).unwrap();
    let (code, review) = whoami(&cluster, address, Some(&jane), None).await;
    assert_eq!(code, StatusCode::CREATED, "{review}");
    let user = &review["status"]["userInfo"];
    assert_eq!((&user["username"], &user["groups"]), (&json!("jane"), &json!(["dev", "system:authenticated"])));
    let (_, review) = whoami(&cluster, address, None, Some("s3cret")).await;
    assert_eq!(review["status"]["userInfo"]["username"], "robot");
    let (code, refused) = whoami(&cluster, address, None, Some("wrong")).await;
    assert_eq!((code, &refused["message"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
    let (code, refused) = whoami(&cluster, address, None, None).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(refused["message"].as_str().unwrap().contains("User \"system:anonymous\" cannot create"), "{refused}");
}

/// A kubelet that upgrades `/exec/…/good` to an echo, and refuses everything else.
async fn kubelet(cluster: &Cluster) -> SocketAddr {
    let identity = cluster.authority.issue_server("node", &["127.0.0.1".into()], pintle_clock::system().now()).unwrap();
    let tls = server_config(&identity, ClientCertificates::Required(cluster.authority.certificate_pem())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(tls.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let head = read_head(&mut stream).await;
                if head.starts_with("GET /containerLogs/default/p/a?follow=true") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nline").await.unwrap();
                } else if head.contains("/exec/default/p/a?command=sh&input=1") {
                    stream
                        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
                        .await
                        .unwrap();
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                } else if let Some(answer) = page(&head) {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                } else {
                    stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 6\r\n\r\nno way").await.unwrap();
                    let mut more = [0; 64];
                    let read = stream.read(&mut more).await.unwrap_or(0);
                    assert_eq!(read, 0, "a refusing kubelet saw more of the client's bytes");
                }
            });
        }
    });
    address
}

/// What the kubelet serves to people: a page that tells what arrived, and a redirection.
fn page(head: &str) -> Option<String> {
    if head.starts_with("GET /moved") {
        return Some("HTTP/1.1 302 Found\r\nlocation: /page/?a=/b\r\ncontent-length: 0\r\n\r\n".into());
    }
    let (line, _) =
        head.split_once("\r\n").filter(|(line, _)| line.contains(" /page") || line.starts_with("POST / "))?;
    let told = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().to_owned();
    let body = format!("<a href='/x'>{line}|{}|{}</a>", told("host: "), told("x-forwarded-uri: "));
    let length = body.len();
    let head = format!("content-type: text/html\r\naccess-control-allow-origin: *\r\ncontent-length: {length}");
    Some(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"))
}

async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A node at the kubelet's address and a pod with two containers on it.
async fn pod_on_node(cluster: &Cluster, kubelet: SocketAddr) {
    cluster.default_account("default").await;
    cluster.create("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": kubelet.ip().to_string()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port()}}}});
    let patched = cluster.admin(Method::PATCH, "/api/v1/nodes/n/status", status).await;
    assert_eq!(patched.code, StatusCode::OK, "{patched:?}");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}});
    cluster.create("/api/v1/namespaces/default/pods", pod).await;
}

async fn with_kubelet() -> (Cluster, SocketAddr) {
    let cluster = Cluster::with(|config, authority| {
        let client =
            authority.issue_client("kube-apiserver", &["system:masters"], pintle_clock::system().now()).unwrap();
        config.kubelet_tls = Some(client_config_http1(authority.certificate_pem(), Some(&client)).unwrap());
    })
    .await;
    let kubelet = kubelet(&cluster).await;
    pod_on_node(&cluster, kubelet).await;
    let address = serve(&cluster).await;
    (cluster, address)
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let (cluster, _) = with_kubelet().await;
    let log = "/api/v1/namespaces/default/pods/p/log";
    let reply = cluster.get(&format!("{log}?container=a&follow=true")).await;
    assert_eq!((reply.code, &reply.body[..]), (StatusCode::OK, &b"line"[..]));
    let reply = cluster.get(log).await;
    assert_eq!(reply.message(), "a container name must be specified for pod p, choose one of: [a b]");
    let reply = cluster.get(&format!("{log}?container=b")).await;
    assert_eq!((reply.code, reply.message()), (StatusCode::BAD_REQUEST, "no way".to_owned()));
}

type Switched = TokioIo<hyper::upgrade::Upgraded>;

/// Asks for an upgrade over HTTP/1.1 and answers the status with the connection, if it was upgraded.
async fn upgrade(cluster: &Cluster, address: SocketAddr, path: &str) -> (StatusCode, Option<Switched>) {
    upgrade_with(cluster, address, path, &[("upgrade", "x")]).await
}

async fn upgrade_with(
    cluster: &Cluster,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, Option<Switched>) {
    let admin = cluster.authority.issue_client("admin", &["system:masters"], pintle_clock::system().now()).unwrap();
    let tls = client_config_http1(cluster.authority.certificate_pem(), Some(&admin)).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(path).header("host", "api").header("connection", "Upgrade");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    let code = response.status();
    if code != StatusCode::SWITCHING_PROTOCOLS {
        response.body_mut().collect().await.unwrap();
        return (code, None);
    }
    (code, Some(TokioIo::new(hyper::upgrade::on(response).await.unwrap())))
}

#[tokio::test]
async fn upgrades_are_passed_on_byte_for_byte_or_not_at_all() {
    let (cluster, address) = with_kubelet().await;
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true&stdout=true&container=";
    let (code, stream) = upgrade(&cluster, address, &format!("{exec}a")).await;
    assert_eq!(code, StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = stream.unwrap();
    stream.write_all(b"echo me").await.unwrap();
    let mut back = [0; 7];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"echo me");
    let (code, stream) = upgrade(&cluster, address, &format!("{exec}b")).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(stream.is_none());
    let (code, _) = upgrade(&cluster, address, &format!("{exec}none")).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
}

/// A WebSocket of a client that only listens.
async fn listen(
    cluster: &Cluster,
    address: SocketAddr,
    path: &str,
    more: &[(&str, &str)],
) -> Result<WebSocketStream<Switched>, StatusCode> {
    let usual = [("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "AAAAAAAAAAA=")];
    let (code, stream) = upgrade_with(cluster, address, path, &[&usual[..], more].concat()).await;
    Ok(WebSocketStream::from_raw_socket(stream.ok_or(code)?, Role::Client, None).await)
}

#[tokio::test]
async fn logs_are_told_over_websockets() {
    let (cluster, address) = with_kubelet().await;
    let log = "/api/v1/namespaces/default/pods/p/log?follow=true&container=a";
    let line = [(&[][..], Message::binary("line")), (&["base64.binary.k8s.io"], Message::text("bGluZQ=="))];
    for (protocols, expected) in line {
        let headers: Vec<_> = protocols.iter().map(|name| ("sec-websocket-protocol", *name)).collect();
        let mut socket = listen(&cluster, address, log, &headers).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_empty(), "the first message has something to say");
        assert_eq!(socket.next().await.unwrap().unwrap(), expected);
        assert!(socket.next().await.unwrap().unwrap().is_close());
    }
    let unknown = listen(&cluster, address, log, &[("sec-websocket-protocol", "v5.channel.k8s.io")]).await;
    assert_eq!(unknown.unwrap_err(), StatusCode::FORBIDDEN);
    let other = listen(&cluster, address, &log.replace("=a", "=b"), &[]).await;
    assert_eq!(other.unwrap_err(), StatusCode::BAD_REQUEST, "the kubelet's refusal");
}

#[tokio::test]
async fn watches_are_told_over_websockets() {
    let cluster = Cluster::new().await;
    let address = serve(&cluster).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let from_here = ("origin", "http://here");
    let mut told = listen(&cluster, address, &format!("{maps}?watch=1"), &[from_here]).await.unwrap();
    let binary = ("accept", "application/vnd.kubernetes.protobuf");
    let mut packed = listen(&cluster, address, &format!("{maps}?watch=1"), &[from_here, binary]).await.unwrap();
    for name in ["one", "two"] {
        cluster.create(maps, json!({"metadata": {"name": name}})).await;
        let event = told.next().await.unwrap().unwrap().into_text().unwrap();
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
        // The first field of an event is its type: no length stands before it.
        let event = packed.next().await.unwrap().unwrap();
        assert!(event.is_binary() && event.into_data().starts_with(b"\x0a\x05ADDED"));
    }
    let nobody = listen(&cluster, address, &format!("{maps}?watch=1"), &[]).await;
    assert_eq!(nobody.unwrap_err(), StatusCode::FORBIDDEN);
    cluster.stop.cancel();
    while let Some(Ok(message)) = told.next().await {
        assert!(message.is_close(), "{message:?}");
    }
}

#[tokio::test]
async fn what_is_behind_the_proxy_leads_through_it() {
    let (cluster, _) = with_kubelet().await;
    let proxy = "/api/v1/nodes/n/proxy";
    let ask = async |method: Method, path: &str| {
        let mut request = request(method, &format!("{proxy}{path}"), Value::Null);
        request.headers_mut().insert("host", "api.example:6443".parse().unwrap());
        cluster.send(support::admin(), request).await
    };
    for (path, behind) in [("/page/?q=/1", "/page/?q=/1"), ("/page/a%2Fb", "/page/a%2Fb")] {
        let reply = ask(Method::GET, path).await;
        let uri = path.split('?').next().unwrap();
        let told = format!("<a href='{proxy}/x'>GET {behind} HTTP/1.1|api.example:6443|{proxy}{uri}</a>");
        assert_eq!(String::from_utf8_lossy(&reply.body), told);
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
    }
    let moved = ask(Method::GET, "/moved").await;
    assert_eq!(
        (moved.code, &moved.headers["location"]),
        (StatusCode::FOUND, &format!("{proxy}/page/?a=/b").parse().unwrap())
    );
    let bare = ask(Method::GET, "").await;
    assert_eq!(
        (bare.code, &bare.headers["location"]),
        (StatusCode::MOVED_PERMANENTLY, &format!("{proxy}/").parse().unwrap())
    );
    // Only who reads is sent to the slash.
    let posted = ask(Method::POST, "").await;
    assert!(posted.body.starts_with(format!("<a href='{proxy}/x'>POST / HTTP/1.1|").as_bytes()), "{posted:?}");
}
