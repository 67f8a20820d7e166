//! Makes images of containers.

use super::{blocking, reference};
use crate::State;
use crate::answer::{Result, json_with};
use crate::call::Call;
use http::StatusCode;
use pintle_docker::containers::record::snapshot_key;
use pintle_docker::model::Config;
use pintle_image::{Commit, CommitSource};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn commit(state: &Arc<State>, mut call: Call) -> Result {
    let changed: Option<Config> = call.json::<Option<Config>>().await?.filter(|c| *c != Config::default());
    let query = &call.query;
    let container = state.daemon.container(query.get("container"))?;
    let (repository, tag) = (query.get("repo"), query.get("tag"));
    let name = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    let tag = if repository.is_empty() { None } else { Some(reference(&name)?) };
    let record = container.record();
    let mut config = json!(record.config);
    if let Some(changed) = changed {
        overlay(&mut config, &json!(changed));
    }
    pintle_image::apply_changes(&mut config, query.all("changes"))?;
    let (author, comment) = (query.get("author").to_owned(), query.get("comment").to_owned());
    let paused = query.flag_or_true("pause") && state.daemon.pause_container(&record.id).await.is_ok();
    let key = snapshot_key(&record.id);
    let words: Vec<&str> = std::iter::once(&record.program).chain(&record.args).map(String::as_str).collect();
    let created_by = words.join(" ");
    let (id, told) = (record.id.clone(), tag.as_ref().map(|t| t.familiar()).unwrap_or_default());
    let made = blocking(state, move |images| {
        images.commit(&Commit {
            source: CommitSource::Snapshot(&key),
            parent: Some(&record.image_id),
            config,
            extra: json!({ "container": record.id }),
            created_by: &created_by,
            author: &author,
            comment: &comment,
            tag,
            ..Commit::default()
        })
    })
    .await;
    if paused {
        state.daemon.unpause_container(&id).await?;
    }
    let made = made?;
    state.daemon.note_commit(&container, &made.id, &told);
    json_with(StatusCode::CREATED, &json!({ "Id": made.id }))
}

/// What is said wins over what the container has.
fn overlay(config: &mut serde_json::Value, changes: &serde_json::Value) {
    let (Some(config), Some(changes)) = (config.as_object_mut(), changes.as_object()) else { return };
    for (key, value) in changes {
        let empty = value.is_null() || *value == json!("") || *value == json!(false) || *value == json!([]);
        if !empty {
            config.insert(key.clone(), value.clone());
        }
    }
}
