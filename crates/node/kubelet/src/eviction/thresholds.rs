//! The signals that eviction looks at, and when they are too low.

use crate::stats::machine_use::{Filesystem, MachineUse};
use pintle_types::quantity::{Format, Quantity};
use std::time::Duration;

/// What may run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    Memory,
    NodeFs,
    NodeFsInodes,
    ImageFs,
    ImageFsInodes,
    Pids,
}

/// Upstream's order: memory is won back first.
pub const SIGNALS: [(Signal, &str); 6] = [
    (Signal::Memory, "memory.available"),
    (Signal::NodeFs, "nodefs.available"),
    (Signal::NodeFsInodes, "nodefs.inodesFree"),
    (Signal::ImageFs, "imagefs.available"),
    (Signal::ImageFsInodes, "imagefs.inodesFree"),
    (Signal::Pids, "pid.available"),
];

impl Signal {
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }

    /// The resource that messages name.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NodeFs | Self::ImageFs => "ephemeral-storage",
            Self::NodeFsInodes | Self::ImageFsInodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// The condition of the node while it is too low.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Pids => "PIDPressure",
            _ => "DiskPressure",
        }
    }

    /// Whether deleting images and dead containers may help.
    pub fn is_disk(self) -> bool {
        !matches!(self, Self::Memory | Self::Pids)
    }
}

/// How much is to be there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Units(u64),
    /// Of the capacity, 0 to 1.
    Share(f64),
}

impl Amount {
    fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Share(share) => (capacity as f64 * share) as u64,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub least: Amount,
    /// How long it must be crossed before pods go; zero is a hard one.
    pub grace: Duration,
    /// How much more than the threshold is won back, once pods go.
    pub reclaim: Option<Amount>,
}

impl Threshold {
    /// One that is acted upon at once.
    pub fn hard(signal: Signal, least: Amount) -> Self {
        Self { signal, least, grace: Duration::ZERO, reclaim: None }
    }

    /// Whether it is crossed, or while it is `being_won_back`, whether not yet enough is there.
    pub fn crossed(&self, observation: &Observation, being_won_back: bool) -> Option<Crossed> {
        let (available, capacity) = observation.of(self.signal)?;
        let least = self.least.of(capacity);
        let more = self.reclaim.filter(|_| being_won_back).map_or(0, |reclaim| reclaim.of(capacity));
        let is_hard = self.grace.is_zero();
        (available < least.saturating_add(more)).then_some(Crossed { signal: self.signal, least, available, is_hard })
    }
}

/// Upstream's thresholds on Linux.
pub fn defaults() -> Vec<Threshold> {
    [
        (Signal::Memory, Amount::Units(100 << 20)),
        (Signal::NodeFs, Amount::Share(0.10)),
        (Signal::NodeFsInodes, Amount::Share(0.05)),
        (Signal::ImageFs, Amount::Share(0.15)),
        (Signal::ImageFsInodes, Amount::Share(0.05)),
    ]
    .map(|(signal, least)| Threshold::hard(signal, least))
    .into()
}

/// How much of each signal there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation {
    pub machine: MachineUse,
    pub node_fs: Option<Filesystem>,
    /// Nothing when images are on the node's filesystem.
    pub image_fs: Option<Filesystem>,
    /// All, and those in use.
    pub pids: (u64, u64),
}

impl Observation {
    /// What is available and what there could be at most; nothing when it is not measured.
    fn of(&self, signal: Signal) -> Option<(u64, u64)> {
        let bytes = |fs: Option<Filesystem>| fs.map(|fs| (fs.available, fs.capacity));
        // A filesystem that makes inodes as it needs them (btrfs) tells none.
        let inodes = |fs: Option<Filesystem>| fs.filter(|fs| fs.inodes > 0).map(|fs| (fs.inodes_free, fs.inodes));
        match signal {
            Signal::Memory => Some((self.machine.memory_available(), self.machine.memory_total)),
            Signal::NodeFs => bytes(self.node_fs),
            Signal::NodeFsInodes => inodes(self.node_fs),
            Signal::ImageFs => bytes(self.image_fs),
            Signal::ImageFsInodes => inodes(self.image_fs),
            Signal::Pids => Some((self.pids.0.saturating_sub(self.pids.1), self.pids.0)),
        }
        .filter(|(_, capacity)| *capacity > 0)
    }
}

/// A threshold that is crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed {
    pub signal: Signal,
    pub least: u64,
    pub available: u64,
    /// Whether there is no time to lose.
    pub is_hard: bool,
}

impl Crossed {
    /// `Threshold quantity: 100Mi, available: 50Mi. `
    pub fn text(&self) -> String {
        let (least, available) = (self.quantity(self.least), self.quantity(self.available));
        format!("Threshold quantity: {least}, available: {available}. ")
    }

    fn quantity(&self, amount: u64) -> String {
        match self.signal {
            Signal::Memory | Signal::NodeFs | Signal::ImageFs => bytes_text(amount),
            _ => amount.to_string(),
        }
    }

    pub fn name(&self) -> &'static str {
        self.signal.name()
    }
}

/// Bytes as upstream prints them: `100Mi`, `51300Ki`.
pub fn bytes_text(bytes: u64) -> String {
    Quantity::from_units(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_low_is_told_in_order() {
        let fs = |available, inodes_free| Filesystem { capacity: 1000, available, inodes: 100, inodes_free, used: 0 };
        let machine =
            MachineUse { memory_total: 1 << 30, memory_working_set: (1 << 30) - (50 << 20), ..Default::default() };
        let observation = Observation { machine, node_fs: Some(fs(99, 5)), ..Default::default() };
        let crossed = |observation| -> Vec<Crossed> {
            defaults().iter().filter_map(|threshold| threshold.crossed(observation, false)).collect()
        };
        let got = crossed(&observation);
        assert_eq!(got.iter().map(Crossed::name).collect::<Vec<_>>(), ["memory.available", "nodefs.available"]);
        assert_eq!(got[0].text(), "Threshold quantity: 100Mi, available: 50Mi. ");
        let well =
            Observation { machine: MachineUse { memory_total: 1 << 30, ..Default::default() }, ..Default::default() };
        assert!(crossed(&well).is_empty());
    }
}
