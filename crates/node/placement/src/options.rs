//! What may be set, in the forms of upstream's kubelet flags, and the words in which nonsense is refused.

use crate::cpu_set::CpuSet;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Node memory and other text is bounded by the flags that carry it; this bounds what is made of it.
const MAX_PARTS: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOption(pub String);

fn bad<T>(why: impl Into<String>) -> Result<T, BadOption> {
    Err(BadOption(why.into()))
}

/// How far resources must come from the same memory nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyPolicy {
    #[default]
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

impl FromStr for TopologyPolicy {
    type Err = BadOption;
    fn from_str(text: &str) -> Result<Self, BadOption> {
        match text {
            "" | "none" => Ok(Self::None),
            "best-effort" => Ok(Self::BestEffort),
            "restricted" => Ok(Self::Restricted),
            "single-numa-node" => Ok(Self::SingleNumaNode),
            other => bad(format!("unknown policy: \"{other}\"")),
        }
    }
}

/// Whether containers are looked at one by one, or the pod as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Container,
    Pod,
}

impl FromStr for Scope {
    type Err = BadOption;
    fn from_str(text: &str) -> Result<Self, BadOption> {
        match text {
            "" | "container" => Ok(Self::Container),
            "pod" => Ok(Self::Pod),
            other => bad(format!("unknown scope: \"{other}\"")),
        }
    }
}

/// The static policy of processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Whole cores only; other requests are refused.
    pub full_pcpus_only: bool,
    /// The reserved processors are not for pods at all.
    pub strict_reservation: bool,
}

impl CpuOptions {
    /// `--cpu-manager-policy` and `--cpu-manager-policy-options`; none is that processors are shared.
    ///
    /// # Errors
    /// A policy or option that is unknown or not supported.
    pub fn parse(policy: &str, options: &str) -> Result<Option<Self>, BadOption> {
        let mut out = Self::default();
        for part in options.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Ok(value) = value.parse::<bool>() else {
                return bad(format!("bad value for option \"{name}\": \"{value}\" is neither true nor false"));
            };
            match name {
                "full-pcpus-only" => out.full_pcpus_only = value,
                "strict-cpu-reservation" => out.strict_reservation = value,
                "distribute-cpus-across-numa"
                | "align-by-socket"
                | "distribute-cpus-across-cores"
                | "prefer-align-cpus-by-uncorecache" => {
                    return bad(format!("the CPU manager policy option \"{name}\" is not supported"));
                }
                _ => return bad(format!("unknown CPU Manager Policy option: \"{name}\"")),
            }
        }
        match policy {
            "" | "none" if out == Self::default() => Ok(None),
            "" | "none" => bad("options of the CPU manager's policy need the policy static"),
            "static" => Ok(Some(out)),
            other => bad(format!("unknown policy: \"{other}\"")),
        }
    }
}

/// What of the machine is not for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    pub milli_cpu: u64,
    pub memory_bytes: u64,
}

impl Reserved {
    /// `--kube-reserved` or `--system-reserved`: `cpu=500m,memory=1Gi`. `amount` reads a quantity in thousandths.
    ///
    /// # Errors
    /// What is no amount, or of a resource that cannot be reserved.
    pub fn parse(text: &str, amount: impl Fn(&str) -> Option<i64>) -> Result<Self, BadOption> {
        let mut out = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()).take(MAX_PARTS) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(milli) = amount(value.trim()).and_then(|n| u64::try_from(n).ok()) else {
                return bad(format!("resource quantity for \"{name}\" cannot be parsed or is negative: \"{value}\""));
            };
            match name.trim() {
                "cpu" => out.milli_cpu = milli,
                "memory" => out.memory_bytes = milli / 1000,
                // Taken for compatibility: nothing here gives them out.
                "ephemeral-storage" | "pid" => {}
                other => return bad(format!("cannot reserve \"{other}\" resource")),
            }
        }
        Ok(out)
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { milli_cpu: self.milli_cpu + other.milli_cpu, memory_bytes: self.memory_bytes + other.memory_bytes }
    }
}

/// All of it. The default gives out nothing but devices.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub cpu: Option<CpuOptions>,
    /// Named processors in place of as many as `reserved` says.
    pub reserved_cpus: Option<CpuSet>,
    pub reserved: Reserved,
    /// Whether memory is given out by nodes (the policy Static).
    pub memory: bool,
    /// Bytes of each memory node that are not for pods.
    pub reserved_memory: BTreeMap<u32, u64>,
    pub topology: TopologyPolicy,
    pub scope: Scope,
}

impl Options {
    /// `--memory-manager-policy`
    ///
    /// # Errors
    /// Any other policy.
    pub fn memory_policy(text: &str) -> Result<bool, BadOption> {
        match text {
            "" | "None" => Ok(false),
            "Static" => Ok(true),
            other => bad(format!("unknown policy: \"{other}\"")),
        }
    }

    /// `--reserved-memory`: `0:memory=1Gi;1:memory=2Gi`. `amount` reads a quantity in thousandths.
    ///
    /// # Errors
    /// What has another form.
    pub fn memory_of_nodes(text: &str, amount: impl Fn(&str) -> Option<i64>) -> Result<BTreeMap<u32, u64>, BadOption> {
        let mut out = BTreeMap::new();
        for part in text.split(';').filter(|part| !part.is_empty()).take(MAX_PARTS) {
            let parsed = part.split_once(':').and_then(|(node, rest)| Some((node.trim().parse::<u32>().ok()?, rest)));
            let Some((node, rest)) = parsed else {
                return bad(format!("the format is invalid: \"{part}\" is no NODE:memory=AMOUNT"));
            };
            for pair in rest.split(',') {
                let milli = pair.split_once('=').filter(|(name, _)| *name == "memory").and_then(|(_, v)| amount(v));
                let Some(bytes) = milli.and_then(|n| u64::try_from(n / 1000).ok()) else {
                    return bad(format!("only memory can be reserved of a node, as NODE:memory=AMOUNT: \"{pair}\""));
                };
                out.insert(node, bytes);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_understood_or_refused() {
        let amount = |text: &str| match text.strip_suffix('m') {
            Some(milli) => milli.parse().ok(),
            None => text.parse::<i64>().ok().map(|n| n * 1000),
        };
        let reserved = Reserved::parse("cpu=1500m,memory=4096,pid=100", amount).unwrap();
        assert_eq!(reserved, Reserved { milli_cpu: 1500, memory_bytes: 4096 });
        let error = Reserved::parse("gpu=1", amount).unwrap_err();
        assert_eq!(error.0, "cannot reserve \"gpu\" resource");
        assert!(Reserved::parse("cpu=-1", amount).is_err());
        assert_eq!(CpuOptions::parse("none", "").unwrap(), None);
        assert!(CpuOptions::parse("static", "full-pcpus-only=true").unwrap().unwrap().full_pcpus_only);
        for (policy, options) in [
            ("dynamic", ""),
            ("static", "x=true"),
            ("static", "align-by-socket=true"),
            ("none", "full-pcpus-only=true"),
        ] {
            assert!(CpuOptions::parse(policy, options).is_err(), "{policy} {options}");
        }
        let nodes = Options::memory_of_nodes("0:memory=1;1:memory=2", amount).unwrap();
        assert_eq!(nodes, BTreeMap::from([(0, 1), (1, 2)]));
        for text in ["x", "0:hugepages-2Mi=1", "0:memory=z"] {
            assert!(Options::memory_of_nodes(text, amount).is_err(), "{text}");
        }
    }
}
