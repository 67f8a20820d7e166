//! `pintle status`: its arguments, and what it found as a person reads it: what is wrong comes first.

use crate::Configured;
use crate::certs::short_duration;
use crate::output::{Format, size};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub struct Status {
    /// `table` or `json`.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    pub configured: Configured,
}

/// What a machine is in a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    None,
    Server,
    Agent,
    Engine,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Engine => "engine",
        }
    }
}

/// A running server or agent.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub role: Role,
    pub pid: i32,
    pub seconds: i64,
    /// Whether its Docker socket answers.
    pub socket_answers: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiServer {
    pub url: String,
    pub ready: bool,
    pub version: Option<String>,
    /// Checks of `/readyz` that do not hold.
    pub failed_checks: Vec<String>,
    /// Why there is no answer.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    /// `embedded` or `etcd`.
    pub kind: &'static str,
    /// A file, or addresses.
    pub place: String,
    pub bytes: Option<u64>,
    /// What the API server says of it; nothing when it does not answer.
    pub healthy: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Condition {
    /// Ready is to be True, pressures are to be False.
    pub fn is_well(&self) -> bool {
        self.status == if self.kind == "Ready" { "True" } else { "False" }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub ready: bool,
    pub schedulable: bool,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiring {
    pub name: String,
    pub expires: String,
    pub residual_seconds: i64,
}

/// All that is known about this machine.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub well: bool,
    pub problems: Vec<String>,
    pub version: String,
    pub kubernetes_version: String,
    pub data_dir: PathBuf,
    /// What this machine was set up as.
    pub role: Role,
    pub process: Option<Process>,
    pub api_server: Option<ApiServer>,
    pub datastore: Option<Datastore>,
    pub node: Option<Node>,
    /// Pods of this node by their state, as kubectl shows it in short.
    pub pods: BTreeMap<String, usize>,
    pub expiring_certificates: Vec<Expiring>,
}

impl Report {
    /// The report for a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for problem in &self.problems {
            line(&mut out, "PROBLEM", problem);
        }
        if !self.problems.is_empty() {
            out.push('\n');
        }
        line(&mut out, "Version", &format!("pintle {} (Kubernetes {})", self.version, self.kubernetes_version));
        line(&mut out, "Process", &self.process_text());
        if let Some(server) = &self.api_server {
            line(&mut out, "API server", &server_text(server));
        }
        if let Some(store) = &self.datastore {
            let bytes = store.bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
            line(&mut out, "Datastore", &format!("{}: {}{bytes}", store.kind, store.place));
        }
        if let Some(node) = &self.node {
            line(&mut out, "Node", &node_text(node));
            for condition in &node.conditions {
                let Condition { kind, status, reason, .. } = condition;
                line(&mut out, "", &format!("{kind} {status} ({reason})"));
            }
            line(&mut out, "Pods", &self.pods_text());
        }
        if self.role != Role::None {
            line(&mut out, "Certificates", &self.certificates_text());
        }
        out
    }

    fn process_text(&self) -> String {
        match (&self.process, self.role) {
            (Some(process), _) => {
                let since = short_duration(process.seconds);
                format!("{} {} runs for {since}", process.role.name(), process.pid)
            }
            (None, Role::None) => format!("nothing runs, and {} has no cluster or node", self.data_dir.display()),
            (None, role) => format!("the {} does not run", role.name()),
        }
    }

    fn pods_text(&self) -> String {
        if self.pods.is_empty() {
            return "none".to_owned();
        }
        self.pods.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
    }

    fn certificates_text(&self) -> String {
        if self.expiring_certificates.is_empty() {
            return "none runs out within 30 days".to_owned();
        }
        let one = |found: &Expiring| match found.residual_seconds {
            ..=0 => format!("{} has expired", found.name),
            left => format!("{} runs out in {}", found.name, short_duration(left)),
        };
        self.expiring_certificates.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn server_text(server: &ApiServer) -> String {
    match (&server.error, server.ready) {
        (Some(why), _) => format!("{} does not answer: {why}", server.url),
        (None, true) => format!("{} is ready ({})", server.url, server.version.as_deref().unwrap_or("unknown version")),
        (None, false) => format!("{} is not ready: {}", server.url, server.failed_checks.join(", ")),
    }
}

fn node_text(node: &Node) -> String {
    let ready = if node.ready { "Ready" } else { "NotReady" };
    let cordoned = if node.schedulable { "" } else { ", SchedulingDisabled" };
    format!("{} is {ready}{cordoned}", node.name)
}

fn line(out: &mut String, name: &str, text: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(out, "{name:<14}{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let condition = |kind: &str, status: &str, reason: &str| Condition {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
        };
        Report {
            well: true,
            version: "0.1.0".into(),
            kubernetes_version: "v1.36.2".into(),
            data_dir: "/var/lib/pintle".into(),
            role: Role::Server,
            process: Some(Process { role: Role::Server, pid: 7, seconds: 7300, socket_answers: true }),
            api_server: Some(ApiServer {
                url: "https://127.0.0.1:6443".into(),
                ready: true,
                version: Some("v1.36.2".into()),
                ..ApiServer::default()
            }),
            datastore: Some(Datastore {
                kind: "embedded",
                place: "/var/lib/pintle/server/state.db".into(),
                bytes: Some(1_500_000),
                healthy: Some(true),
            }),
            node: Some(Node {
                name: "a".into(),
                ready: true,
                schedulable: false,
                conditions: vec![condition("MemoryPressure", "False", "KubeletHasSufficientMemory")],
            }),
            pods: BTreeMap::from([("Running".into(), 3), ("CrashLoopBackOff".into(), 1)]),
            ..Report::default()
        }
    }

    #[test]
    fn a_machine_that_is_well() {
        let expected = "\
Version       pintle 0.1.0 (Kubernetes v1.36.2)
Process       server 7 runs for 2h
API server    https://127.0.0.1:6443 is ready (v1.36.2)
Datastore     embedded: /var/lib/pintle/server/state.db, 1.50MB
Node          a is Ready, SchedulingDisabled
              MemoryPressure False (KubeletHasSufficientMemory)
Pods          1 CrashLoopBackOff, 3 Running
Certificates  none runs out within 30 days
";
        assert_eq!(report().text(), expected);
        assert_eq!(serde_json::to_value(report()).unwrap()["apiServer"]["ready"], true);
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut broken = report();
        broken.process = None;
        broken.node = None;
        broken.problems = vec!["the server does not run: start it with `pintle server`".into()];
        let refused = ApiServer { url: "u".into(), error: Some("refused".into()), ..ApiServer::default() };
        broken.api_server = Some(refused);
        broken.expiring_certificates =
            vec![Expiring { name: "apiserver".into(), expires: String::new(), residual_seconds: 86_400 }];
        let text = broken.text();
        assert!(text.starts_with("PROBLEM       the server does not run"), "{text}");
        assert!(text.contains("API server    u does not answer: refused\n"), "{text}");
        assert!(text.contains("Certificates  apiserver runs out in 1d\n") && !text.contains("Pods"), "{text}");
    }

    #[test]
    fn an_empty_machine_is_told_so() {
        let empty = Report { data_dir: "/d".into(), ..Report::default() };
        assert!(empty.text().contains("Process       nothing runs, and /d has no cluster or node\n"));
    }
}
