//! Amounts of resources: what pods request and nodes have.

use pintle_types::k8s::api::core::v1::{Container, PodSpec};
use pintle_types::k8s::apimachinery::pkg::api::resource::Quantity as Raw;
use pintle_types::quantity::Quantity;
use std::collections::BTreeMap;

/// CPU in thousandths of a core, memory and disk in bytes, and all others by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
    /// Extended resources and huge pages; usually empty.
    pub others: Vec<(String, i64)>,
}

impl Resources {
    pub fn from_map(map: &BTreeMap<String, Raw>) -> Self {
        let mut out = Self::default();
        for (name, raw) in map {
            let quantity = Quantity::from(raw);
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli(),
                "memory" => out.memory = quantity.units(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.units(),
                "pods" => out.pods = quantity.units(),
                _ => out.others.push((name.clone(), quantity.units())),
            }
        }
        out
    }

    /// Becomes a copy of another, in the memory that it has.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let others = std::mem::take(&mut self.others);
        *self = Self { others, ..*other };
        self.others.clone_from(&other.others);
    }

    pub fn other(&self, name: &str) -> i64 {
        self.others.iter().find(|(n, _)| n == name).map_or(0, |(_, amount)| *amount)
    }

    fn merge(&mut self, more: &Self, by: fn(i64, i64) -> i64) {
        self.milli_cpu = by(self.milli_cpu, more.milli_cpu);
        self.memory = by(self.memory, more.memory);
        self.ephemeral_storage = by(self.ephemeral_storage, more.ephemeral_storage);
        self.pods = by(self.pods, more.pods);
        for (name, amount) in &more.others {
            match self.others.iter_mut().find(|(n, _)| n == name) {
                Some((_, own)) => *own = by(*own, *amount),
                None => self.others.push((name.clone(), by(0, *amount))),
            }
        }
    }

    pub fn add(&mut self, more: &Self) {
        self.merge(more, i64::saturating_add);
    }

    pub fn subtract(&mut self, less: &Self) {
        self.merge(less, i64::saturating_sub);
    }

    /// The larger of each amount.
    pub fn raise_to(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }
}

fn requests(container: &Container) -> Resources {
    let map = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    map.map(Resources::from_map).unwrap_or_default()
}

/// What a pod takes of its node: its containers and sidecars together, or its hungriest moment of initialization
/// when that is more; and its overhead. Source: KEP-753, "Resources calculation for scheduling".
pub(crate) fn pod_requests(spec: &PodSpec) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&requests(container));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut now = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&now);
            running.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        peak.raise_to(&now);
    }
    running.raise_to(&peak);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let whole_pod = Resources::from_map(whole);
        let keep = running.others.clone();
        if whole.contains_key("cpu") {
            running.milli_cpu = whole_pod.milli_cpu;
        }
        if whole.contains_key("memory") {
            running.memory = whole_pod.memory;
        }
        running.others = keep;
    }
    running.add(&spec.overhead.as_ref().map(Resources::from_map).unwrap_or_default());
    running.pods = 1;
    running
}
