//! `pintle status`: how this machine is as a server or node, and what is wrong.
//!
//! Everything is asked within a few seconds: what does not answer by then is told so. Found (files, the process, what
//! the API server says) → judged (`judge`): problems, which decide the exit code.

mod ask;
mod judge;

use crate::cluster::{self, Cluster};
use crate::{certs, presence, say};
use anyhow::Result;
use pintle_cli::output::Format;
use pintle_cli::status::{Datastore, Expiring, Process, Report, Role};
use pintle_clock::Timestamp;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long anything may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Certificates that run out by then are told of.
const SOON_SECONDS: i64 = 30 * 24 * 3600;

pub(crate) async fn run(arguments: pintle_cli::status::Status) -> Result<ExitCode> {
    let cluster = Cluster::new(cluster::settings(arguments.configured)?)?;
    let report = report(&cluster).await;
    match arguments.output {
        Format::Table => say(report.text().trim_end()),
        Format::Json => say(serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn report(cluster: &Cluster) -> Report {
    let now = pintle_clock::system().now();
    let (version, kubernetes_version) = crate::VERSIONS;
    let process = process(cluster, now).await;
    let mut report = Report {
        version: version.to_owned(),
        kubernetes_version: kubernetes_version.to_owned(),
        data_dir: cluster.settings.data_dir(),
        role: role(cluster, process.as_ref()),
        process,
        ..Report::default()
    };
    let mut problems = Vec::new();
    match certs::find(cluster) {
        Ok(found) => report.expiring_certificates = found.map(|found| expiring(&found, now)).unwrap_or_default(),
        Err(error) => problems.push(format!("certificates can't be read (run this as root): {error:#}")),
    }
    if matches!(report.role, Role::Server | Role::Agent) {
        ask::fill(cluster, &mut report).await;
    }
    if report.role == Role::Server {
        report.datastore = Some(datastore(cluster, &report));
    }
    // Who may not look does not know.
    if problems.is_empty() || report.role != Role::None {
        problems.extend(judge::problems(&report, cluster));
    }
    Report { well: problems.is_empty(), problems, ..report }
}

/// What the files say that this machine is; else what runs.
fn role(cluster: &Cluster, process: Option<&Process>) -> Role {
    if cluster.settings.server.is_some() {
        return Role::Agent;
    }
    // A file in a directory that only root may look into is not told from one that is not there.
    match cluster.data("pki/ca.key").exists() {
        true => Role::Server,
        false => process.map(|process| process.role).unwrap_or_default(),
    }
}

async fn process(cluster: &Cluster, now: Timestamp) -> Option<Process> {
    let found = presence::find(&cluster.settings.run_dir())?;
    let connecting = UnixStream::connect(cluster.settings.docker_socket());
    Some(Process {
        role: found.role,
        pid: found.pid.as_raw_nonzero().get(),
        seconds: (now.as_second() - found.since).max(0),
        socket_answers: matches!(tokio::time::timeout(PATIENCE, connecting).await, Ok(Ok(_))),
    })
}

fn expiring(found: &certs::Found, now: Timestamp) -> Vec<Expiring> {
    let all = found.certificates.iter().chain(&found.authorities);
    let soon = all.filter(|found| found.expires.is_some() && found.residual_seconds(now) <= SOON_SECONDS);
    soon.map(|found| Expiring {
        name: found.name.clone(),
        expires: found.expires.map(|end| end.to_string()).unwrap_or_default(),
        residual_seconds: found.residual_seconds(now),
    })
    .collect()
}

fn datastore(cluster: &Cluster, report: &Report) -> Datastore {
    let answered = report.api_server.as_ref().filter(|server| server.error.is_none());
    let healthy = answered.map(|server| !server.failed_checks.iter().any(|check| check.starts_with("etcd")));
    match cluster.settings.datastore_endpoints.clone().filter(|endpoints| !endpoints.is_empty()) {
        Some(place) => Datastore { kind: "etcd", place, bytes: None, healthy },
        None => {
            let path = cluster.data("server/state.db");
            // SQLite has newer changes beside it.
            let parts = ["", "-wal"].map(|end| path.with_file_name(format!("state.db{end}")));
            let sizes = parts.iter().filter_map(|part| Some(std::fs::metadata(part).ok()?.len()));
            let bytes = sizes.reduce(|all, one| all + one);
            Datastore { kind: "embedded", place: path.display().to_string(), bytes, healthy }
        }
    }
}
