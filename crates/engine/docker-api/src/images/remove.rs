//! Removes images, one or all that nobody needs.

use super::{blocking, familiar, items, tell};
use crate::State;
use crate::answer::{Result, value};
use crate::call::Call;
use pintle_docker::DockerError;
use pintle_image::{ImageUser, PruneFilter, Removed};
use serde_json::{Value, json};
use std::sync::Arc;

fn users(state: &State) -> Vec<ImageUser> {
    let of = |r: &pintle_docker::containers::Record| ImageUser {
        container_id: r.id.clone(),
        image_id: r.image_id.clone(),
        running: r.state.status.is_running(),
    };
    state.daemon.all_containers().iter().map(|c| c.look(of)).collect()
}

/// Each thing that went, as the CLI prints it; and events of it.
fn told(state: &State, removed: &[Removed]) -> Vec<Value> {
    removed
        .iter()
        .map(|what| match what {
            Removed::Untagged { reference, image } => {
                tell(state, "untag", image, image);
                json!({ "Untagged": familiar(reference) })
            }
            Removed::Image(id) => {
                tell(state, "delete", id, id);
                json!({ "Deleted": id })
            }
            Removed::Layer { chain_id, .. } => json!({ "Deleted": chain_id }),
        })
        .collect()
}

pub(crate) async fn remove(state: &Arc<State>, call: &Call, name: String) -> Result {
    let (force, prune) = (call.query.flag("force"), !call.query.flag("noprune"));
    // For its words when there is none.
    state.daemon.image(&name)?;
    let users = users(state);
    let removed = blocking(state, move |images| images.remove_image(&name, force, prune, &users)).await?;
    items(&told(state, &removed))
}

pub(crate) async fn prune(state: &Arc<State>, call: &Call) -> Result {
    let mut filter = PruneFilter::default();
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.clone(), None),
    };
    for (key, values) in call.query.filters()? {
        match key.as_str() {
            "dangling" => filter.all = values.iter().any(|v| matches!(v.as_str(), "false" | "0")),
            "label" => filter.labels = values.iter().map(pair).collect(),
            "label!" => filter.not_labels = values.iter().map(pair).collect(),
            "until" => {
                let text = values.first().map(String::as_str).unwrap_or_default();
                filter.until = Some(crate::times::parse(text, state.daemon.now())? / 1_000_000_000);
            }
            other => return Err(DockerError::invalid(format!("invalid filter '{other}'"))),
        }
    }
    let users = users(state);
    let pruned = blocking(state, move |images| images.prune(&filter, &users)).await?;
    let shown = told(state, &pruned.removed);
    let shown = if shown.is_empty() { Value::Null } else { json!(shown) };
    value(&json!({ "ImagesDeleted": shown, "SpaceReclaimed": pruned.reclaimed }))
}
