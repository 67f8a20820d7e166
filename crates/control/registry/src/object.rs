//! What the verbs answer: objects as bytes or trees, lists, and streams of watch events.

use crate::cache::{CacheWatch, Entry};
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use pintle_store::Revision;
use pintle_types::Status;
use serde_json::Value;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// An object in the version that was asked for, with its resourceVersion. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Object {
    /// As it is stored: writing it out copies bytes.
    Stored(Arc<Entry>),
    /// Converted, or just made.
    Tree(Arc<Value>),
}

impl Object {
    /// Whether it is in the form of that version, told without reading it whole.
    pub(crate) fn is_of(&self, api_version: &str) -> bool {
        match self {
            Self::Stored(entry) => entry.is_of(api_version),
            Self::Tree(value) => value["apiVersion"] == api_version,
        }
    }

    /// Appends the object as JSON.
    pub fn write_json(&self, out: &mut BytesMut) {
        match self {
            Self::Stored(entry) => entry.write_to(out),
            Self::Tree(value) => crate::codec::write_value(value, out),
        }
    }

    /// Appends the object as an item of a list of built-in kinds: without `apiVersion` and `kind`.
    pub fn write_item_json(&self, out: &mut BytesMut) {
        match self {
            Self::Stored(entry) => entry.write_item_to(out),
            Self::Tree(value) => crate::codec::write_item(value, out),
        }
    }

    /// Appends the object's metadata alone as JSON; those of stored bytes are copied, not parsed.
    pub fn write_metadata_json(&self, out: &mut BytesMut) {
        match self {
            Self::Stored(entry) => entry.write_metadata_to(out),
            Self::Tree(value) => out.put_slice(value["metadata"].to_string().as_bytes()),
        }
    }

    pub fn to_json(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.write_json(&mut out);
        out.freeze()
    }

    /// The object's own message in protobuf, without its envelope; none for kinds that have none.
    pub fn message(&self) -> Option<Bytes> {
        match self {
            Self::Stored(entry) => entry.message(),
            Self::Tree(value) => pintle_schema::protobuf::message(value).map(Bytes::from),
        }
    }

    /// The object as a tree: parsed for this call when it is stored bytes.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Stored(entry) => entry.to_value(),
            Self::Tree(value) => (**value).clone(),
        }
    }
}

impl From<Value> for Object {
    fn from(value: Value) -> Self {
        Self::Tree(Arc::new(value))
    }
}

/// The answer to a PUT, PATCH or a subresource's POST.
#[derive(Clone, Debug)]
pub struct Written {
    pub object: Object,
    /// Whether the object did not exist before: code 201 instead of 200.
    pub created: bool,
}

/// The answer to a DELETE.
#[derive(Clone, Debug)]
pub enum Deletion {
    /// Gone: a success that names what it was.
    Done(Box<Status>),
    /// Still there (grace period, finalizers), or its kind answers with the object: code 200.
    Object(Object),
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct List {
    pub api_version: String,
    /// The list's kind, such as `PodList`.
    pub kind: String,
    pub revision: Revision,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining: Option<u64>,
    pub items: Vec<Object>,
    /// Whether the items are written without `apiVersion` and `kind`, as those of built-in kinds are.
    pub bare_items: bool,
}

impl List {
    /// Appends the list as JSON.
    pub fn write_json(&self, out: &mut BytesMut) {
        let text = |s: &str| Value::from(s).to_string();
        let mut head = format!(
            r#"{{"kind":{},"apiVersion":{},"metadata":{{"resourceVersion":"{}""#,
            text(&self.kind),
            text(&self.api_version),
            self.revision
        );
        // Lists of custom resources say that they are whole.
        if !self.continue_token.is_empty() || !self.bare_items {
            head += &format!(r#","continue":{}"#, text(&self.continue_token));
        }
        if let Some(remaining) = self.remaining.filter(|n| *n > 0) {
            head += &format!(r#","remainingItemCount":{remaining}"#);
        }
        out.put_slice(head.as_bytes());
        out.put_slice(br#"},"items":["#);
        for (i, item) in self.items.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            if self.bare_items {
                item.write_item_json(out);
            } else {
                item.write_json(out);
            }
        }
        out.put_slice(b"]}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// The frames of an event, each made by the first watcher that sends it, shared by all others.
#[derive(Debug, Default)]
pub struct SharedFrames {
    json: OnceLock<Bytes>,
    others: OnceLock<Box<[OnceLock<Bytes>; 2]>>,
}

/// Frames beside the one in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryFrame {
    Protobuf,
    Cbor,
}

/// How many events were written out since the process began: once for each form, however many watch.
static SERIALIZED: AtomicU64 = AtomicU64::new(0);

/// How many frames of watches this process has made. One event makes one for each form in which it is watched.
pub fn frames_made() -> u64 {
    SERIALIZED.load(Ordering::Relaxed)
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: EventKind,
    pub object: Object,
    pub(crate) frame: Arc<SharedFrames>,
}

impl WatchEvent {
    pub fn new(kind: EventKind, object: Object) -> Self {
        Self { kind, object, frame: Arc::default() }
    }

    pub fn error(status: &Status) -> Self {
        let value = serde_json::to_value(status).unwrap_or_default();
        Self::new(EventKind::Error, value.into())
    }

    /// The line that a watch sends: `{"type":"ADDED","object":{…}}` and a newline.
    pub fn frame(&self) -> Bytes {
        self.frame.json.get_or_init(|| self.serialize()).clone()
    }

    /// The frame in another form, which `make` writes if nobody has yet.
    pub fn binary_frame(&self, form: BinaryFrame, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        let others = self.frame.others.get_or_init(Box::default);
        let made = others[form as usize].get_or_init(|| {
            SERIALIZED.fetch_add(1, Ordering::Relaxed);
            make(self)
        });
        made.clone()
    }

    fn serialize(&self) -> Bytes {
        SERIALIZED.fetch_add(1, Ordering::Relaxed);
        let mut out = BytesMut::new();
        out.put_slice(b"{\"type\":\"");
        out.put_slice(self.kind.as_str().as_bytes());
        out.put_slice(b"\",\"object\":");
        self.object.write_json(&mut out);
        out.put_slice(b"}\n");
        out.freeze()
    }
}

/// The events of a watch. It ends after its timeout, after an event of kind `Error`, or when the registry closes.
pub struct Watch {
    inner: Events,
}

enum Events {
    Cache(CacheWatch),
    Converted(crate::convert::Converted),
}

impl Watch {
    pub(crate) fn of(inner: CacheWatch) -> Self {
        Self { inner: Events::Cache(inner) }
    }

    pub(crate) fn converted(events: crate::convert::Converted) -> Self {
        Self { inner: Events::Converted(events) }
    }
}

impl Stream for Watch {
    type Item = WatchEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        match &mut self.inner {
            Events::Cache(watch) => watch.poll_event(context),
            Events::Converted(events) => events.as_mut().poll_next(context),
        }
    }
}
