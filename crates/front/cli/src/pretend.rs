//! The commands that pretend: nodes without machines, and whole clusters without nodes.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub struct Hollow {
    /// How many nodes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub nodes: u32,
    /// Who asks, and which server.
    #[arg(long, value_name = "FILE", default_value = "/etc/pintle/kubeconfig", env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
    /// What the nodes' names begin with; a number follows.
    #[arg(long, value_name = "TEXT", default_value = "hollow-")]
    pub prefix: String,
    /// The number of the first node: several processes share the work so.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub first: u32,
    #[command(flatten)]
    pub machine: Machine,
    /// Labels of the nodes, as KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Zones that the nodes are in, in turn; 0 is none.
    #[arg(long, default_value_t = 3)]
    pub zones: u32,
    /// Gives the nodes the taint pintle.io/hollow:NoSchedule, so that only pods come that tolerate it.
    #[arg(long)]
    pub tainted: bool,
    /// Watches pods once for each node, as kubelets do, in place of once for all.
    #[arg(long)]
    pub watch_each: bool,
    /// From a pod's binding until it is Running and Ready.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub pod_start: String,
    /// How long containers take to end when their pod is deleted; its grace period, when that is shorter.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub pod_end: String,
    /// How long a pod runs that may end, as its restartPolicy says.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub pod_run: String,
    /// Between two renewals of a node's lease.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub renew: String,
    /// Leaves the Node objects there at the end; they become NotReady.
    #[arg(long)]
    pub keep: bool,
    /// Which messages to log: error, warn, info, debug, trace.
    #[arg(long, default_value = "info", env = "PINTLE_LOG")]
    pub log_level: String,
}

/// What each pretending node has.
#[derive(Args, Clone, Debug)]
pub struct Machine {
    /// Processors of each node, in thousandths of a core.
    #[arg(long, value_name = "MILLI", default_value_t = 32_000)]
    pub node_cpu: u64,
    /// Memory of each node, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 262_144)]
    pub node_memory: u64,
    /// Pods that each node takes.
    #[arg(long, value_name = "NUMBER", default_value_t = 110)]
    pub node_pods: u32,
}

/// What the pods of a Deployment ask of the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PodShape {
    /// Processor and memory alone.
    #[default]
    Plain,
    /// As well: an even spread over the zones.
    Spread,
    /// As well: no two of a Deployment on a node.
    Apart,
}

#[derive(Args, Clone, Debug)]
pub struct Sim {
    /// How many nodes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub nodes: u32,
    /// How many pods in all.
    #[arg(long, default_value_t = 3000)]
    pub pods: u32,
    /// Deployments among which the pods are shared out [default: one for 30 pods]
    #[arg(long, value_name = "NUMBER")]
    pub deployments: Option<u32>,
    /// What pods ask of the scheduler.
    #[arg(long, default_value = "plain")]
    pub shape: PodShape,
    /// Makes a Service for each Deployment.
    #[arg(long)]
    pub services: bool,
    /// What each pod asks for, in thousandths of a core.
    #[arg(long, value_name = "MILLI", default_value_t = 100)]
    pub pod_cpu: u64,
    /// What each pod asks for, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub pod_memory: u64,
    /// How long a pod takes to start, in virtual time.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub pod_start: String,
    #[command(flatten)]
    pub machine: Machine,
    /// Where all chance comes from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}
