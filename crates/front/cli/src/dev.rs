//! `pintle dev`: arguments of clusters of several nodes on one machine, and how they are listed.

use crate::output::{Format, table};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Makes a cluster of several nodes on this machine, each in namespaces of its own, and starts it.
    Up(DevUp),
    /// Ends such a cluster and removes everything of it.
    Down(DevName),
    /// Lists such clusters.
    #[command(visible_alias = "list")]
    Ls {
        /// `table` or `json`.
        #[arg(short, long, default_value = "table")]
        output: Format,
        #[command(flatten)]
        place: DevPlace,
    },
}

/// Where the clusters are kept.
#[derive(Args, Clone, Debug)]
pub struct DevPlace {
    /// The directory that has one of each cluster.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/pintle-dev", env = "PINTLE_DEV_DIR")]
    pub dir: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub struct DevName {
    /// The name of the cluster: up to eight letters and digits.
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = cluster_name)]
    pub name: String,
    #[command(flatten)]
    pub place: DevPlace,
}

#[derive(Args, Clone, Debug)]
pub struct DevUp {
    /// How many nodes; the first one is the server's.
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub nodes: u8,
    /// The addresses of the nodes, a /24 [default: the first of 172.30.200.0/24 … 172.30.254.0/24 that is free]
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<String>,
    #[command(flatten)]
    pub name: DevName,
}

/// Names of links, which are short, are made of it.
fn cluster_name(text: &str) -> Result<String, String> {
    let good =
        (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    good.then(|| text.to_owned()).ok_or_else(|| "use one to eight lower-case letters and digits".to_owned())
}

/// A cluster in the list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DevCluster {
    pub name: String,
    pub nodes: usize,
    /// Of how many of them the server or agent runs.
    pub running: usize,
    pub server: String,
    pub kubeconfig: PathBuf,
}

/// The clusters as a table.
pub fn dev_table(clusters: &[DevCluster]) -> String {
    let row = |found: &DevCluster| {
        vec![
            found.name.clone(),
            format!("{}/{}", found.running, found.nodes),
            found.server.clone(),
            found.kubeconfig.display().to_string(),
        ]
    };
    table(&["NAME", "RUNNING", "API SERVER", "KUBECONFIG"], &clusters.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!(cluster_name("dev2").unwrap(), "dev2");
        for bad in ["", "toolongname", "Dev", "a-b", "ä"] {
            assert!(cluster_name(bad).unwrap_err().contains("lower-case"), "{bad}");
        }
    }

    #[test]
    fn clusters_are_listed() {
        let found = DevCluster {
            name: "dev".into(),
            nodes: 3,
            running: 2,
            server: "https://172.30.200.2:6443".into(),
            kubeconfig: "/k".into(),
        };
        let expected = "NAME   RUNNING   API SERVER                  KUBECONFIG\n\
                        dev    2/3       https://172.30.200.2:6443   /k\n";
        assert_eq!(dev_table(&[found]), expected);
    }
}
