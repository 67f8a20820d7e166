//! Lists containers as `docker ps` shows them.

use super::filter::{Filters, Matcher};
use super::record::{MountPoint, Record, Status};
use super::{Container, times};
use crate::daemon::Daemon;
use crate::error::Result;
use crate::model::{EndpointSettings, HealthStatus};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which containers, and what of them.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub all: bool,
    /// At most so many, the newest; 0 is all.
    pub limit: usize,
    pub size: bool,
    pub filters: Filters,
}

/// A container in a list.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    pub id: String,
    pub names: Vec<String>,
    pub image: String,
    #[serde(rename = "ImageID")]
    pub image_id: String,
    pub command: String,
    pub created: i64,
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    pub labels: BTreeMap<String, String>,
    pub state: String,
    pub status: String,
    pub host_config: SummaryHost,
    pub network_settings: SummaryNetworks,
    pub mounts: Vec<MountPoint>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryHost {
    pub network_mode: String,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SummaryNetworks {
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// A port of a container, with where it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    pub private_port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub public_port: u16,
    #[serde(rename = "Type")]
    pub kind: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl Daemon {
    /// Containers that match, the newest first.
    ///
    /// # Errors
    /// 400 for a filter that there is not, 404 when one names a container that is not there.
    pub fn list_containers(&self, options: ListOptions) -> Result<Vec<Summary>> {
        let matcher = Matcher::new(self, options.filters)?;
        let all = options.all || options.limit > 0 || matcher.wants_stopped();
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let shown = self.all_containers().into_iter().filter(|c| all || c.status().is_running());
        let shown = shown.filter(|c| matcher.fits(c)).take(limit);
        Ok(shown.map(|c| self.summary(&c, options.size)).collect())
    }

    fn summary(&self, container: &Arc<Container>, size: bool) -> Summary {
        let record = container.record();
        let (size_rw, size_root_fs) = match size {
            true => self.sizes(&record),
            false => (None, None),
        };
        Summary {
            names: vec![format!("/{}", record.name)],
            image: self.image_shown(&record),
            image_id: record.image_id.clone(),
            command: command(&record),
            created: record.created / 1_000_000_000,
            ports: ports(&record),
            size_rw,
            size_root_fs,
            labels: record.config.labels.clone().unwrap_or_default(),
            state: record.state.status.text().to_owned(),
            status: status_text(&record, self.now()),
            host_config: SummaryHost { network_mode: record.host.network_mode.clone() },
            mounts: record.mounts.iter().filter(|m| m.point.kind != "tmpfs").map(|m| m.point.clone()).collect(),
            network_settings: SummaryNetworks { networks: record.networks.clone() },
            id: record.id,
        }
    }

    /// The name that it was made from, unless that means another image now.
    fn image_shown(&self, record: &Record) -> String {
        let now = self.images.resolve(&record.config.image);
        if now.is_some_and(|image| image.id == record.image_id) {
            return record.config.image.clone();
        }
        record.image_id.clone()
    }

    /// Bytes of its own layer, and with those of its image.
    pub(crate) fn sizes(&self, record: &Record) -> (Option<u64>, Option<u64>) {
        let own = self.images.snapshot_usage(&record.snapshot_key()).map_or(0, |(bytes, _)| bytes);
        let image = self.images.resolve(&record.image_id).map_or(0, |image| image.unpacked_size());
        (Some(own), Some(own + image))
    }
}

/// Program and arguments; those with a space in quotes.
fn command(record: &Record) -> String {
    let words = std::iter::once(&record.program).chain(&record.args);
    let quoted = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Those that are exposed and those that are published.
pub(crate) fn ports(record: &Record) -> Vec<Port> {
    let split = |text: &str| {
        let (number, kind) = text.split_once('/').unwrap_or((text, "tcp"));
        (number.parse::<u16>().unwrap_or_default(), kind.to_owned())
    };
    let mut all = BTreeSet::new();
    if record.state.status.is_running() {
        for (port, bindings) in &record.ports {
            let (private_port, kind) = split(port);
            let published = bindings.iter().flatten().map(|b| Port {
                ip: b.host_ip.clone(),
                private_port,
                public_port: b.host_port.parse().unwrap_or_default(),
                kind: kind.clone(),
            });
            all.extend(published);
            if bindings.as_ref().is_none_or(Vec::is_empty) {
                all.insert(Port { private_port, kind, ..Port::default() });
            }
        }
    }
    all.into_iter().collect()
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`, …
pub fn status_text(record: &Record, now: i64) -> String {
    let state = &record.state;
    let health = match state.health.as_ref().map(|h| h.status) {
        None => "",
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
    };
    match state.status {
        Status::Running => format!("Up {}{health}", times::ago(state.started_at, now)),
        Status::Paused => format!("Up {} (Paused)", times::ago(state.started_at, now)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, times::ago(state.finished_at, now)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, times::ago(state.finished_at, now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted() {
        let record = Record { program: "sh".into(), args: vec!["-c".into(), "a b".into()], ..Record::default() };
        assert_eq!(command(&record), "sh -c 'a b'");
    }

    #[test]
    fn states_are_told_in_words() {
        let second = 1_000_000_000;
        let mut record = Record::default();
        assert_eq!(status_text(&record, 0), "Created");
        record.state.status = Status::Exited;
        record.state.exit_code = 3;
        assert_eq!(status_text(&record, 5 * second), "Exited (3) 5 seconds ago");
        record.state.status = Status::Running;
        record.state.health = Some(crate::model::Health::default());
        assert_eq!(status_text(&record, 5 * second), "Up 5 seconds (health: starting)");
    }
}
