//! The options of the driver `local`: a filesystem that is mounted on the volume's directory, as mount(8) would.

use crate::error::{DockerError, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::collections::BTreeMap;
use std::path::Path;

/// What is mounted, if anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountPlan {
    kind: String,
    device: String,
    flags: u32,
    data: Vec<String>,
}

/// Words of `o=` that are flags of mount(2), and whether they set or clear them.
const FLAGS: &[(&str, MountFlags, bool)] = &[
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("relatime", MountFlags::RELATIME, true),
    ("bind", MountFlags::BIND, true),
    ("rbind", MountFlags::BIND.union(MountFlags::REC), true),
    ("defaults", MountFlags::empty(), true),
];

impl MountPlan {
    /// # Errors
    /// 400 for an option that there is not, or that lacks another.
    pub fn read(options: &BTreeMap<String, String>) -> Result<Self> {
        for key in options.keys() {
            match key.as_str() {
                "type" | "device" | "o" => {}
                "size" => return Err(DockerError::unsupported("a volume with a quota (option size)")),
                other => return Err(DockerError::invalid(format!("invalid option: \"{other}\""))),
            }
        }
        let get = |key: &str| options.get(key).map(|v| v.trim().to_owned()).unwrap_or_default();
        let (kind, device, words) = (get("type"), get("device"), get("o"));
        if options.is_empty() {
            return Ok(Self::default());
        }
        // Docker wants them together, so that no half of a mount is asked for.
        for (key, given) in [("device", &device), ("type", &kind)] {
            let other = if key == "device" { &kind } else { &device };
            if given.is_empty() && (!other.is_empty() || !words.is_empty()) {
                return Err(DockerError::invalid(format!("missing required option: \"{key}\"")));
            }
        }
        let mut plan = Self { kind, device, ..Self::default() };
        for word in words.split(',').filter(|w| !w.is_empty()) {
            match FLAGS.iter().find(|(name, ..)| *name == word) {
                Some((_, flag, true)) => plan.flags |= flag.bits(),
                Some((_, flag, false)) => plan.flags &= !flag.bits(),
                None => plan.data.push(word.to_owned()),
            }
        }
        Ok(plan)
    }

    fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags)
    }

    fn is_nothing(&self) -> bool {
        self.kind.is_empty() && self.device.is_empty()
    }

    /// Mounts it unless it is mounted already.
    ///
    /// # Errors
    /// What the kernel says, in Docker's words.
    pub fn mount(&self, target: &Path) -> Result<()> {
        if self.is_nothing() || is_mounted(target) {
            return Ok(());
        }
        let data = self.kernel_data()?;
        let failed = |error: rustix::io::Errno| {
            let (target, device, data) = (target.display(), &self.device, self.data.join(","));
            let data = if data.is_empty() { data } else { format!(", data: {data}") };
            let words = error.to_string();
            DockerError::internal(format!(
                "failed to mount local volume: mount {device}:{target}, flags: 0x{:x}{data}: {words}",
                self.flags
            ))
        };
        if self.flags().contains(MountFlags::BIND) {
            rustix::mount::mount_bind(self.device.as_str(), target).map_err(failed)?;
            let extra = self.flags().difference(MountFlags::BIND | MountFlags::REC);
            if !extra.is_empty() {
                let remount = rustix::mount::mount_remount(target, extra | MountFlags::BIND, "");
                remount.inspect_err(|_| drop(unmount(target))).map_err(failed)?;
            }
        } else {
            let data = std::ffi::CString::new(data).map_err(|e| DockerError::invalid(e.to_string()))?;
            rustix::mount::mount(self.device.as_str(), target, self.kind.as_str(), self.flags(), Some(data.as_c_str()))
                .map_err(failed)?;
        }
        rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE).map_err(failed)
    }

    /// NFS wants the server's address as `addr=`: a name is resolved, as mount.nfs does.
    fn kernel_data(&self) -> Result<String> {
        let mut words = self.data.clone();
        if matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs") {
            for word in &mut words {
                let Some(server) = word.strip_prefix("addr=") else { continue };
                if server.parse::<std::net::IpAddr>().is_err() {
                    let found = std::net::ToSocketAddrs::to_socket_addrs(&(server, 0)).ok().and_then(|mut a| a.next());
                    let unknown = || {
                        DockerError::internal(format!(
                            "error resolving passed in network volume address: lookup {server}: no such host"
                        ))
                    };
                    *word = format!("addr={}", found.ok_or_else(unknown)?.ip());
                }
            }
        }
        Ok(words.join(","))
    }
}

/// Whether another filesystem or mount begins there.
fn is_mounted(path: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    let Ok(path) = std::fs::canonicalize(path) else { return false };
    let Some(path) = path.to_str() else { return false };
    // Names of volumes hold nothing that the kernel would escape; folders above them might, and then it mounts twice.
    text.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

/// Takes away what is mounted; nothing there is success.
pub(super) fn unmount(target: &Path) -> Result<()> {
    while is_mounted(target) {
        rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|e| DockerError::io(format_args!("unmount {}", target.display()), e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<MountPlan> {
        MountPlan::read(&options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn options_become_a_mount() {
        assert!(read(&[]).unwrap().is_nothing());
        let plan = read(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=1000,nosuid,ro,rw")]).unwrap();
        assert_eq!((plan.kernel_data().unwrap().as_str(), plan.flags()), ("size=1m,uid=1000", MountFlags::NOSUID));
        let plan = read(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro")]).unwrap();
        assert_eq!(plan.flags(), MountFlags::BIND | MountFlags::RDONLY);
        let plan = read(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=192.0.2.1,vers=4")]).unwrap();
        assert_eq!(plan.kernel_data().unwrap(), "addr=192.0.2.1,vers=4");
    }

    #[test]
    fn wrong_options_are_refused() {
        for (options, said) in [
            (&[("zz", "1")][..], "invalid option: \"zz\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("size", "1m")], "a volume with a quota (option size) is not supported"),
        ] {
            assert_eq!(read(options).unwrap_err().message, said);
        }
    }
}
