//! Watches: a response that goes on, one line for each event.

use super::read::namespace;
use super::{Target, view};
use crate::media::{Format, View, Written, negotiate_watch};
use crate::options;
use crate::response::{Answer, with_type};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use pintle_client::{Body, BoxError};
use pintle_registry::{EventKind, Watch, WatchEvent};
use pintle_types::Status;
use pintle_types::selector::{FieldSelector, ParseSelectorError};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn watch(target: &Target<'_>) -> Answer {
    let format = negotiate_watch(&target.call.headers)?;
    let mut options = options::watch_options(&target.call.query)?;
    if !target.path.name.is_empty() {
        options.fields = one_name(&target.path.name).map_err(|e| Box::new(Status::bad_request(e.to_string())))?;
    }
    let server = &target.call.server;
    let events = server.registry.watch(&target.def, namespace(target), &options).await?;
    let body = body(target, format, events);
    let content_type = match format.written {
        Written::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut response = with_type(StatusCode::OK, content_type, Bytes::new());
    *response.body_mut() = body;
    Ok(response)
}

fn one_name(name: &str) -> Result<FieldSelector, ParseSelectorError> {
    FieldSelector::parse(&format!("metadata.name={name}"))
}

/// The events as the body of a response, until the watch ends or the server stops.
fn body(target: &Target<'_>, format: Format, events: Watch) -> Body {
    let server = target.call.server.clone();
    let def = target.def.clone();
    let include = view::Include::read(&target.call.query);
    let mut first = true;
    let (sent, sizes) = server.metrics.watch_events(&def.group, &def.version, &def.resource);
    let lines = events.map(move |event| {
        let line = match format.view {
            View::Whole if format.written == Written::Protobuf => binary(&event),
            View::Whole => event.frame(),
            _ if event.kind == EventKind::Error => event.frame(),
            View::Table(version) => {
                let table =
                    view::event_table(&def, version, include, &event, std::mem::take(&mut first), server.clock.now());
                line(&event, &table)
            }
            View::Metadata(version) => line(&event, &view::partial(&event.object.to_value(), version)),
        };
        sent.inc();
        sizes.observe(line.len() as f64);
        Ok::<_, BoxError>(Frame::data(line))
    });
    let stop = target.call.server.stopping();
    let watchers = target.call.server.metrics.watcher();
    let stream = lines.take_until(async move { stop.cancelled_owned().await }).inspect(move |_| {
        // Held until the stream is dropped: counts this watcher.
        let _ = Arc::strong_count(&watchers);
    });
    Body::new(StreamBody::new(stream))
}

/// An event as clients of protobuf read it. Whoever asks for it knows that the kind has such a form.
fn binary(event: &WatchEvent) -> Bytes {
    let object = event.object.to_value();
    pintle_schema::protobuf::encode_watch_event(event.kind.as_str(), &object).unwrap_or_default().into()
}

fn line(event: &WatchEvent, object: &serde_json::Value) -> Bytes {
    let mut text = json!({"type": event.kind.as_str(), "object": object}).to_string();
    text.push('\n');
    text.into()
}
