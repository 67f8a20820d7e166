//! What a machine tells of itself: its certificates, which are renewed while it runs, and how it is.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{NODES, Nodes, until};
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// The data directory of the server, or of an agent.
fn data(nodes: &Nodes, name: &str) -> Result<String> {
    if name == NODES[0] {
        return Ok(nodes.cluster.path("data").to_string_lossy().into_owned());
    }
    Ok(nodes.agent(name)?.path("data"))
}

fn pintle(nodes: &Nodes, name: &str, words: &[&str]) -> Result<pintle_e2e::Output> {
    let data = data(nodes, name)?;
    let words = [words, &["--data-dir", &data]].concat();
    if name == NODES[0] { nodes.cluster.pintle(&words) } else { nodes.agent(name)?.pintle(&words) }
}

/// The fingerprint of the certificate that somebody shows.
fn shown(nodes: &Nodes, address: &str) -> Result<String> {
    let script =
        format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint");
    nodes.cluster.client().run(&["sh", "-c", &script])?.ok()
}

fn kept(path: &str) -> Result<String> {
    let mut command = std::process::Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-in", path]);
    pintle_e2e::run_command(command, "")?.ok()
}

pub fn certificates(nodes: &Nodes) -> Result<()> {
    let table = pintle(nodes, NODES[0], &["certs", "check"])?.ok()?;
    ensure!(table.starts_with("CERTIFICATE                EXPIRES "), "{table}");
    let row = |name: &str, rest: &str| {
        let mut lines = table.lines().filter(|line| line.split_whitespace().next() == Some(name));
        lines.any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").ends_with(rest))
    };
    ensure!(row("apiserver", "UTC 364d ca no") && row("front-proxy-client", "364d front-proxy-ca no"), "{table}");
    ensure!(row("ca", "UTC 9y no"), "{table}");
    let agent = pintle(nodes, NODES[1], &["certs", "check", "-o", "json"])?.ok()?;
    let agent: Value = serde_json::from_str(&agent)?;
    let first = &agent["certificates"][0];
    ensure!(first["name"] == "kubelet" && first["externallyManaged"] == true && first["missing"] == false, "{agent}");

    renew(nodes, NODES[0], "192.168.77.2:6443", "apiserver", "restart it so that it uses that one too")?;
    ensure!(nodes.cluster.kubectl(&["get", "nodes"])?.ok()?.contains(NODES[1]), "the new kubeconfig works");
    renew(nodes, NODES[1], "192.168.77.3:10250", "kubelet", "nothing has to be restarted")?;
    nodes.wait_ready(&NODES)?;
    let unknown = pintle(nodes, NODES[1], &["certs", "renew", "apiserver"])?.failed()?;
    ensure!(unknown.contains("there are all, kubelet, kubelet-client, kube-proxy"), "{unknown}");
    let nowhere = nodes.cluster.pintle(&["certs", "check", "--data-dir", "/nonexistent/pintle"])?.failed()?;
    ensure!(nowhere.contains("has no certificates"), "{nowhere}");
    Ok(())
}

/// Renews all certificates of a machine; what runs there shows the new one without a restart.
fn renew(nodes: &Nodes, machine: &str, address: &str, name: &str, advice: &str) -> Result<()> {
    let path = format!("{}/pki/{name}.crt", data(nodes, machine)?);
    let before = kept(&path)?;
    ensure!(shown(nodes, address)? == before, "what is kept is shown");
    let told = pintle(nodes, machine, &["certs", "renew", "all"])?.ok()?;
    ensure!(told.contains(" renewed\n") && told.contains(advice), "{told}");
    let after = kept(&path)?;
    ensure!(before != after, "{name} is as it was");
    until("the new certificate is shown", SOON, || Ok((shown(nodes, address)? == after).then_some(())))
}

pub fn status(nodes: &Nodes) -> Result<()> {
    nodes.wait_ready(&NODES)?;
    let on_server = pintle(nodes, NODES[0], &["status"])?.ok()?;
    for expected in [
        "Process       server ",
        "API server    https://127.0.0.1:6443 is ready (v1.36.2",
        "Datastore     embedded: ",
        "Node          node-1 is Ready",
        "Certificates  none runs out within 30 days",
    ] {
        ensure!(on_server.contains(expected), "no {expected:?} in:\n{on_server}");
    }
    ensure!(!on_server.contains("PROBLEM"), "{on_server}");
    let space = nodes.cluster.space("status")?;
    let overrides = format!(r#"{{"spec":{{"nodeName":"{}"}}}}"#, NODES[1]);
    space.ok(&["run", "web", "--image=pintle/hello:v1", "--overrides", &overrides])?;
    space.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
    let of_agent = || -> Result<Value> {
        let output = pintle(nodes, NODES[1], &["status", "-o", "json"])?;
        serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())
    };
    let well = of_agent()?;
    ensure!(well["well"] == true && well["role"] == "agent" && well["node"]["ready"] == true, "{well}");
    ensure!(well["pods"]["Running"].as_u64().is_some_and(|count| count >= 1), "{well}");
    stopped(nodes, &of_agent)?;
    let nothing =
        nodes.cluster.pintle(&["status", "--data-dir", "/nonexistent/pintle", "--run-dir", "/nonexistent/run"])?;
    ensure!(!nothing.status.success() && nothing.stdout.contains("`pintle init`"), "{}", nothing.stdout);
    Ok(())
}

/// An agent that does not run is told of, and so is a server that does not answer, soon.
fn stopped(nodes: &Nodes, of_agent: &dyn Fn() -> Result<Value>) -> Result<()> {
    let agent = nodes.agent(NODES[1])?;
    agent.kill()?;
    nodes.lan.cut(&agent.host)?;
    let start = Instant::now();
    let told = of_agent();
    let took = start.elapsed();
    nodes.lan.heal(&agent.host)?;
    agent.start()?;
    let told = told?;
    let problems = told["problems"].to_string();
    ensure!(told["well"] == false && problems.contains("the agent does not run"), "{told}");
    ensure!(problems.contains("does not answer"), "{told}");
    ensure!(took < Duration::from_secs(20), "it took {took:?}");
    nodes.wait_ready(&[agent.name])
}
