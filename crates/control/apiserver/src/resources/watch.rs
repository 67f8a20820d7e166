//! Watches: a response that goes on, one frame for each event.

use super::read::namespace;
use super::{Target, view};
use crate::media::{Format, View, Written, negotiate_watch};
use crate::options;
use crate::response::{Answer, with_type};
use crate::server::Server;
use crate::websocket::{Form, Handshake, is_websocket, refused};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::StatusCode;
use http_body::Frame;
use pintle_client::{Body, BoxError};
use pintle_kinds::ResourceDef;
use pintle_metrics::{Counter, Histogram};
use pintle_registry::{BinaryFrame, EventKind, Object, Watch, WatchEvent};
use pintle_schema::{cbor, protobuf};
use pintle_types::Status;
use pintle_types::selector::{FieldSelector, ParseSelectorError};
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Events that wait together are sent together, up to so many bytes.
const TOGETHER_BYTES: usize = 16 << 10;
/// What stands before each event in protobuf.
const LENGTH_BYTES: usize = 4;

pub(crate) async fn watch(target: &Target<'_>) -> Answer {
    let format = negotiate_watch(&target.call.headers, target.offers())?;
    let mut options = options::watch_options(&target.call.query)?;
    if !target.path.name.is_empty() {
        options.fields = one_name(&target.path.name).map_err(|e| Box::new(Status::bad_request(e.to_string())))?;
    }
    let server = &target.call.server;
    let events = server.registry.watch(&target.def, namespace(target), &options).await?;
    if is_websocket(&target.call.headers) {
        return over_websocket(target, format, events);
    }
    let body = Body::new(events_of(target, format, events));
    let content_type = match format.written {
        Written::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Written::Cbor => "application/cbor-seq",
        _ => "application/json",
    };
    let mut response = with_type(StatusCode::OK, content_type, Bytes::new());
    *response.body_mut() = body;
    Ok(response)
}

fn one_name(name: &str) -> Result<FieldSelector, ParseSelectorError> {
    FieldSelector::parse(&format!("metadata.name={name}"))
}

/// Each event as a message of its own: text if the events are.
fn over_websocket(target: &Target<'_>, format: Format, events: Watch) -> Answer {
    let form = match format.written {
        Written::Protobuf | Written::Cbor => Form::Binary,
        Written::Json | Written::Yaml => Form::Text,
    };
    let handshake = match Handshake::for_messages(&target.call.headers, form) {
        Ok(handshake) => handshake,
        Err(code) => return Ok(refused(code)),
    };
    // A message needs no length before it.
    let skipped = if format.written == Written::Protobuf { LENGTH_BYTES } else { 0 };
    let mut events = events_of(target, format, events);
    let frames = futures::stream::poll_fn(move |context| events.poll_event(context));
    handshake.serve(target.call, frames.map(move |frame| form.message(frame.slice(skipped.min(frame.len())..))))
}

/// The events as they are sent, until the watch ends or the server stops.
fn events_of(target: &Target<'_>, format: Format, events: Watch) -> Events {
    let server = target.call.server.clone();
    let def = target.def.clone();
    let include = view::Include::read(&target.call.query);
    let (sent, sizes) = server.metrics.watch_events(&def.group, &def.version, &def.resource);
    let stop = server.stopping();
    let writer = Writer { server, def, format, include, first: true };
    let stopped = Box::pin(stop.clone().cancelled_owned());
    Events { events, writer, stop, stopped, asked: None, over: false, sent, sizes }
}

/// A body that is polled once for each event: what an event does not need is not touched.
struct Events {
    events: Watch,
    writer: Writer,
    stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Who is woken when the server stops: asked for once, as that takes a lock that all watchers share.
    asked: Option<Waker>,
    over: bool,
    sent: Arc<Counter>,
    sizes: Arc<Histogram>,
}

impl Events {
    /// The next event, or the end.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.next(context) {
            Poll::Pending if self.poll_stop(context) => Poll::Ready(None),
            polled => polled,
        }
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Poll::Ready(event) = Pin::new(&mut self.events).poll_next(context) else { return Poll::Pending };
        let Some(event) = event else {
            self.over = true;
            return Poll::Ready(None);
        };
        let frame = self.writer.frame(&event);
        self.sent.inc();
        self.sizes.observe(frame.len() as f64);
        Poll::Ready(Some(frame))
    }

    fn poll_stop(&mut self, context: &mut Context<'_>) -> bool {
        if self.asked.as_ref().is_some_and(|asked| asked.will_wake(context.waker())) {
            return self.stop.is_cancelled();
        }
        self.asked = Some(context.waker().clone());
        self.stopped.as_mut().poll(context).is_ready()
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let first = match this.poll_event(context) {
            Poll::Ready(Some(first)) => first,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let Some(mut next) = this.another(&first, context) else { return Poll::Ready(Some(Ok(Frame::data(first)))) };
        let mut together = BytesMut::with_capacity(TOGETHER_BYTES);
        together.extend_from_slice(&first);
        loop {
            together.extend_from_slice(&next);
            match this.another(&together, context) {
                Some(another) => next = another,
                None => return Poll::Ready(Some(Ok(Frame::data(together.freeze())))),
            }
        }
    }
}

impl Events {
    /// The next frame if it is there already and small enough to go with what is to be sent.
    fn another(&mut self, before: &[u8], context: &mut Context<'_>) -> Option<Bytes> {
        if self.over || before.len() * 2 > TOGETHER_BYTES {
            return None;
        }
        match self.next(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => None,
        }
    }
}

/// Writes events in the form that the watcher asked for.
struct Writer {
    server: Arc<Server>,
    def: Arc<ResourceDef>,
    format: Format,
    include: view::Include,
    /// Columns are told once.
    first: bool,
}

impl Writer {
    fn frame(&mut self, event: &WatchEvent) -> Bytes {
        match (self.format.view, self.format.written) {
            (View::Whole, Written::Protobuf) => event.binary_frame(BinaryFrame::Protobuf, binary),
            (View::Whole, Written::Cbor) => {
                event.binary_frame(BinaryFrame::Cbor, |event| concise(event, &event.object.to_value()))
            }
            (View::Whole, _) => event.frame(),
            (_, written) if event.kind == EventKind::Error => match written {
                Written::Protobuf => binary(event),
                Written::Cbor => concise(event, &event.object.to_value()),
                _ => event.frame(),
            },
            (View::Table(version), written) => {
                let first = std::mem::take(&mut self.first);
                let now = self.server.clock.now();
                let table = view::event_table(&self.def, version, self.include, event, first, now);
                shown(event, &table, written)
            }
            (View::Metadata(version), Written::Json) => {
                let mut out = BytesMut::new();
                out.extend_from_slice(br#"{"type":""#);
                out.extend_from_slice(event.kind.as_str().as_bytes());
                out.extend_from_slice(br#"","object":"#);
                view::write_partial(&event.object, version, &mut out);
                out.extend_from_slice(b"}\n");
                out.freeze()
            }
            (View::Metadata(version), written) => {
                shown(event, &view::partial(&event.object.to_value(), version), written)
            }
        }
    }
}

/// An event as clients of protobuf read it. Whoever asks for it knows that the kind has such a form.
fn binary(event: &WatchEvent) -> Bytes {
    let kind = event.kind.as_str();
    if let Object::Stored(entry) = &event.object
        && let Some((api_version, name)) = entry.identity()
        && let Some(message) = entry.message()
    {
        return protobuf::watch_frame(kind, &protobuf::envelope(api_version, name, &message)).into();
    }
    protobuf::encode_watch_event(kind, &event.object.to_value()).unwrap_or_default().into()
}

fn concise(event: &WatchEvent, object: &serde_json::Value) -> Bytes {
    cbor::encode(&json!({"type": event.kind.as_str(), "object": object})).into()
}

fn shown(event: &WatchEvent, object: &serde_json::Value, written: Written) -> Bytes {
    match written {
        Written::Protobuf => protobuf::encode_watch_event(event.kind.as_str(), object).unwrap_or_default().into(),
        Written::Cbor => concise(event, object),
        Written::Json | Written::Yaml => {
            let mut text = json!({"type": event.kind.as_str(), "object": object}).to_string();
            text.push('\n');
            text.into()
        }
    }
}
