//! The forms of answers and bodies beside JSON: lists and watches in protobuf, metadata alone, CBOR where it is enabled.

mod support;

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use pintle_client::Transport;
use pintle_schema::protobuf::Envelope;
use pintle_schema::{cbor, protobuf};
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;
use support::{Cluster, Reply, admin, request};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CBOR: &str = "application/cbor";

fn accepting(path: &str, accept: &str) -> Request<Bytes> {
    Request::builder().uri(path).header("accept", accept).body(Bytes::new()).unwrap()
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": "v"}})
}

/// A cluster where CBOR may be spoken.
async fn concise() -> Cluster {
    Cluster::with(|config, _| config.cbor = true).await
}

fn read(bytes: &[u8]) -> Value {
    cbor::decode(bytes, Default::default()).unwrap()
}

#[tokio::test]
async fn pages_of_lists_are_written_from_the_messages_of_their_objects() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.create(MAPS, map(name)).await;
    }
    for path in
        [MAPS.to_owned(), format!("{MAPS}?limit=2"), "/api/v1/secrets".into(), "/apis/apps/v1/daemonsets".into()]
    {
        // The second time the messages are there already.
        for _ in 0..2 {
            let binary = cluster.send(admin(), accepting(&path, PROTOBUF)).await;
            assert_eq!(binary.headers["content-type"], PROTOBUF);
            let list = cluster.get(&path).await.json();
            let shown = Envelope::open(&binary.body).unwrap().object(("", ""), Default::default()).unwrap();
            assert_eq!(shown["items"].as_array().map_or(0, Vec::len), list["items"].as_array().map_or(0, Vec::len));
            assert_eq!(protobuf::encode(&list).unwrap(), binary.body, "{path}");
        }
    }
}

#[tokio::test]
async fn metadata_alone_comes_in_every_form() {
    let cluster = concise().await;
    cluster.create(MAPS, map("a")).await;
    let of = |form: &str, kind: &str| format!("{form};as={kind};g=meta.k8s.io;v=v1");
    let path = format!("{MAPS}/a");
    let one = of("application/json", "PartialObjectMetadata");
    let one = cluster.send(admin(), accepting(&path, &one)).await.json();
    assert_eq!(one["kind"], "PartialObjectMetadata");
    let whole = cluster.send(admin(), accepting(&path, "application/json")).await.json();
    assert_eq!(one, json!({"kind": one["kind"], "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]}));
    let all = of("application/json", "PartialObjectMetadataList");
    let all = cluster.send(admin(), accepting(MAPS, &all)).await.json();
    let own = all["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "a");
    assert_eq!((own, &all["kind"]), (Some(&one), &json!("PartialObjectMetadataList")));
    let binary = cluster.send(admin(), accepting(&path, &of(PROTOBUF, "PartialObjectMetadata"))).await;
    assert_eq!(protobuf::encode(&one).unwrap(), binary.body);
    let short = cluster.send(admin(), accepting(&path, &of(CBOR, "PartialObjectMetadata"))).await;
    assert_eq!(read(&short.body), one);
    let list = cluster.send(admin(), accepting(MAPS, &of(PROTOBUF, "PartialObjectMetadataList"))).await;
    let envelope = Envelope::open(&list.body).unwrap();
    assert_eq!(
        (envelope.api_version.as_str(), envelope.kind.as_str()),
        ("meta.k8s.io/v1", "PartialObjectMetadataList")
    );
    let table = of(PROTOBUF, "Table");
    assert_eq!(cluster.send(admin(), accepting(MAPS, &table)).await.code, 406);
    assert_eq!(
        cluster.send(admin(), accepting(MAPS, &format!("{table},application/json"))).await.json()["kind"],
        "ConfigMapList"
    );
}

#[tokio::test]
async fn nobody_speaks_cbor_unless_it_is_enabled() {
    let cluster = Cluster::new().await;
    let reply = cluster.send(admin(), accepting(MAPS, CBOR)).await;
    assert_eq!(reply.code, 406);
    let mut post = request(Method::POST, MAPS, Value::Null);
    post.headers_mut().insert("content-type", CBOR.parse().unwrap());
    *post.body_mut() = cbor::encode(&map("a")).into();
    assert_eq!(cluster.send(admin(), post).await.code, 415);
    let mut patch = request(Method::PATCH, &format!("{MAPS}/a?fieldManager=m"), Value::Null);
    patch.headers_mut().insert("content-type", "application/apply-patch+cbor".parse().unwrap());
    assert_eq!(cluster.send(admin(), patch).await.code, 415);
}

#[tokio::test]
async fn objects_come_and_go_in_cbor() {
    let cluster = concise().await;
    let with = |method: Method, path: &str, media: &str, body: &Value| {
        let mut request = request(method, path, Value::Null);
        request.headers_mut().insert("content-type", media.parse().unwrap());
        request.headers_mut().insert("accept", CBOR.parse().unwrap());
        *request.body_mut() = cbor::encode(body).into();
        request
    };
    let made = cluster.send(admin(), with(Method::POST, MAPS, CBOR, &map("a"))).await;
    assert_eq!((made.code.as_u16(), &made.headers["content-type"]), (201, &CBOR.parse().unwrap()));
    assert!(made.body.starts_with(&cbor::MAGIC));
    assert_eq!(read(&made.body), cluster.get(&format!("{MAPS}/a")).await.json());
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"l": "w"}});
    let path = format!("{MAPS}/a?fieldManager=m");
    let applied = cluster.send(admin(), with(Method::PATCH, &path, "application/apply-patch+cbor", &config)).await;
    assert_eq!(read(&applied.body)["data"], json!({"k": "v", "l": "w"}));
    let list = cluster.send(admin(), accepting(MAPS, CBOR)).await;
    assert_eq!(read(&list.body), cluster.get(MAPS).await.json());
    let mut broken = with(Method::POST, MAPS, CBOR, &Value::Null);
    *broken.body_mut() = Bytes::from_static(&[0xa1, 0x41]);
    assert_eq!(cluster.send(admin(), broken).await.code, 400);
    let deletion = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]});
    assert_eq!(cluster.send(admin(), with(Method::DELETE, &format!("{MAPS}/a"), CBOR, &deletion)).await.code, 200);
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.code, 200);
}

#[tokio::test]
async fn watches_are_framed_in_every_form() {
    let cluster = concise().await;
    cluster.create(MAPS, map("a")).await;
    let transport = cluster.server.local_transport(admin());
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da");
    let first = async |accept: &str| {
        let response = transport.call(accepting(&path, accept)).await.unwrap();
        let media = response.headers()["content-type"].to_str().unwrap().to_owned();
        (media, response.into_body().into_data_stream().next().await.unwrap().unwrap())
    };
    let object = cluster.get(&format!("{MAPS}/a")).await.json();
    let (media, frame) = first(PROTOBUF).await;
    assert_eq!(media, "application/vnd.kubernetes.protobuf;stream=watch");
    assert_eq!(protobuf::encode_watch_event("ADDED", &object).unwrap(), frame);
    let (media, frame) = first(CBOR).await;
    assert_eq!(media, "application/cbor-seq");
    assert_eq!(read(&frame), json!({"type": "ADDED", "object": object}));
    let (media, frame) = first("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await;
    let alone =
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
    assert!(media == "application/json" && frame.ends_with(b"}\n"));
    assert_eq!(serde_json::from_slice::<Value>(&frame).unwrap(), json!({"type": "ADDED", "object": alone}));
}

#[tokio::test]
async fn people_get_indented_json() {
    let cluster = Cluster::new().await;
    cluster.create(MAPS, map("a")).await;
    let ask = async |path: &str, program: &str| {
        let request = Request::builder().uri(path).header("user-agent", program).header("accept", "*/*");
        let reply = cluster.send(admin(), request.body(Bytes::new()).unwrap()).await;
        (reply.json(), String::from_utf8(reply.body.to_vec()).unwrap())
    };
    let path = format!("{MAPS}/a");
    let (object, plain) = ask(&path, "kubectl/v1.33.0").await;
    assert_eq!(plain.trim_end().lines().count(), 1);
    for (path, program) in
        [(path.clone(), "curl/8.5.0"), (path.clone(), "Mozilla/5.0 (X11)"), (format!("{path}?pretty=true"), "kubectl")]
    {
        let (shown, text) = ask(&path, program).await;
        assert_eq!(shown, object, "{program}");
        assert!(text.starts_with("{\n  \"") && text.ends_with("\n}"), "{program}: {text}");
    }
    assert_eq!(ask(&format!("{path}?pretty=0"), "curl/8.5.0").await.1, plain);
    let (_, missing) = ask(&format!("{MAPS}/b"), "curl/8.5.0").await;
    assert!(missing.starts_with("{\n  \"") && missing.contains("\n  \"code\": 404"), "{missing}");
}

/// The answer to a reader who takes these encodings.
async fn encoded(cluster: &Cluster, path: &str, encodings: &str) -> Reply {
    let mut request = accepting(path, "application/json");
    request.headers_mut().insert("accept-encoding", encodings.parse().unwrap());
    cluster.send(admin(), request).await
}

#[tokio::test]
async fn large_answers_are_packed_for_who_asks() {
    let cluster = Cluster::new().await;
    for name in ["a", "b"] {
        let mut object = map(name);
        object["data"]["k"] = "v".repeat(100 << 10).into();
        cluster.create(MAPS, object).await;
    }
    for encodings in ["gzip", "deflate, gzip", "br,gzip , zstd"] {
        let packed = encoded(&cluster, MAPS, encodings).await;
        assert_eq!(
            (&packed.headers["content-encoding"], &packed.headers["vary"]),
            (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
        );
        assert!(packed.body.len() < 20 << 10, "{} bytes", packed.body.len());
        let mut plain = Vec::new();
        GzDecoder::new(&packed.body[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == cluster.get(MAPS).await.body, "{encodings}");
    }
    // A quality makes it another word; and one of the two is not large.
    for (path, encodings) in [(MAPS, "gzip;q=1.0"), (MAPS, "deflate"), (&format!("{MAPS}/a"), "gzip")] {
        let plain = encoded(&cluster, path, encodings).await;
        assert!(!plain.headers.contains_key("content-encoding"), "{path} {encodings}");
        assert_eq!(plain.json()["apiVersion"], "v1");
    }
    let mut large = map("large");
    large["data"]["k"] = "v".repeat(200 << 10).into();
    let mut post = request(Method::POST, MAPS, large);
    post.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let made = cluster.send(admin(), post).await;
    assert_eq!((made.code.as_u16(), &made.headers["content-encoding"]), (201, &"gzip".parse().unwrap()));
}

#[tokio::test]
async fn the_old_documents_come_in_the_form_that_is_preferred() {
    let cluster = Cluster::new().await;
    let binary = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let json = "application/json";
    let of = async |accept: &str| cluster.send(admin(), accepting("/openapi/v2", accept)).await;
    for (accept, expected) in [
        ("*/*", json),
        ("application/*", json),
        (asked, binary),
        (binary, binary),
        (&format!("{asked}, {json}"), binary),
        (&format!("{json}, {asked}"), json),
        (&format!("{json};q=0.5, {binary}"), binary),
        (&format!("{asked};q=0.1,{json};q=0.2"), json),
        (&format!("text/plain, {asked}, */*"), binary),
    ] {
        let reply = of(accept).await;
        assert_eq!(
            (reply.code.as_u16(), &reply.headers["content-type"]),
            (200, &expected.parse().unwrap()),
            "{accept}"
        );
        // Field 1 of the message is the version of the form.
        let start: &[u8] = if expected == json { b"{\"swagger\":\"2.0\"" } else { b"\x0a\x032.0\x12" };
        assert!(reply.body.starts_with(start), "{accept}: {:?}", &reply.body[..20]);
    }
    let none = of("text/plain").await;
    assert_eq!((none.code.as_u16(), none.body.len()), (406, 0));
    let tag = of(asked).await.headers["etag"].clone();
    assert_ne!(tag, of(json).await.headers["etag"]);
    let mut again = accepting("/openapi/v2", asked);
    again.headers_mut().insert("if-none-match", tag);
    assert_eq!(cluster.send(admin(), again).await.code, 304);
}

#[tokio::test]
async fn watches_end_when_their_time_is_over() {
    let cluster = Cluster::new().await;
    let transport = cluster.server.local_transport(admin());
    tokio::time::pause();
    for (more, forms) in [("", "application/json"), ("&allowWatchBookmarks=true", PROTOBUF)] {
        let path = format!("{MAPS}?watch=1&timeoutSeconds=7{more}");
        let began = tokio::time::Instant::now();
        let mut frames = transport.call(accepting(&path, forms)).await.unwrap().into_body().into_data_stream();
        while let Some(frame) = frames.next().await {
            frame.unwrap();
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(7) && took < Duration::from_secs(8), "{took:?}");
    }
}
