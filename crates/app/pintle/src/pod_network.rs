//! The pod network of this node: waits for the node's share of the pods' addresses, opens the bridge with it, and
//! follows the other nodes.
//!
//! Unassigned (no share is known: pods wait, the node is not Ready) → open. The share comes from the Node object, which
//! the kubelet tells, and is written down, so that the next start is open at once, with or without the API server. The
//! way to other nodes is made when there is one: a cluster of one node has no device for it. The WireGuard link is there
//! from the start, since its key has to be told, and since a kernel without WireGuard must be known then.

use crate::cluster::Cluster;
use crate::host;
use crate::tunnel::{self, Told};
use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use parking_lot::Mutex;
use pintle_client::{Client, ClientError};
use pintle_informer::{Informer, Informers, Outcome, Queue, run_reconciler};
use pintle_network::{Backend, BridgeNetwork, PeerNode, Peers, PeersConfig, TunnelEnd, sandbox_mtu};
use pintle_types::k8s::api::core::v1::Node;
use pintle_types::{Kind, ObjectKey};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// After the kernel refused something about another node.
const RETRY: Duration = Duration::from_secs(5);

/// A bridge with the addresses of a share: one range, or one of each family.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) bridge: Arc<BridgeNetwork>,
    pub(crate) subnets: Vec<IpNet>,
}

pub(crate) struct PodNetwork {
    cluster: Cluster,
    open: watch::Sender<Option<Open>>,
    /// With `--pod-network wireguard`, where this machine is a node.
    tunnel: Option<TunnelEnd>,
    /// Holds pods back until their network policies are in place.
    pub(crate) guard: pintle_policy::Guard,
}

impl PodNetwork {
    /// The network of a node: with the share of an earlier run, if there was one, and its end of tunnels to others.
    /// Blocks for some milliseconds.
    pub(crate) fn start(cluster: &Cluster) -> Result<Arc<Self>> {
        Self::with(cluster, tunnel::open(cluster)?)
    }

    /// Opens the network with the share of an earlier run, if there was one. Blocks for some milliseconds.
    pub(crate) fn resume(cluster: &Cluster) -> Result<Arc<Self>> {
        Self::with(cluster, None)
    }

    fn with(cluster: &Cluster, tunnel: Option<TunnelEnd>) -> Result<Arc<Self>> {
        let guard = pintle_policy::Guard::default();
        let network = Self { cluster: cluster.clone(), open: watch::Sender::new(None), tunnel, guard };
        if let Some(subnets) = recorded(cluster)? {
            network.assign(subnets)?;
        }
        Ok(Arc::new(network))
    }

    /// Nothing while the node has no share.
    pub(crate) fn current(&self) -> Option<Open> {
        self.open.borrow().clone()
    }

    /// Waits for the share.
    pub(crate) async fn opened(&self) -> Open {
        let mut receiver = self.open.subscribe();
        let found = receiver.wait_for(Option::is_some).await.ok().and_then(|open| open.clone());
        match found {
            Some(open) => open,
            // The sender is part of `self`: it lives.
            None => std::future::pending().await,
        }
    }

    /// Opens the network with this share, or goes on with it. Blocks for some milliseconds.
    pub(crate) fn assign(&self, subnets: Vec<IpNet>) -> Result<()> {
        match self.current() {
            Some(open) if open.subnets == subnets => return Ok(()),
            Some(open) => {
                tracing::warn!(from = ?open.subnets, to = ?subnets, "this node's pods get other addresses");
            }
            None => {}
        }
        let bridge = BridgeNetwork::open(bridge_config(&self.cluster, &subnets)?).context("set up the pod network")?;
        host::add_address(&self.cluster.settings.bridge(), self.cluster.dns_ip)?;
        let path = record_path(&self.cluster);
        let draft = path.with_extension("new");
        let text = subnets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
        let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &path));
        written.with_context(|| format!("write {}", path.display()))?;
        self.open.send_replace(Some(Open { bridge: Arc::new(bridge), subnets }));
        Ok(())
    }

    /// What the kubelet calls with `spec.podCIDRs` of this node; those of families that the cluster's pods have count.
    pub(crate) fn assign_told(&self, cidrs: &[String]) {
        let has_family =
            |net: &IpNet| self.cluster.pod_ranges.iter().any(|range| range.addr().is_ipv4() == net.addr().is_ipv4());
        let subnets: Vec<IpNet> = cidrs.iter().filter_map(|cidr| cidr.parse().ok()).filter(has_family).collect();
        let assigned = if subnets.is_empty() {
            Err(anyhow::anyhow!("none of {cidrs:?} is a range of the family of --cluster-cidr"))
        } else {
            self.assign(subnets)
        };
        if let Err(error) = assigned {
            tracing::error!(error = format!("{error:#}"), "the pod network can't be set up");
        }
    }

    /// Keeps the ways to all other nodes as the Node objects say, and tells on this node's own one, as its kubelet, what
    /// others need to know, until `stop`.
    pub(crate) async fn follow_nodes(self: Arc<Self>, informers: Informers, kubelet: Client, stop: CancellationToken) {
        let queue: Queue<String> = Queue::new();
        let nodes = informers.of::<Node>();
        let changed = queue.clone();
        nodes.on_change(move |change| {
            let place = |node: Option<&Arc<Node>>| node.map(|node| (place_of(node), Told::of(node)));
            if place(change.old()) != place(change.new()) {
                changed.add(change.object().name().to_owned());
            }
        });
        let ready = async {
            nodes.synced().await;
            self.opened().await
        };
        let Some(open) = stop.run_until_cancelled(ready).await else { return };
        let ways = Ways { network: &self, nodes, subnets: open.subnets, state: Mutex::default() };
        ways.begin();
        let reconcile = |name: String| async {
            if name != self.cluster.node_name {
                return Ok::<_, ClientError>(ways.reconcile(name));
            }
            if let Some(node) = ways.nodes.get(&ObjectKey::new("", &name)) {
                tunnel::tell(&kubelet, &node, self.tunnel.as_ref()).await?;
            }
            Ok(Outcome::Done)
        };
        queue.add(self.cluster.node_name.clone());
        run_reconciler("pod-network", queue, 1, reconcile, stop).await;
    }
}

/// Where a node is, and which pods are there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// The primary one first; not empty.
    subnets: Vec<IpNet>,
    addresses: Vec<IpAddr>,
    /// Of a node that has told it.
    tunnel: Option<Told>,
}

/// Nothing while either of the first two is unknown.
fn place_of(node: &Node) -> Option<Place> {
    let spec = node.spec.as_ref()?;
    let several = spec.pod_cidrs.iter().flatten();
    let told: Vec<&String> =
        if several.clone().count() > 0 { several.collect() } else { vec![spec.pod_cidr.as_ref()?] };
    let subnets: Vec<IpNet> = told.into_iter().filter_map(|cidr| cidr.parse().ok()).collect();
    let addresses = node.status.as_ref()?.addresses.iter().flatten();
    let internal = addresses.filter(|found| found.type_ == "InternalIP").filter_map(|found| found.address.parse().ok());
    let addresses: Vec<IpAddr> = internal.collect();
    (!subnets.is_empty() && !addresses.is_empty()).then(|| Place { subnets, addresses, tunnel: Told::of(node) })
}

/// The ways to other nodes.
struct Ways<'a> {
    network: &'a PodNetwork,
    nodes: Informer<Node>,
    subnets: Vec<IpNet>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made with the first other node, or at once where there is a tunnel.
    peers: Option<Peers>,
    /// The ranges by the nodes' names.
    ranges: HashMap<String, Vec<IpNet>>,
}

impl Ways<'_> {
    /// Tells the kernel all nodes that there are, and only then takes away what an earlier run left of others.
    fn begin(&self) {
        if self.network.tunnel.is_some()
            && let Err(error) = self.open(&mut self.state.lock())
        {
            tracing::warn!(%error, "the ways to other nodes can't be made yet");
        }
        for node in self.nodes.list() {
            if node.name() != self.network.cluster.node_name {
                self.reconcile(node.name().to_owned());
            }
        }
        let cluster = &self.network.cluster;
        let cleaned = match &self.state.lock().peers {
            Some(peers) => peers.retain(),
            None => Peers::remove_all(&device_prefix(cluster), &cluster.pod_ranges),
        };
        if let Err(error) = cleaned {
            tracing::warn!(%error, "the ways to nodes that are gone can't be removed");
        }
    }

    fn reconcile(&self, name: String) -> Outcome {
        let node = self.nodes.get(&ObjectKey::new("", &name));
        match self.lead(&name, node.as_deref().and_then(place_of)) {
            Ok(()) => Outcome::Done,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(node = name, error, "pods of another node can't be reached; trying again");
                Outcome::After(RETRY)
            }
        }
    }

    /// Once.
    fn open(&self, state: &mut State) -> Result<()> {
        if state.peers.is_none() {
            state.peers = Some(Peers::open(peers_config(&self.network.cluster, &self.subnets))?);
        }
        Ok(())
    }

    fn lead(&self, name: &str, place: Option<Place>) -> Result<()> {
        let place = place.filter(|place| self.has_told(name, place));
        let mut state = self.state.lock();
        let wanted = place.as_ref().map_or(&[][..], |place| &place.subnets);
        for gone in state.ranges.remove(name).into_iter().flatten().filter(|range| !wanted.contains(range)) {
            // A node of another name may have been given the range by now.
            let taken = state.ranges.values().flatten().any(|range| *range == gone);
            if let (Some(peers), false) = (&state.peers, taken) {
                peers.remove(gone)?;
            }
        }
        let Some(Place { subnets, addresses, tunnel }) = place else { return Ok(()) };
        if let Some(clash) = subnets.iter().find(|subnet| self.subnets.contains(subnet)) {
            bail!("node {name} has the range of this node, {clash}");
        }
        self.open(&mut state)?;
        state.ranges.insert(name.to_owned(), subnets.clone());
        let tunnel = match (&self.network.tunnel, tunnel) {
            (Some(_), Some(told)) => Some(told.read()?),
            _ => None,
        };
        match &state.peers {
            Some(peers) => Ok(peers.set(&PeerNode { subnets: &subnets, addresses: &addresses, tunnel })?),
            None => Ok(()),
        }
    }

    /// A node that has just joined tells its key some milliseconds later; one of another network never does.
    fn has_told(&self, name: &str, place: &Place) -> bool {
        let has = self.network.tunnel.is_none() || place.tunnel.is_some();
        if !has {
            tracing::info!(node = name, "waiting for another node to tell its WireGuard key");
        }
        has
    }
}

fn backend(cluster: &Cluster) -> Backend {
    match cluster.settings.pod_network() {
        pintle_cli::PodNetwork::Vxlan => Backend::Vxlan,
        pintle_cli::PodNetwork::HostGw => Backend::HostGateway,
        pintle_cli::PodNetwork::Wireguard => Backend::Wireguard,
    }
}

/// What the names of the devices to other nodes begin with, after the bridge.
pub(crate) fn device_prefix(cluster: &Cluster) -> String {
    let bridge = cluster.settings.bridge();
    bridge.get(..12).unwrap_or(&bridge).to_owned()
}

fn peers_config(cluster: &Cluster, own: &[IpNet]) -> PeersConfig {
    PeersConfig {
        backend: backend(cluster),
        device_prefix: device_prefix(cluster),
        cluster: cluster.pod_ranges.clone(),
        own: own.to_vec(),
        node: cluster.node_ips.clone(),
    }
}

fn bridge_config(cluster: &Cluster, subnets: &[IpNet]) -> Result<pintle_network::Config> {
    Ok(pintle_network::Config {
        bridge: cluster.settings.bridge(),
        pod_subnets: subnets.to_vec(),
        cluster_subnets: cluster.pod_ranges.clone(),
        translated_subnets: cluster.service_ranges.clone(),
        state_dir: cluster.data("network"),
        mtu: sandbox_mtu(backend(cluster), cluster.node_ip)?,
    })
}

fn record_path(cluster: &Cluster) -> PathBuf {
    cluster.data("pod-subnet")
}

/// The share that an earlier run had.
fn recorded(cluster: &Cluster) -> Result<Option<Vec<IpNet>>> {
    let path = record_path(cluster);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let parsed = text.trim().split(',').map(str::parse).collect::<Result<Vec<IpNet>, _>>();
            Ok(Some(parsed.with_context(|| format!("read {}", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Removes the bridge, its rules and the ways to other nodes.
pub(crate) fn remove(cluster: &Cluster) -> Result<()> {
    // Any share will do where none is known: everything is found by names and groups.
    let first = |range: &IpNet| IpNet::new_assert(range.network(), if range.addr().is_ipv4() { 24 } else { 64 });
    let subnets = recorded(cluster)?.unwrap_or_else(|| cluster.pod_ranges.iter().map(first).collect());
    Peers::remove_all(&device_prefix(cluster), &cluster.pod_ranges)?;
    Ok(BridgeNetwork::open(bridge_config(cluster, &subnets)?)?.remove_all()?)
}
