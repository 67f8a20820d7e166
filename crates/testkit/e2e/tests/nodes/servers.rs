//! Two servers share an etcd: an agent learns of both, and goes on when the one that it joined by ends.

use anyhow::{Result, ensure};
use pintle_e2e::{Nodes, Servers, until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

pub fn test(nodes: &Nodes) -> Result<()> {
    nodes.cluster.only_on_own_runtime("the two servers and their agent run pods by themselves")?;
    let servers = Servers::start()?;
    let checked = fails_over(&servers);
    let finished = servers.finish();
    checked?;
    finished
}

fn fails_over(servers: &Servers) -> Result<()> {
    let both = ["https://192.168.77.2:6443/", "https://192.168.77.3:6443/"];
    until("the agent knows both servers", SOON, || Ok((servers.known() == both).then_some(())))?;
    servers.kubectl(&["wait", "--for=condition=Ready", "node/node-3", "--timeout=60s"])?;
    servers.kill_first()?;
    let run = ["run", "late", "--image=pintle/hello:v1", "--overrides", r#"{"spec":{"nodeName":"node-3"}}"#];
    // Admission wants the namespace's service account, which is there since the first server's start.
    until("the other server takes writes", SOON, || Ok(servers.kubectl(&run).ok()))?;
    servers.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=90s"])?;
    let logs = servers.kubectl(&["logs", "late"])?;
    ensure!(logs.contains("listening on port 8080"), "{logs}");
    until("the server that ended is forgotten", SOON, || Ok((servers.known() == both[1..]).then_some(())))
}
