//! The signals that eviction looks at, and the flags that say when they are too low.

use crate::stats::machine_use::{Filesystem, MachineUse};
use pintle_types::quantity::{Format, Quantity};

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
    fn name(self) -> &'static str {
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

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub least: Amount,
}

/// A flag that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    #[error("invalid eviction threshold syntax {0:?}, expected <signal><operator><value>")]
    Syntax(String),
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    #[error("eviction percentage threshold {signal} must be >= 0%: {value}")]
    Percent { signal: &'static str, value: String },
    #[error("eviction threshold {signal} must be a quantity that is not negative: {value}")]
    Quantity { signal: &'static str, value: String },
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
    .map(|(signal, least)| Threshold { signal, least })
    .into()
}

/// `memory.available<100Mi,nodefs.available<10%`; `signal=value`, as the configuration file has it, is the same.
pub fn parse(text: &str) -> Result<Vec<Threshold>, ThresholdError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut all = parts.map(one).collect::<Result<Vec<_>, _>>()?;
    // Zero turns a threshold off.
    all.retain(|t| !matches!(t.least, Amount::Units(0)) && t.least != Amount::Share(0.0));
    all.sort_by_key(|t| t.signal);
    Ok(all)
}

fn one(text: &str) -> Result<Threshold, ThresholdError> {
    let (name, value) = text.split_once(['<', '=']).ok_or_else(|| ThresholdError::Syntax(text.to_owned()))?;
    let (name, value) = (name.trim(), value.trim());
    let known = SIGNALS.iter().find(|(_, known)| *known == name);
    let (signal, name) = *known.ok_or_else(|| ThresholdError::Signal(name.to_owned()))?;
    let own = || value.to_owned();
    let least = match value.strip_suffix('%') {
        Some(percent) => {
            let number = percent.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
            Amount::Share(number.ok_or_else(|| ThresholdError::Percent { signal: name, value: own() })? / 100.0)
        }
        None => {
            let number = value.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok());
            Amount::Units(number.ok_or_else(|| ThresholdError::Quantity { signal: name, value: own() })?)
        }
    };
    Ok(Threshold { signal, least })
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

/// The thresholds that are crossed, in their order.
pub fn crossed(thresholds: &[Threshold], observation: &Observation) -> Vec<Crossed> {
    let check = |threshold: &Threshold| {
        let (available, capacity) = observation.of(threshold.signal)?;
        let least = match threshold.least {
            Amount::Units(units) => units,
            Amount::Share(share) => (capacity as f64 * share) as u64,
        };
        (available < least).then_some(Crossed { signal: threshold.signal, least, available })
    };
    thresholds.iter().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let parsed =
            parse("nodefs.available<10%, memory.available<100Mi,pid.available<5%,imagefs.available<0%").unwrap();
        let expected = [(Signal::Memory, Amount::Units(100 << 20)), (Signal::NodeFs, Amount::Share(0.1))];
        for (got, (signal, least)) in parsed.iter().zip(expected) {
            assert_eq!(*got, Threshold { signal, least });
        }
        assert_eq!(parsed.len(), 3, "zero turns a threshold off");
        for (text, error) in [
            (
                "memory.available",
                "invalid eviction threshold syntax \"memory.available\", expected <signal><operator><value>",
            ),
            ("cpu.available<1", "unsupported eviction signal cpu.available"),
            ("memory.available<-1%", "eviction percentage threshold memory.available must be >= 0%: -1%"),
            ("memory.available<x", "eviction threshold memory.available must be a quantity that is not negative: x"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn what_is_too_low_is_told_in_order() {
        let fs = |available, inodes_free| Filesystem { capacity: 1000, available, inodes: 100, inodes_free, used: 0 };
        let machine =
            MachineUse { memory_total: 1 << 30, memory_working_set: (1 << 30) - (50 << 20), ..Default::default() };
        let observation = Observation { machine, node_fs: Some(fs(99, 5)), ..Default::default() };
        let got = crossed(&defaults(), &observation);
        assert_eq!(got.iter().map(Crossed::name).collect::<Vec<_>>(), ["memory.available", "nodefs.available"]);
        assert_eq!(got[0].text(), "Threshold quantity: 100Mi, available: 50Mi. ");
        let well =
            Observation { machine: MachineUse { memory_total: 1 << 30, ..Default::default() }, ..Default::default() };
        assert!(crossed(&defaults(), &well).is_empty());
    }
}
