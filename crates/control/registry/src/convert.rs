//! Objects whose versions somebody else converts: on the way in from the store, and on the way out to it.

use crate::object::{EventKind, Object, Watch, WatchEvent};
use crate::read::show;
use crate::registry::Registry;
use crate::write::Current;
use futures::{Stream, StreamExt};
use pintle_kinds::{Converter, ResourceDef};
use pintle_types::Status;
use serde_json::Value;
use std::pin::Pin;
use std::sync::Arc;

/// A watch whose objects are converted one after the other.
pub(crate) type Converted = Pin<Box<dyn Stream<Item = WatchEvent> + Send>>;

async fn one(converter: &dyn Converter, object: Value, api_version: &str) -> Result<Value, Status> {
    if object["apiVersion"] == api_version {
        return Ok(object);
    }
    let mut converted = converter.convert(vec![object], api_version).await?;
    converted.pop().ok_or_else(|| Status::internal("the conversion answered no object"))
}

/// What a write starts from, in the form of the request's version.
pub(crate) async fn inward(def: &ResourceDef, current: Option<Current>) -> Result<Option<Current>, Status> {
    let (Some(converter), Some(found)) = (def.strategy.converter(), &current) else { return Ok(current) };
    let value = one(converter, (*found.value).clone(), &def.api_version()).await?;
    Ok(Some(Current { value: Arc::new(value), revision: found.revision }))
}

/// What is stored, in the form of the storage version; nothing when it has it already.
pub(crate) async fn outward(def: &ResourceDef, object: &Value) -> Result<Option<Value>, Status> {
    let Some(converter) = def.strategy.converter() else { return Ok(None) };
    let wanted = def.storage.api_version();
    if object["apiVersion"] == wanted.as_str() {
        return Ok(None);
    }
    one(converter, object.clone(), &wanted).await.map(Some)
}

/// Stored objects in the version of `def`, all of them in one go.
pub(crate) async fn shown(def: &ResourceDef, objects: Vec<Object>) -> Result<Vec<Object>, Status> {
    let Some(converter) = def.strategy.converter() else {
        return Ok(objects.into_iter().map(|object| show(def, object)).collect());
    };
    let wanted = def.api_version();
    let mut out = objects;
    let mut others = Vec::new();
    for (at, object) in out.iter().enumerate() {
        if !object.is_of(&wanted) {
            others.push((at, object.to_value()));
        }
    }
    if others.is_empty() {
        return Ok(out);
    }
    let (places, values): (Vec<usize>, Vec<Value>) = others.into_iter().unzip();
    let converted = converter.convert(values, &wanted).await?;
    if converted.len() != places.len() {
        return Err(Status::internal("the conversion answered another number of objects"));
    }
    for (at, value) in places.into_iter().zip(converted) {
        out[at] = value.into();
    }
    Ok(out)
}

/// The events of a watch in the version of `def`. A failure ends the watch, as its last event.
pub(crate) fn watched(def: Arc<ResourceDef>, inner: Watch) -> Watch {
    let state = Some(inner);
    let events = futures::stream::unfold(state, move |state| {
        let def = def.clone();
        async move {
            let mut inner = state?;
            let event = inner.next().await?;
            match event.kind {
                EventKind::Bookmark | EventKind::Error => Some((event, Some(inner))),
                kind => match shown(&def, vec![event.object]).await {
                    Ok(mut objects) => Some((WatchEvent::new(kind, objects.pop()?), Some(inner))),
                    Err(status) => Some((WatchEvent::error(&status), None)),
                },
            }
        }
    });
    Watch::converted(Box::pin(events))
}

impl Registry {
    /// What is there now, in the form of the request's version.
    pub(crate) async fn current_in(&self, def: &ResourceDef, ns: &str, name: &str) -> Result<Option<Current>, Status> {
        inward(def, self.current(def, ns, name)?).await
    }
}
