//! `pintle dev`: clusters of several nodes on this one machine, each node in namespaces of its own.
//!
//! A cluster is a directory (what it is, its kubeconfig, and one of each node), a bridge in this machine's network with
//! a port for each node, and its nodes: see `machine`. What a cluster is, is written down before anything of it is
//! made, so that `dev down` finds all of it however far `dev up` has come.

mod machine;
mod plan;
mod switch;

use crate::cluster::private_directory;
use crate::say;
use anyhow::{Context, Result, bail, ensure};
use machine::Machine;
use pintle_cli::dev::{DevCluster, DevCommand, DevName, DevPlace, DevUp, dev_table};
use pintle_cli::output::Format;
use pintle_client::{Client, Kubeconfig};
use pintle_types::k8s::api::core::v1::Node;
use plan::Plan;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long nodes may take to become Ready after they joined.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);
const JOIN: &str = "pintle join ";

pub(crate) async fn run(command: DevCommand) -> Result<()> {
    match command {
        DevCommand::Up(arguments) => up(arguments).await,
        DevCommand::Down(arguments) => tokio::task::spawn_blocking(move || down(&arguments)).await?,
        DevCommand::Ls { output, place } => list(&place, output),
    }
}

fn as_root() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "pintle dev makes networks and containers: run it as root (sudo)");
    Ok(())
}

async fn up(arguments: DevUp) -> Result<()> {
    as_root()?;
    let start = Instant::now();
    let directory = directory(&arguments.name);
    let DevName { name, place } = &arguments.name;
    ensure!(
        !directory.exists(),
        "there is a cluster {name} already: use it, end it with `pintle dev down --name {name}`, or choose another --name"
    );
    let net = switch::choose(arguments.subnet.as_deref())?;
    private_directory(&place.dir)?;
    let plan = Plan::new(name, &directory, net, arguments.nodes);
    plan.save()?;
    if let Err(error) = build(&plan).await {
        let removing = plan.clone();
        let removed = tokio::task::spawn_blocking(move || remove(&removing)).await?;
        return match removed {
            Ok(()) => Err(error.context("the cluster could not be made, and nothing is left of it")),
            Err(left) => {
                Err(error.context(format!("the cluster could not be made, and something is left of it: {left:#}")))
            }
        };
    }
    say(format_args!(
        "
Cluster {name} of {} nodes is ready after {:.1} s. To use it, run as root:

  export KUBECONFIG={}
  kubectl get nodes

Load an image into a node:   pintle image load ARCHIVE --socket {}
Run a command on a node:     ip netns exec {} COMMAND
End it and remove it:        pintle dev down --name {name} --dir {}",
        plan.nodes,
        start.elapsed().as_secs_f64(),
        plan.kubeconfig().display(),
        plan.machine(0).socket().display(),
        plan.machine(0).net_name(),
        place.dir.display(),
    ));
    Ok(())
}

/// Makes the link, the first node, and then all others at once.
async fn build(plan: &Plan) -> Result<()> {
    let machines = plan.machines();
    let making = plan.clone();
    tokio::task::spawn_blocking(move || switch::make(&making)).await??;
    let first = machines[0].clone();
    say(format_args!("{}: setting up the cluster at {}", first.name, plan.server()));
    let told = tokio::task::spawn_blocking(move || first.init()).await??;
    let command = told.lines().find_map(|line| line.strip_prefix(JOIN)).context("`pintle init` told no way to join")?;
    let joining = machines[1..].iter().map(|machine| {
        let (machine, command) = (machine.clone(), command.to_owned());
        tokio::task::spawn_blocking(move || {
            machine.join(&command)?;
            say(format_args!("{}: joined", machine.name));
            anyhow::Ok(())
        })
    });
    for joined in futures::future::join_all(joining).await {
        joined??;
    }
    let client = Client::new(Arc::new(Kubeconfig::load(plan.kubeconfig())?.transport()?));
    for machine in &machines {
        ready(&client, machine).await?;
    }
    Ok(())
}

async fn ready(client: &Client, machine: &Machine) -> Result<()> {
    let start = Instant::now();
    loop {
        let node = client.get_opt::<Node>("", &machine.name).await.ok().flatten();
        let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
        let found = conditions.iter().find(|condition| condition.type_ == "Ready");
        if found.is_some_and(|condition| condition.status == "True") {
            return Ok(());
        }
        if start.elapsed() > READY_TIMEOUT {
            let why = found.and_then(|condition| condition.message.clone()).unwrap_or_default();
            bail!("{} is not Ready after {} s: {why}", machine.name, READY_TIMEOUT.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn directory(name: &DevName) -> PathBuf {
    name.place.dir.join(&name.name)
}

fn down(arguments: &DevName) -> Result<()> {
    as_root()?;
    let directory = directory(arguments);
    let plan = Plan::load(&directory)?;
    let plan = plan.with_context(|| {
        format!(
            "there is no cluster {} in {}: `pintle dev ls` lists them",
            arguments.name,
            arguments.place.dir.display()
        )
    })?;
    remove(&plan)?;
    // Others may be in it.
    let _ = std::fs::remove_dir(&arguments.place.dir);
    say(format_args!("cluster {} is removed", arguments.name));
    Ok(())
}

/// Ends all nodes and takes everything away; what fails does not keep the rest.
fn remove(plan: &Plan) -> Result<()> {
    let machines = plan.machines();
    let mut failures: Vec<String> = std::thread::scope(|scope| {
        let removing: Vec<_> = machines.iter().map(|machine| scope.spawn(move || machine.remove())).collect();
        let ended = removing.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("its thread panicked")));
        ended
            .zip(&machines)
            .filter_map(|(ended, machine)| ended.err().map(|e| format!("{}: {e:#}", machine.name)))
            .collect()
    });
    if let Err(error) = switch::remove(plan) {
        failures.push(format!("{error:#}"));
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    std::fs::remove_dir_all(&plan.directory).with_context(|| format!("remove {}", plan.directory.display()))
}

/// The clusters in a directory; what is none is passed over.
fn plans(place: &Path) -> Result<Vec<Plan>> {
    let entries = match std::fs::read_dir(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("list {}", place.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(Plan::load(&entry?.path())?);
    }
    found.sort_by(|a: &Plan, b| a.name.cmp(&b.name));
    Ok(found)
}

fn list(place: &DevPlace, format: Format) -> Result<()> {
    let describe = |plan: Plan| DevCluster {
        running: plan.machines().iter().filter(|machine| machine.is_running()).count(),
        nodes: plan.nodes.into(),
        server: plan.server(),
        kubeconfig: plan.kubeconfig(),
        name: plan.name,
    };
    let clusters: Vec<DevCluster> = plans(&place.dir)?.into_iter().map(describe).collect();
    match format {
        Format::Table => say(dev_table(&clusters).trim_end()),
        Format::Json => say(serde_json::to_string_pretty(&clusters)?),
    }
    Ok(())
}
