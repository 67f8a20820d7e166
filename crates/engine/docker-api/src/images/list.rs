//! Lists images.

use super::{familiar, items};
use crate::State;
use crate::answer::Result;
use crate::call::Call;
use pintle_docker::DockerError;
use pintle_docker::containers::glob;
use pintle_image::{ImageRecord, Reference};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

const FILTERS: [&str; 7] = ["dangling", "label", "before", "since", "reference", "until", "containers"];

pub(crate) fn list(state: &Arc<State>, call: &Call) -> Result {
    let filters = call.query.filters()?;
    if let Some(unknown) = filters.keys().find(|k| !FILTERS.contains(&k.as_str())) {
        return Err(DockerError::invalid(format!("invalid filter '{unknown}'")));
    }
    if let Some(value) = filters.get("dangling").into_iter().flatten().find(|v| !crate::call::is_truth(v)) {
        return Err(DockerError::invalid(format!("invalid filter 'dangling={value}'")));
    }
    let mut images = state.images.list();
    images.sort_by_key(|record| std::cmp::Reverse(record.created_seconds()));
    let shared = if call.query.flag("shared-size") { state.images.shared_sizes() } else { HashMap::new() };
    let all = call.query.flag("all");
    let mut shown = Vec::new();
    for record in &images {
        // Steps of a build, which have no name and a child, are shown on request only.
        if !all && record.is_dangling() && !state.images.children(&record.id).is_empty() {
            continue;
        }
        let Some(tags) = matching(state, record, &filters)? else { continue };
        shown.push(json!({
            "Containers": -1,
            "Created": record.created_seconds(),
            "Id": record.id,
            "Labels": record.configuration.config().as_ref().and_then(|c| c.labels().clone()),
            "ParentId": record.parent.clone().unwrap_or_default(),
            "RepoDigests": record.origins.iter().map(|d| familiar(d)).collect::<Vec<_>>(),
            "RepoTags": tags,
            "SharedSize": shared.get(&record.id).map_or(-1, |size| i64::try_from(*size).unwrap_or(-1)),
            "Size": record.unpacked_size(),
        }));
    }
    items(&shown)
}

/// The names of an image that are shown, or nothing when it does not match.
fn matching(
    state: &State,
    record: &ImageRecord,
    filters: &HashMap<String, Vec<String>>,
) -> Result<Option<Vec<String>>> {
    let created = record.created_seconds();
    let mut tags: Vec<String> = record.tags.iter().map(|t| familiar(t)).collect();
    for (key, values) in filters {
        let when = |name: &String| state.daemon.image(name).map(|i| i.created_seconds());
        let fits = match key.as_str() {
            "dangling" => values.iter().all(|v| matches!(v.as_str(), "true" | "1") == record.is_dangling()),
            "label" => values.iter().all(|v| has_label(record, v)),
            "before" => values.iter().map(when).collect::<Result<Vec<_>>>()?.iter().all(|t| created < *t),
            "since" => values.iter().map(when).collect::<Result<Vec<_>>>()?.iter().all(|t| created > *t),
            "until" => {
                let now = state.daemon.now();
                let times = values.iter().map(|v| crate::times::parse(v, now)).collect::<Result<Vec<_>>>()?;
                times.iter().all(|t| created.saturating_mul(1_000_000_000) < *t)
            }
            "reference" => {
                tags.retain(|tag| values.iter().any(|pattern| named(tag, pattern)));
                !tags.is_empty()
            }
            _ => true,
        };
        if !fits {
            return Ok(None);
        }
    }
    Ok(Some(tags))
}

/// By the whole name with its tag, or by the name alone.
fn named(tag: &str, pattern: &str) -> bool {
    let name = tag.parse::<Reference>().map(|r| Reference { tag: None, digest: None, ..r }.familiar());
    glob(pattern, tag) || name.is_ok_and(|name| glob(pattern, &name))
}

fn has_label(record: &ImageRecord, wanted: &str) -> bool {
    let labels = record.configuration.config().as_ref().and_then(|c| c.labels().clone()).unwrap_or_default();
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

/// For `system df`.
pub(crate) fn summaries(state: &State) -> Vec<Value> {
    let shared = state.images.shared_sizes();
    let containers = state.daemon.all_containers();
    let users = |id: &str| containers.iter().filter(|c| c.look(|r| r.image_id == id)).count();
    let images = state.images.list();
    let steps = |record: &&ImageRecord| record.is_dangling() && !state.images.children(&record.id).is_empty();
    let shown = images.iter().filter(|record| !steps(record)).map(|record| {
        json!({
            "Containers": users(&record.id),
            "Created": record.created_seconds(),
            "Id": record.id,
            "Labels": record.configuration.config().as_ref().and_then(|c| c.labels().clone()),
            "ParentId": record.parent.clone().unwrap_or_default(),
            "RepoDigests": record.origins.iter().map(|d| familiar(d)).collect::<Vec<_>>(),
            "RepoTags": record.tags.iter().map(|t| familiar(t)).collect::<Vec<_>>(),
            "SharedSize": shared.get(&record.id).copied().unwrap_or_default(),
            "Size": record.unpacked_size(),
        })
    });
    shown.collect()
}
