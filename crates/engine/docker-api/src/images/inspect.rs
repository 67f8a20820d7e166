//! Shows images whole, and how they came to be.

use super::{blocking, familiar, items};
use crate::State;
use crate::answer::{Result, value};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn inspect(state: &Arc<State>, name: &str) -> Result {
    let record = state.daemon.image(name)?;
    let written = state.images.configuration_json(&record.id)?;
    let text = |key: &str| written[key].as_str().unwrap_or_default().to_owned();
    let data: BTreeMap<&str, String> = state.images.graph_data(&record).into_iter().collect();
    let config = match &written["config"] {
        Value::Null => json!({}),
        config => config.clone(),
    };
    let mut shown = json!({
        "Id": record.id,
        "RepoTags": record.tags.iter().map(|t| familiar(t)).collect::<Vec<_>>(),
        "RepoDigests": record.origins.iter().map(|d| familiar(d)).collect::<Vec<_>>(),
        "Parent": record.parent.clone().unwrap_or_default(),
        "Comment": text("comment"),
        "Created": record.configuration.created(),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config,
        "Architecture": record.configuration.architecture(),
        "Os": record.configuration.os(),
        "Size": record.unpacked_size(),
        "GraphDriver": { "Data": data, "Name": state.daemon.storage_driver() },
        "RootFS": { "Type": "layers", "Layers": record.configuration.rootfs().diff_ids() },
        "Metadata": { "LastTagTime": record.last_tagged.clone().unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()) },
    });
    if let Some(variant) = written["variant"].as_str().filter(|v| !v.is_empty()) {
        shown["Variant"] = json!(variant);
    }
    value(&shown)
}

pub(crate) async fn history(state: &Arc<State>, name: String) -> Result {
    let id = state.daemon.image(&name)?.id;
    let steps = blocking(state, move |images| images.history(&id)).await?;
    let shown: Vec<Value> = steps
        .iter()
        .map(|step| {
            json!({
                "Comment": step.comment,
                "Created": step.created,
                "CreatedBy": step.created_by,
                "Id": step.id,
                "Size": step.size,
                "Tags": if step.tags.is_empty() { Value::Null } else { json!(step.tags) },
            })
        })
        .collect();
    items(&shown)
}
