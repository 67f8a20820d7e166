//! Names of capabilities, and giving up those that a program must not have (capabilities(7)).

use crate::{Context, Error, Result};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Names without `CAP_`; the place in the list is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Names of all capabilities, without `CAP_`.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// A set of capabilities, bit N for number N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The set of these names, with or without `CAP_`, in any case; `ALL` is all.
    ///
    /// # Errors
    /// The name that is not one.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> std::result::Result<Self, String> {
        names.into_iter().try_fold(Self::NONE, |set, name| Ok(set.union(Self::named(name)?)))
    }

    fn named(name: &str) -> std::result::Result<Self, String> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            return Ok(Self::ALL);
        }
        let position = NAMES.iter().position(|n| *n == short).ok_or_else(|| format!("unknown capability {name:?}"))?;
        Ok(Self(1 << position))
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn has(self, name: &str) -> bool {
        Self::named(name).is_ok_and(|one| self.0 & one.0 == one.0)
    }
}

/// What the calling thread may use now.
pub fn effective() -> Result<Capabilities> {
    let sets = rustix::thread::capabilities(None).context(|| "read capabilities")?;
    Ok(Capabilities(sets.effective.bits()))
}

/// Makes `keep` the most that this process and what it executes can ever have. To be called while still privileged.
pub fn limit(keep: Capabilities) -> Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.0 & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(e) => return Err(Error::new(format!("drop capability {number}"), e)),
        }
    }
    Ok(())
}

/// Uses all that is permitted.
pub fn raise() -> Result<()> {
    let mut sets = rustix::thread::capabilities(None).context(|| "read capabilities")?;
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets).context(|| "raise capabilities")
}

/// Keeps permitted capabilities when the user changes, until the next exec.
pub fn keep_over_user_change() -> Result<()> {
    rustix::thread::set_keep_capabilities(true).context(|| "keep capabilities")
}

/// Sets what the process may use: effective and permitted, nothing inheritable or ambient. What the process does not
/// have itself cannot be given, and is left out.
pub fn apply(wanted: Capabilities) -> Result<()> {
    let current = rustix::thread::capabilities(None).context(|| "read capabilities")?;
    let given = CapabilitySet::from_bits_retain(wanted.0) & current.permitted;
    // EINVAL before Linux 4.3, where there is nothing to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    let sets = CapabilitySets { effective: given, permitted: given, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context(|| "set capabilities")
}

/// The sets of a process that are not the bounding one (capabilities(7), "Thread capability sets").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sets {
    pub effective: Capabilities,
    pub permitted: Capabilities,
    pub inheritable: Capabilities,
    pub ambient: Capabilities,
}

/// Sets each set. What the process does not have itself is left out, as is what the kernel does not let be ambient:
/// only what is permitted and inheritable can.
pub fn apply_sets(wanted: &Sets) -> Result<()> {
    let current = rustix::thread::capabilities(None).context(|| "read capabilities")?;
    // EINVAL before Linux 4.3, where there is nothing to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    let given = |set: Capabilities| CapabilitySet::from_bits_retain(set.0) & current.permitted;
    let permitted = given(wanted.permitted);
    let sets = CapabilitySets {
        effective: given(wanted.effective) & permitted,
        permitted,
        inheritable: given(wanted.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).context(|| "set capabilities")?;
    let ambient = given(wanted.ambient) & permitted & sets.inheritable;
    for number in 0..NAMES.len() {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if ambient.contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true)
                .context(|| format!("make capability {number} ambient"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_sets_and_unknown_ones_are_told() {
        let set = Capabilities::parse(["CAP_CHOWN", "net_admin"]).unwrap();
        assert_eq!(set.0, 1 | 1 << 12);
        assert!(set.has("NET_ADMIN") && !set.has("KILL"));
        assert_eq!(Capabilities::parse(["ALL"]).unwrap(), Capabilities::ALL);
        assert_eq!(Capabilities::ALL.without(Capabilities::ALL), Capabilities::NONE);
        assert!(Capabilities::parse(["CAP_FLY"]).unwrap_err().contains("CAP_FLY"));
    }
}
