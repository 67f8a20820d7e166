//! Extenders over a small server on this machine: each verb, and what goes wrong.

use super::{Extender, Settings};
use crate::PodInfo;
use crate::preemption::Offer;
use crate::tests::{node, pod};
use pintle_types::k8s::api::core::v1::Node;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Answers one request with `code` and `answer`; gives what was asked: the path and the question.
async fn serve(code: u16, answer: Value) -> (String, JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/scheduler/", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        let (path, question) = loop {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the request is whole before the connection ends");
            text.extend_from_slice(&buffer[..read]);
            let so_far = String::from_utf8_lossy(&text);
            let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
            if let Ok(question) = serde_json::from_str::<Value>(body) {
                assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
                break (head.split(' ').nth(1).unwrap().to_owned(), question);
            }
        };
        let body = answer.to_string();
        let head = format!("HTTP/1.1 {code} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        (path, question)
    });
    (url, served)
}

fn extender(url: &str, more: impl FnOnce(&mut Settings)) -> Extender {
    let mut settings = Settings { url: url.to_owned(), timeout: Duration::from_secs(5), ..Settings::default() };
    more(&mut settings);
    Extender::new(settings).unwrap()
}

fn two() -> Vec<Arc<Node>> {
    vec![node("a", json!({})), node("b", json!({}))]
}

#[tokio::test]
async fn a_filter_takes_nodes_out_by_name() {
    let answer = json!({ "nodenames": ["b"], "failedNodes": { "a": "no" }, "FailedAndUnresolvableNodes": {} });
    let (url, served) = serve(200, answer).await;
    let extender = extender(&url, |s| (s.filter, s.knows_nodes) = ("filter".into(), true));
    let filtered = extender.filter(&pod("p", json!({})), &two()).await.unwrap();
    assert_eq!((filtered.nodes, filtered.failed["a"].as_str()), (vec!["b".to_owned()], "no"));
    let (path, question) = served.await.unwrap();
    assert_eq!((path.as_str(), &question["NodeNames"]), ("/scheduler/filter", &json!(["a", "b"])));
    assert_eq!((question["Pod"]["metadata"]["name"].as_str(), &question["Nodes"]), (Some("p"), &Value::Null));
}

#[tokio::test]
async fn whole_nodes_are_sent_to_a_server_that_knows_none() {
    let (url, served) = serve(200, json!({ "Nodes": { "items": [{ "metadata": { "name": "a" } }] } })).await;
    let extender = extender(&url, |s| s.filter = "f".into());
    assert_eq!(extender.filter(&pod("p", json!({})), &two()).await.unwrap().nodes, ["a"]);
    let (_, question) = served.await.unwrap();
    assert_eq!(question["Nodes"]["items"][1]["metadata"]["name"], "b");
}

#[tokio::test]
async fn scores_are_weighed_and_brought_to_the_scale_of_plugins() {
    let (url, _served) = serve(200, json!([{ "Host": "a", "Score": 10 }, { "Host": "b", "Score": 3 }])).await;
    let extender = extender(&url, |s| (s.prioritize, s.weight) = ("p".into(), 2));
    let scores = extender.prioritize(&pod("p", json!({})), &two()).await.unwrap();
    assert_eq!((scores["a"], scores["b"]), (200, 60));
}

fn victim(name: &str) -> Arc<PodInfo> {
    pod(name, json!({ "metadata": { "uid": format!("uid-{name}") } }))
}

#[tokio::test]
async fn offers_to_make_room_are_left_with_fewer_victims() {
    let chosen = json!({ "NodeNameToMetaVictims": { "b": { "Pods": [{ "UID": "uid-y" }], "NumPDBViolations": 1 } } });
    let (url, served) = serve(200, chosen).await;
    let extender = extender(&url, |s| (s.preempt, s.knows_nodes) = ("preempt".into(), true));
    let offer = |node: &str, victims: &[&str]| Offer {
        node: node.into(),
        victims: victims.iter().map(|name| victim(name)).collect(),
        violations: 0,
    };
    let left = extender.preempt(&pod("p", json!({})), vec![offer("a", &["x"]), offer("b", &["y", "z"])]).await.unwrap();
    assert_eq!((left.len(), left[0].node.as_str(), left[0].violations), (1, "b", 1));
    assert_eq!(left[0].victims[0].key.name, "y");
    let (_, question) = served.await.unwrap();
    assert_eq!(question["NodeNameToMetaVictims"]["a"]["Pods"], json!([{ "UID": "uid-x" }]));
}

#[tokio::test]
async fn a_binding_says_which_pod_goes_where() {
    let (url, served) = serve(200, json!({ "Error": "" })).await;
    let extender = extender(&url, |s| s.bind = "bind".into());
    extender.bind(&victim("p"), "a").await.unwrap();
    let expected = json!({ "PodName": "p", "PodNamespace": "default", "PodUID": "uid-p", "Node": "a" });
    assert_eq!(served.await.unwrap().1, expected);
}

#[tokio::test]
async fn failures_say_who_failed_and_how() {
    let filter = async |code, answer| {
        let (url, _served) = serve(code, answer).await;
        let extender = extender(&url, |s| (s.filter, s.knows_nodes) = ("f".into(), true));
        let error = extender.filter(&pod("p", json!({})), &two()).await.unwrap_err().to_string();
        error.replace(url.trim_end_matches('/'), "URL").replace(&url, "URL/")
    };
    assert_eq!(filter(500, json!({})).await, "failed f with extender at URL URL/f, code 500");
    assert_eq!(filter(200, json!({ "Error": "not today" })).await, "not today");
    assert_eq!(
        filter(200, json!({ "NodeNames": ["c"] })).await,
        "extender \"URL/\" claims a filtered node \"c\" which is not found in the input node list"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let extender = extender(&url, |s| (s.filter, s.timeout) = ("f".into(), Duration::from_millis(20)));
    let error = extender.filter(&pod("p", json!({})), &two()).await.unwrap_err().to_string();
    assert!(error.ends_with("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"), "{error}");
}

#[test]
fn a_server_is_asked_for_pods_that_want_what_it_manages() {
    let extender = extender("http://a", |s| s.managed = vec!["example.com/foo".into()]);
    assert!(!extender.cares_for(&pod("p", json!({}))));
    let wanting = json!({ "spec": { "containers": [{ "resources": { "limits": { "example.com/foo": "1" } } }] } });
    assert!(extender.cares_for(&pod("p", wanting)));
}
