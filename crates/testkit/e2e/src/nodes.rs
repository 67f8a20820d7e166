//! A cluster of three nodes: a server that `pintle init` set up, and two agents that joined it, each in a network of
//! its own on one link; clients are on a machine that is no node.

use crate::cluster::{Cluster, ROOM, Runtime, binary};
use crate::command::{Output, Spawned, run};
use crate::containerd::Containerd;
use crate::host::Host;
use crate::lan::Lan;
use crate::leftovers;
use crate::suite::Subject;
use crate::wait::until;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// Upstream's timings, shortened so that the tests need not wait for minutes.
const GRACE: &str = "8s";
const LEASE_SECONDS: &str = "8";

/// The names of the nodes; the first is the server's.
pub const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A machine that joined.
pub struct Agent {
    pub name: &'static str,
    pub host: Host,
    directory: PathBuf,
    /// An agent that was started by hand; the first one is in the background.
    running: Mutex<Option<Spawned>>,
    runtime: Runtime,
    /// What its kubelet runs pods by, if not by itself; from when it joins until its reset.
    containerd: Mutex<Option<Containerd>>,
}

pub struct Nodes {
    /// Its kubectl runs on the clients' machine.
    pub cluster: Cluster,
    pub agents: Vec<Agent>,
    pub lan: Lan,
    /// What `pintle init` printed.
    pub told: String,
}

/// Kills what runs in the background of a machine.
pub(crate) fn kill_background(directory: &Path) -> Result<()> {
    let pid = std::fs::read_to_string(directory.join("run/pintle.pid"))?.trim().parse()?;
    let pid = rustix::process::Pid::from_raw(pid).context("a process id")?;
    rustix::process::kill_process(pid, Signal::KILL)?;
    until("it is gone", SOON, || Ok(rustix::process::test_kill_process(pid).is_err().then_some(())))
}

impl Agent {
    pub(crate) fn new(runtime: Runtime, cluster: &Cluster, number: usize, host: Host) -> Result<Self> {
        let name = NODES[number];
        let directory = cluster.path(name);
        std::fs::create_dir_all(&directory)?;
        Ok(Self { name, host, directory, running: Mutex::default(), runtime, containerd: Mutex::default() })
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    fn flags(&self) -> Vec<String> {
        let pairs = [
            ("--data-dir", self.path("data")),
            ("--run-dir", self.path("run")),
            ("--log-dir", self.path("logs")),
            ("--node-name", self.name.to_owned()),
            ("--node-ip", self.host.node_ip()),
            ("--cgroup-root", format!("/{}", self.host.name)),
            ("--node-lease-duration-seconds", LEASE_SECONDS.to_owned()),
        ];
        let room = ROOM.map(|(flag, value)| (flag, value.to_owned()));
        let usual = pairs.into_iter().chain(room).flat_map(|(flag, value)| [flag.to_owned(), value]);
        usual.chain(self.runtime.flags(&self.directory)).collect()
    }

    /// Runs `pintle` on this machine to its end.
    pub fn pintle(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.args(arguments);
        run(command, "")
    }

    /// Runs the command that the server printed, with this machine's flags.
    pub fn join(&self, command: &str) -> Result<Output> {
        let words = command.trim().strip_prefix("pintle ").context("a command of pintle")?;
        let flags = self.flags();
        let mut containerd = self.containerd();
        // One that has tried to join before has it.
        if containerd.is_none() {
            *containerd = self.runtime.start(&self.host, &self.directory)?;
        }
        let words: Vec<&str> = words.split_whitespace().chain(flags.iter().map(String::as_str)).collect();
        self.pintle(&words)
    }

    fn containerd(&self) -> std::sync::MutexGuard<'_, Option<Containerd>> {
        self.containerd.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn load_images(&self, cluster: &Cluster) -> Result<()> {
        // The agent registers its node a moment before it serves everything.
        until("the image is loaded", SOON, || Ok(self.load(&cluster.path("busybox.tar")).ok()))?;
        self.containerd().as_ref().map_or(Ok(()), |containerd| cluster.load_builtin_into(containerd))
    }

    /// Loads the images of an archive.
    fn load(&self, archive: &Path) -> Result<()> {
        let socket = self.path("run/docker.sock");
        self.pintle(&["image", "load", &archive.to_string_lossy(), "--socket", &socket])?.ok()?;
        self.containerd().as_ref().map_or(Ok(()), |containerd| containerd.load(archive))
    }

    /// Ends the agent without warning.
    pub fn kill(&self) -> Result<()> {
        let started = self.running.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(mut agent) = started {
            agent.signal(Signal::KILL)?;
            return agent.wait().map(drop);
        }
        kill_background(&self.directory)
    }

    /// Starts the agent again; it finds everything in its data directory.
    pub fn start(&self) -> Result<()> {
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.args(["agent", "--data-dir", &self.path("data")]).env("RUST_BACKTRACE", "1");
        let agent = Spawned::start(command)?;
        agent.expect("the agent runs", SOON)?;
        *self.running.lock().unwrap_or_else(|p| p.into_inner()) = Some(agent);
        Ok(())
    }

    fn log(&self) -> String {
        let written = std::fs::read_to_string(self.path("data/pintle.log")).unwrap_or_default();
        let running = self.running.lock().unwrap_or_else(|p| p.into_inner());
        let below = self.containerd().as_ref().map(Containerd::log).unwrap_or_default();
        below + &written + &running.as_ref().map(Spawned::output).unwrap_or_default()
    }

    /// Resets the machine; tells what is left on it.
    pub fn reset(&self) -> Result<Vec<String>> {
        if let Some(mut agent) = self.running.lock().unwrap_or_else(|p| p.into_inner()).take() {
            agent.signal(Signal::TERM)?;
            agent.wait()?;
        }
        self.pintle(&["reset", "--yes", "--data-dir", &self.path("data")])?.ok()?;
        if let Some(containerd) = self.containerd().take() {
            containerd.finish(&self.host)?;
        }
        let left = leftovers::of(&self.host, &self.directory)?;
        Ok(left.into_iter().map(|what| format!("{}: {what}", self.name)).collect())
    }
}

impl Nodes {
    /// Sets up the server and lets two agents join.
    pub fn start() -> Result<Self> {
        Self::start_with_flags(&[])
    }

    /// The same with flags of the server besides the usual ones.
    pub fn start_with_flags(flags: &[&str]) -> Result<Self> {
        Self::start_with(Ok, flags)
    }

    /// The same with machines, pods and services of both families.
    pub fn start_dual() -> Result<Self> {
        let ranges = ["--cluster-cidr", "10.42.0.0/16,fd00:42::/56", "--service-cidr", "10.43.0.0/16,fd00:43::/112"];
        Self::start_with(Host::with_six, &ranges)
    }

    fn start_with(prepare: fn(Host) -> Result<Host>, flags: &[&str]) -> Result<Self> {
        let (lan, runtime) = (Lan::new()?, Runtime::wanted()?);
        let host = |number| prepare(Host::on(&lan, number)?);
        let further = ["--node-monitor-grace-period", GRACE, "--node-lease-duration-seconds", LEASE_SECONDS];
        let (cluster, told) = Cluster::init(runtime, host(0)?, host(3)?, &[&further[..], flags].concat())?;
        let agent = |number| Agent::new(runtime, &cluster, number, host(number)?);
        let agents = [1, 2].into_iter().map(agent).collect::<Result<Vec<_>>>()?;
        let nodes = Self { cluster, agents, lan, told };
        nodes.join_all().map_err(|error| error.context(nodes.log()))?;
        Ok(nodes)
    }

    fn join_all(&self) -> Result<()> {
        self.cluster.load_images()?;
        for agent in &self.agents {
            self.join(agent)?;
        }
        self.wait_ready(&NODES)
    }

    /// Lets a machine join, and loads the images for tests.
    pub fn join(&self, agent: &Agent) -> Result<()> {
        let told = agent.join(&self.join_command()?)?.ok()?;
        ensure!(told.contains("This node has joined the cluster"), "{told}");
        agent.load_images(&self.cluster)
    }

    /// Gives every node the images of an archive.
    pub fn load(&self, archive: &Path) -> Result<()> {
        self.cluster.load(archive)?;
        self.agents.iter().try_for_each(|agent| agent.load(archive))
    }

    /// Ends the server without warning; `Cluster::start_server` starts it again.
    pub fn kill_server(&self) -> Result<()> {
        kill_background(&self.cluster.path(""))
    }

    /// The command by which nodes join, as `pintle init` printed it.
    pub fn join_command(&self) -> Result<String> {
        let line = self.told.lines().find(|line| line.starts_with("pintle join "));
        line.map(str::to_owned).with_context(|| format!("no command to join in:\n{}", self.told))
    }

    pub fn wait_ready(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let node = format!("node/{name}");
            until(&format!("{name} is Ready"), SOON, || {
                let wait = ["wait", "--for=condition=Ready", &node, "--timeout=30s"];
                Ok(self.cluster.kubectl(&wait)?.status.success().then_some(()))
            })?;
        }
        Ok(())
    }

    /// Processes in the networks of the pods of all nodes, at least one of each pod.
    pub fn pod_processes(&self) -> Result<Vec<u32>> {
        let mut processes = self.cluster.pod_processes()?;
        for agent in &self.agents {
            if let Some(containerd) = &*agent.containerd() {
                processes.extend(containerd.processes()?);
            }
        }
        Ok(processes)
    }

    pub fn agent(&self, name: &str) -> Result<&Agent> {
        self.agents.iter().find(|agent| agent.name == name).with_context(|| format!("{name} is no agent"))
    }
}

impl Subject for Nodes {
    /// Tests take nodes away from each other.
    const PARALLEL: usize = 1;

    fn start() -> Result<Self> {
        Self::start()
    }

    fn log(&self) -> String {
        let of_agent = |agent: &Agent| format!("---- {}\n{}", agent.name, agent.log());
        let agents: String = self.agents.iter().map(of_agent).collect();
        format!("{}\n{agents}", self.cluster.server_log())
    }

    fn finish(self) -> Result<()> {
        self.cluster.end_pods()?;
        let mut left = Vec::new();
        for agent in &self.agents {
            if let Some(containerd) = &*agent.containerd() {
                containerd.expect_nothing()?;
            }
            left.extend(agent.reset()?);
        }
        ensure!(left.is_empty(), "left behind after the reset:\n{}", left.join("\n"));
        self.cluster.finish()
    }
}

/// Three nodes whose pods and services have addresses of both families.
pub struct DualNodes(pub Nodes);

impl Subject for DualNodes {
    const PARALLEL: usize = 1;

    fn start() -> Result<Self> {
        Nodes::start_dual().map(Self)
    }

    fn log(&self) -> String {
        self.0.log()
    }

    fn finish(self) -> Result<()> {
        self.0.finish()
    }
}
