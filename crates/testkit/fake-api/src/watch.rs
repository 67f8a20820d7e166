//! Watches of the fake: a body that is fed through a channel.

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::StreamBody;
use pintle_client::{Body, BoxError};
use pintle_types::selector::LabelSelector;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// One thing that happened, as the history keeps it.
pub(crate) struct Happened {
    pub version: u64,
    pub event_type: &'static str,
    pub resource: String,
    pub namespace: String,
    pub old_labels: Option<BTreeMap<String, String>>,
    pub object: Value,
}

/// Somebody who watches.
pub(crate) struct Watcher {
    pub resource: String,
    pub namespace: String,
    pub selector: LabelSelector,
    pub sender: mpsc::UnboundedSender<Bytes>,
}

impl Watcher {
    /// Tells the watcher, in its own view of the selector. False when nobody listens any more.
    pub fn tell(&self, happened: &Happened) -> bool {
        let elsewhere = !self.namespace.is_empty() && self.namespace != happened.namespace;
        if self.resource != happened.resource || elsewhere {
            return !self.sender.is_closed();
        }
        let before = happened.old_labels.as_ref().is_some_and(|labels| self.selector.matches(labels));
        let after = happened.event_type != "DELETED" && self.selector.matches(&labels(&happened.object));
        let event_type = match (before, after) {
            (false, false) => return !self.sender.is_closed(),
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        let line = format!("{}\n", serde_json::json!({ "type": event_type, "object": happened.object }));
        self.sender.send(line.into()).is_ok()
    }
}

/// The labels of an object.
pub(crate) fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    labels.map(|labels| labels.iter().map(|(k, v)| (k.clone(), text(v))).collect()).unwrap_or_default()
}

/// A body that ends when its sender is dropped.
pub(crate) fn channel() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        let bytes: Bytes = receiver.recv().await?;
        Some((bytes, receiver))
    });
    let frames = stream.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
    (sender, Body::new(StreamBody::new(frames)))
}
