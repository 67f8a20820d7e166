//! Removes all containers that do not run.

use super::filter::{check_names, has_label};
use super::remove::RemoveOptions;
use super::{Container, Filters};
use crate::daemon::Daemon;
use crate::error::Result;
use std::sync::Arc;

impl Daemon {
    /// The ids of those that were removed, and the bytes of their layers. `until` is nanoseconds since the epoch.
    pub async fn prune_containers(
        self: &Arc<Self>,
        filters: &Filters,
        until: Option<i64>,
    ) -> Result<(Vec<String>, u64)> {
        check_names(filters, &["label", "label!", "until"])?;
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for container in self.all_containers() {
            if container.status().is_running() || !fits(&container, filters, until) {
                continue;
            }
            let size = self.sizes(&container.record()).0.unwrap_or_default();
            match self.remove_container(&container.id, RemoveOptions::default()).await {
                Ok(()) => {
                    bytes += size;
                    removed.push(container.id.clone());
                }
                Err(error) => tracing::warn!(container = %container.id, %error, "a container cannot be pruned"),
            }
        }
        let attributes = [("reclaimed".to_owned(), bytes.to_string())].into();
        self.events.tell("container", "prune", "", attributes);
        Ok((removed, bytes))
    }
}

fn fits(container: &Container, filters: &Filters, until: Option<i64>) -> bool {
    let values = |key: &str| filters.get(key).into_iter().flatten();
    container.look(|r| {
        until.is_none_or(|time| r.created < time)
            && values("label").all(|v| has_label(r.config.labels(), v))
            && !values("label!").any(|v| has_label(r.config.labels(), v))
    })
}
