//! The forms of answers and bodies beside JSON: lists and watches in protobuf, metadata alone, CBOR where it is enabled.

mod support;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use pintle_client::Transport;
use pintle_schema::protobuf::Envelope;
use pintle_schema::{cbor, protobuf};
use serde_json::{Value, json};
use support::{Cluster, admin, request};

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
