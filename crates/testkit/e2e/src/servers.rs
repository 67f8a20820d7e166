//! A cluster with two servers on one etcd, and an agent, each on a machine of its own.

use crate::cluster::{Cluster, Runtime};
use crate::command::Spawned;
use crate::host::Host;
use crate::lan::Lan;
use crate::nodes::Agent;
use anyhow::{Context, Result, ensure};

const STORE: &str = "http://192.168.77.2:2379";

pub struct Servers {
    /// The first server.
    pub cluster: Cluster,
    /// The second one: it has joined as one more server.
    pub second: Agent,
    pub agent: Agent,
    /// Runs on the machine of the first server, and goes on when that ends.
    etcd: Spawned,
    _store: tempfile::TempDir,
    _lan: Lan,
}

impl Servers {
    pub fn start() -> Result<Self> {
        let lan = Lan::new()?;
        let (first, client) = (Host::on(&lan, 0)?, Host::on(&lan, 3)?);
        let store = tempfile::Builder::new().prefix("pintle-etcd-").tempdir()?;
        let mut etcd = first.command("etcd");
        etcd.arg("--data-dir").arg(store.path()).args([
            "--listen-client-urls",
            STORE,
            "--advertise-client-urls",
            STORE,
        ]);
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--log-level", "error"]);
        let etcd = Spawned::start(etcd)?;
        let with_store = ["--datastore-endpoints", STORE];
        let (cluster, told) =
            Cluster::init(Runtime::Own, first, client, &[&with_store[..], &["--upload-certs"]].concat())?;
        let line = |further: bool| {
            let wanted = |line: &&str| line.starts_with("pintle join ") && line.contains("--control-plane") == further;
            told.lines().find(wanted).map(str::to_owned).with_context(|| format!("no command to join in:\n{told}"))
        };
        let agent = |number| Agent::new(Runtime::Own, &cluster, number, Host::on(&lan, number)?);
        let (second, agent) = (agent(1)?, agent(2)?);
        let servers = Self { second, agent, cluster, etcd, _store: store, _lan: lan };
        let kubeconfig = servers.second.path("kubeconfig");
        let more = format!("{} {} --write-kubeconfig {kubeconfig}", line(true)?, with_store.join(" "));
        servers.second.join(&more)?.ok()?;
        let told = servers.agent.join(&line(false)?)?.ok()?;
        ensure!(told.contains("This node has joined the cluster"), "{told}");
        Ok(servers)
    }

    /// The servers that the agent has written down.
    pub fn known(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.agent.path("data/servers")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Ends the first server without warning.
    pub fn kill_first(&self) -> Result<()> {
        crate::nodes::kill_background(&self.cluster.path(""))
    }

    /// Asks the second server.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let server = format!("https://{}:6443", self.second.host.address);
        self.cluster.kubectl(&[&["--server", &server], arguments].concat())?.ok()
    }

    /// Takes everything away; tells what is left.
    pub fn finish(self) -> Result<()> {
        let mut left = self.agent.reset()?;
        left.extend(self.second.reset()?);
        ensure!(left.is_empty(), "left behind after the reset:\n{}", left.join("\n"));
        // It is on the machine of the first server, where nothing may be left.
        drop(self.etcd);
        self.cluster.finish()
    }
}
