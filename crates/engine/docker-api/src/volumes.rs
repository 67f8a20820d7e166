//! The Engine's calls on volumes.

use crate::State;
use crate::answer::{Result, bytes, json_with, value};
use crate::call::Call;
use crate::route::not_found;
use http::{Method, StatusCode};
use pintle_docker::DockerError;
use pintle_docker::containers::pattern_fits;
use pintle_docker::volumes::{CreateRequest, Volume};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

type Filters = HashMap<String, Vec<String>>;

pub(crate) async fn route(state: &Arc<State>, mut call: Call, parts: &[&str]) -> Result {
    let method = call.method.clone();
    match (&method, parts) {
        (&Method::GET, [] | [""]) => list(state, &call),
        (&Method::POST, ["create"]) => {
            let request: CreateRequest = call.json().await?;
            let volume = state.daemon.create_volume(request).await?;
            json_with(StatusCode::CREATED, &volume.to_json())
        }
        (&Method::POST, ["prune"]) => prune(state, &call).await,
        (&Method::GET, [name]) => value(&state.daemon.volumes.get(name)?.to_json()),
        (&Method::DELETE, [name]) => {
            state.daemon.remove_volume(name, call.query.flag("force")).await?;
            Ok(bytes(StatusCode::NO_CONTENT, "application/json", ""))
        }
        (&Method::PUT, [_]) => Err(DockerError::new(
            503,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
             to swarm and try again.",
        )),
        _ => Err(not_found()),
    }
}

fn refuse_unknown(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(DockerError::invalid(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

fn has_label(volume: &Volume, wanted: &str) -> bool {
    let labels = volume.labels.iter().flatten();
    match wanted.split_once('=') {
        Some(pair) => labels.clone().any(|(k, v)| (k.as_str(), v.as_str()) == pair),
        None => labels.clone().any(|(k, _)| k == wanted),
    }
}

fn list(state: &State, call: &Call) -> Result {
    let filters = call.query.filters()?;
    refuse_unknown(&filters, &["dangling", "driver", "label", "name"])?;
    if let Some(value) = filters.get("dangling").into_iter().flatten().find(|v| !crate::call::is_truth(v)) {
        return Err(DockerError::invalid(format!("invalid filter 'dangling={value}'")));
    }
    let all = state.daemon.volumes.list();
    let fits = |volume: &Volume| {
        filters.iter().all(|(key, values)| match key.as_str() {
            "driver" => values.iter().any(|v| v == "local"),
            "name" => values.iter().any(|v| pattern_fits(v, &volume.name)),
            "label" => values.iter().all(|v| has_label(volume, v)),
            _ => {
                let unused = state.daemon.users_of_volume(&volume.name).is_empty();
                values.iter().any(|v| matches!(v.as_str(), "true" | "1") == unused)
            }
        })
    };
    let shown: Vec<Value> = all.iter().filter(|v| fits(v)).map(Volume::to_json).collect();
    value(&json!({ "Volumes": shown, "Warnings": null }))
}

/// The moment that `until` names, in nanoseconds since the epoch: a time, seconds, or a span before now.
pub(crate) fn until(filters: &Filters, now: i64) -> Result<Option<i64>> {
    let Some(text) = filters.get("until").and_then(|values| values.first()) else { return Ok(None) };
    let bad = || DockerError::invalid(format!("invalid value for until filter: {text:?}"));
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds.checked_mul(1_000_000_000));
    }
    if let Ok(time) = text.parse::<pintle_clock::Timestamp>() {
        return Ok(i64::try_from(time.as_nanosecond()).ok());
    }
    let mut span = 0_i64;
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: i64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = &rest[digits..];
        let (seconds, length) = match unit.as_bytes() {
            [b'm', b's', ..] => return Err(bad()),
            [b'h', ..] => (3600, 1),
            [b'm', ..] => (60, 1),
            [b's', ..] => (1, 1),
            _ => return Err(bad()),
        };
        let part = number.checked_mul(seconds * 1_000_000_000).ok_or_else(bad)?;
        span = span.checked_add(part).ok_or_else(bad)?;
        rest = &unit[length..];
    }
    Ok(Some(now.saturating_sub(span)))
}

async fn prune(state: &State, call: &Call) -> Result {
    let filters = call.query.filters()?;
    refuse_unknown(&filters, &["all", "label", "label!"])?;
    let all = filters.get("all").is_some_and(|v| v.iter().any(|v| matches!(v.as_str(), "true" | "1")));
    // Before 1.42 every unused volume went, since then only those without a name of their own.
    let all = all || call.version < 42;
    let (mut gone, mut bytes) = (Vec::new(), 0_u64);
    for volume in state.daemon.volumes.list() {
        let wanted = filters.get("label").is_none_or(|list| list.iter().all(|l| has_label(&volume, l)));
        let spared = filters.get("label!").is_some_and(|list| list.iter().any(|l| has_label(&volume, l)));
        if !(all || volume.is_anonymous()) || !wanted || spared {
            continue;
        }
        if !state.daemon.users_of_volume(&volume.name).is_empty() {
            continue;
        }
        let measured = volume.clone();
        let size = tokio::task::spawn_blocking(move || measured.size()).await.unwrap_or_default();
        match state.daemon.remove_volume(&volume.name, false).await {
            Ok(()) => {
                bytes += size;
                gone.push(volume.name);
            }
            Err(error) => tracing::debug!(volume = volume.name, %error, "a volume is not pruned"),
        }
    }
    let gone = if gone.is_empty() { Value::Null } else { json!(gone) };
    value(&json!({ "VolumesDeleted": gone, "SpaceReclaimed": bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let until =
            |text: &str| until(&HashMap::from([("until".to_owned(), vec![text.to_owned()])]), 10_000_000_000_000);
        assert_eq!(until("5").unwrap(), Some(5_000_000_000));
        assert_eq!(until("1h1m1s").unwrap(), Some(10_000_000_000_000 - 3_661_000_000_000));
        assert_eq!(until("1970-01-01T00:00:02Z").unwrap(), Some(2_000_000_000));
        for bad in ["x", "1", "1y", "h", "99999999999999h"].iter().filter(|t| **t != "1") {
            assert!(until(bad).is_err(), "{bad}");
        }
    }
}
