//! A pod as the scheduler sees it: what it needs, worked out once.

use crate::resources::{Resources, pod_requests};
use crate::rules::NodeRules;
use crate::run::NAME;
use crate::terms::Terms;
use pintle_storage::{ClaimUse, claims_of};
use pintle_types::k8s::api::core::v1::{Pod, PodSpec};
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

/// A port of the node's own that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) ip: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

impl HostPort {
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// A pod and what it asks of a node.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub key: ObjectKey,
    pub priority: i32,
    pub requests: Resources,
    /// As `requests`, with upstream's small defaults for containers that name nothing: used to score only.
    pub(crate) scored: (i64, i64),
    pub(crate) ports: Vec<HostPort>,
    /// The claims behind its volumes.
    pub(crate) claims: Vec<ClaimUse>,
    /// Affinity to other pods; most have none.
    pub(crate) terms: Option<Box<Terms>>,
    /// Affinity to nodes; most have none.
    pub(crate) rules: Option<Box<NodeRules>>,
}

/// What a container without requests counts as when nodes are scored: 100 thousandths of a core, 200 MB.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let requests = pod_requests(spec);
        let unnamed = |resource: &str| {
            let names = |c: &&pintle_types::k8s::api::core::v1::Container| {
                let map = c.resources.as_ref().and_then(|r| r.requests.as_ref());
                !map.is_some_and(|m| m.contains_key(resource))
            };
            spec.containers.iter().filter(names).count() as i64
        };
        let scored = (
            requests.milli_cpu + unnamed("cpu") * DEFAULT_MILLI_CPU,
            requests.memory + unnamed("memory") * DEFAULT_MEMORY,
        );
        let ports = host_ports(spec);
        let (terms, claims) = (Terms::of(&pod), claims_of(&pod));
        let rules = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let rules = rules.map(|affinity| Box::new(NodeRules::new(affinity)));
        let priority = spec.priority.unwrap_or(0);
        Self { key: pod.key(), priority, requests, scored, ports, claims, terms, rules, pod }
    }

    pub(crate) fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// The name of the scheduler that it asks for.
    pub(crate) fn scheduler(&self) -> &str {
        self.spec().scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(NAME)
    }

    /// The node that room is being made on for the pod.
    pub(crate) fn nominated(&self) -> Option<&str> {
        let name = self.pod.status.as_ref()?.nominated_node_name.as_deref();
        name.filter(|name| !name.is_empty())
    }

    /// The keys of its claims.
    pub(crate) fn claim_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.claims.iter().map(|used| ObjectKey::new(self.key.namespace.as_str(), used.name.as_str()))
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.pod.label(key)
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|port| *port > 0)?;
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some(HostPort { ip: p.host_ip.clone().unwrap_or_default(), protocol, port })
        })
        .collect()
}
