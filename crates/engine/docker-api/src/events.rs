//! Streams what happens in the daemon.

use crate::State;
use crate::answer::{Result, stream};
use crate::call::Call;
use bytes::Bytes;
use futures::StreamExt;
use pintle_docker::containers::{Filters, check_names, has_label};
use pintle_docker::events::Event;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub(crate) fn events(state: &Arc<State>, call: &Call) -> Result {
    let filters = call.query.filters()?;
    check_names(&filters, &FILTERS)?;
    let now = state.daemon.now();
    let time = |key: &str| match call.query.get(key) {
        "" => Ok(None),
        text => crate::times::parse(text, now).map(Some),
    };
    let (since, until) = (time("since")?, time("until")?);
    let (kept, receiver) = state.daemon.events.listen();
    let fits = move |event: &Event| until.is_none_or(|until| event.time_nanos <= until) && fits(event, &filters);
    let past: Vec<_> = match since {
        Some(since) => kept.into_iter().filter(|e| e.time_nanos >= since && fits(e)).collect(),
        None => Vec::new(),
    };
    let line = |event: &Event| Ok(Bytes::from(format!("{}\n", serde_json::to_string(event).unwrap_or_default())));
    let past = futures::stream::iter(past).map(move |event| line(&event));
    let left = until.map(|until| Duration::from_nanos(u64::try_from(until - now).unwrap_or_default()));
    let future = futures::stream::unfold((receiver, fits), |(mut receiver, fits)| async move {
        loop {
            match receiver.recv().await {
                Ok(event) if fits(&event) => return Some((event, (receiver, fits))),
                // One that is too slow has lost some.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let end = async move {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let future = future.map(move |event| line(&event)).take_until(Box::pin(end));
    Ok(stream("application/json", past.chain(future)))
}

fn fits(event: &Event, filters: &Filters) -> bool {
    let actor = &event.actor;
    let named = |kind: &str, values: &[String]| {
        let name = actor.attributes.get("name").map(String::as_str).unwrap_or_default();
        event.kind == kind && values.iter().any(|v| v == name || actor.id.starts_with(v.as_str()))
    };
    filters.iter().all(|(key, values)| match key.as_str() {
        "type" => values.contains(&event.kind),
        "event" => values.iter().any(|v| event.action == *v || event.action.split(':').next() == Some(v.as_str())),
        "scope" => values.iter().any(|v| v == event.scope),
        "label" => values.iter().all(|v| has_label(actor.attributes.iter(), v)),
        "image" => {
            named("image", values)
                || (event.kind == "container"
                    && actor.attributes.get("image").is_some_and(|image| values.contains(image)))
        }
        kind => named(kind, values),
    })
}
