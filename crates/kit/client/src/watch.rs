//! Decodes a watch: a stream of JSON objects, one a line, first as bytes and then as typed events.

use crate::error::ClientError;
use crate::transport::{Body, TransportError};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body::Body as _;
use pintle_types::{Kind, Status};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Longest event taken, in bytes. Objects are limited to a few megabytes by the server.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    /// No object, only a version to resume from.
    Bookmark,
}

/// An event whose object is not decoded yet.
#[derive(Clone, Debug)]
pub struct RawEvent {
    pub event_type: EventType,
    pub object: Bytes,
}

/// The watch as undecoded events. An error event of the server comes out as [`ClientError::Status`] and ends it.
pub struct RawWatch {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer was searched for a line's end.
    searched: usize,
    ended: bool,
}

impl RawWatch {
    pub fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0, ended: false }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let Some(at) = self.buffer[self.searched..].iter().position(|&b| b == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + at + 1).freeze();
        self.searched = 0;
        Some(line)
    }

    /// The next whole line, or what is left at the end of the stream.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientError>>> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Ok(line)));
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                let message = format!("a watch event is longer than {MAX_EVENT_BYTES} bytes");
                return Poll::Ready(Some(Err(TransportError::new(message).into())));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(TransportError::caused("the watch broke off", error).into())));
                }
                None if self.buffer.trim_ascii().is_empty() => return Poll::Ready(None),
                None => {
                    let message = "the watch ended in the middle of an event";
                    return Poll::Ready(Some(Err(TransportError::new(message).into())));
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn parse_line(line: &Bytes) -> Result<RawEvent, ClientError> {
    let parsed: Line = serde_json::from_slice(line)?;
    let event_type = match &*parsed.event_type {
        "ADDED" => EventType::Added,
        "MODIFIED" => EventType::Modified,
        "DELETED" => EventType::Deleted,
        "BOOKMARK" => EventType::Bookmark,
        "ERROR" => return Err(serde_json::from_str::<Status>(parsed.object.get())?.into()),
        other => {
            let message = format!("the watch holds an event of the unknown type {other:?}");
            return Err(TransportError::new(message).into());
        }
    };
    Ok(RawEvent { event_type, object: line.slice_ref(parsed.object.get().as_bytes()) })
}

impl Stream for RawWatch {
    type Item = Result<RawEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let result = ready!(self.poll_line(cx)).map(|line| line.and_then(|line| parse_line(&line)));
        self.ended = !matches!(result, Some(Ok(_)));
        Poll::Ready(result)
    }
}

/// A typed event.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<K> {
    Added(K),
    Modified(K),
    /// With the object's last state.
    Deleted(K),
    Bookmark {
        /// A version to resume from.
        resource_version: String,
        /// Whether the state asked for with `send_initial_events` is complete.
        initial_events_end: bool,
    },
}

/// The watch as typed events; ends after an error.
pub struct Watch<K> {
    raw: RawWatch,
    kind: PhantomData<fn() -> K>,
}

impl<K> Watch<K> {
    pub(crate) fn new(raw: RawWatch) -> Self {
        Self { raw, kind: PhantomData }
    }
}

impl<K: Kind> Stream for Watch<K> {
    type Item = Result<WatchEvent<K>, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(event) = ready!(self.raw.poll_next_unpin(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(event.and_then(|event| decode(&event))))
    }
}

fn decode<K: Kind>(event: &RawEvent) -> Result<WatchEvent<K>, ClientError> {
    Ok(match event.event_type {
        EventType::Added => WatchEvent::Added(K::decode(&event.object)?),
        EventType::Modified => WatchEvent::Modified(K::decode(&event.object)?),
        EventType::Deleted => WatchEvent::Deleted(K::decode(&event.object)?),
        EventType::Bookmark => {
            let (resource_version, initial_events_end) = bookmark(&event.object)?;
            WatchEvent::Bookmark { resource_version, initial_events_end }
        }
    })
}

/// The version that a bookmark tells, and whether it ends the initial events.
fn bookmark(object: &[u8]) -> Result<(String, bool), ClientError> {
    let meta = ObjectHead::parse(object)?.metadata;
    let ends = meta.annotations.is_some_and(|a| a.initial_events_end.as_deref() == Some("true"));
    Ok((meta.resource_version.into_owned(), ends))
}

/// The few fields that every object has and that can be read without knowing its kind.
#[derive(Deserialize)]
struct ObjectHead<'a> {
    #[serde(borrow)]
    metadata: HeadMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta<'a> {
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default)]
    annotations: Option<HeadAnnotations<'a>>,
}

#[derive(Deserialize)]
struct HeadAnnotations<'a> {
    #[serde(rename = "k8s.io/initial-events-end", borrow, default)]
    initial_events_end: Option<Cow<'a, str>>,
}

impl<'a> ObjectHead<'a> {
    fn parse(object: &'a [u8]) -> Result<Self, ClientError> {
        Ok(serde_json::from_slice(object)?)
    }
}

impl RawEvent {
    /// The resourceVersion of the event's object.
    pub fn resource_version(&self) -> Result<String, ClientError> {
        Ok(ObjectHead::parse(&self.object)?.metadata.resource_version.into_owned())
    }
}
