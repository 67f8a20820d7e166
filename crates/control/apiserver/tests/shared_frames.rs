//! An event is written out once for all who watch in one form. Alone in its process, because the count is the process's.

mod support;

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use pintle_client::Transport;
use serde_json::json;
use support::{Cluster, admin};

const WATCHERS: usize = 50;

#[tokio::test]
async fn an_event_is_serialized_once_for_all_watchers_of_one_form() {
    let cluster = Cluster::new().await;
    let transport = cluster.server.local_transport(admin());
    let path = "/api/v1/namespaces/default/configmaps";
    let mut streams = Vec::new();
    for accept in ["application/json", "application/vnd.kubernetes.protobuf"] {
        for _ in 0..WATCHERS {
            let uri = format!("{path}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
            let watch = Request::builder().uri(uri).header("accept", accept).body(Bytes::new()).unwrap();
            streams.push(transport.call(watch).await.unwrap().into_body().into_data_stream());
        }
    }
    let before = pintle_registry::frames_made();
    cluster.create(path, json!({"metadata": {"name": "a"}})).await;
    let mut frames = Vec::new();
    for stream in &mut streams {
        frames.push(stream.next().await.unwrap().unwrap());
    }
    assert_eq!(pintle_registry::frames_made() - before, 2);
    for same in frames.chunks(WATCHERS) {
        assert!(same.iter().all(|frame| frame.as_ptr() == same[0].as_ptr()), "the same bytes for all");
    }
}
