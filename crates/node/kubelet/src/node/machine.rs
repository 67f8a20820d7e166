//! Reads what the machine is: processors, memory, disk, names and versions.

use crate::huge_pages::HugePages;
use std::path::Path;

/// What the Node object tells of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub processors: u32,
    pub memory_bytes: u64,
    pub huge_pages: Vec<HugePages>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
}

impl Machine {
    /// Reads it from /proc, /sys and /etc. What can't be read is empty.
    pub fn read() -> Self {
        let text = |path: &str| crate::container_config::read_bounded(Path::new(path), 64 * 1024).unwrap_or_default();
        let word = |path: &str| text(path).trim().to_owned();
        let machine_id = word("/etc/machine-id");
        let uuid = word("/sys/class/dmi/id/product_uuid");
        Self {
            processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_bytes: memory(&text("/proc/meminfo")),
            huge_pages: HugePages::read(Path::new("/sys/kernel/mm/hugepages")),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: word("/proc/sys/kernel/random/boot_id"),
            kernel_version: word("/proc/sys/kernel/osrelease"),
            os_image: os_image(&text("/etc/os-release")),
        }
    }

    /// The memory that is not in huge pages.
    pub fn plain_memory_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.huge_pages.iter().map(HugePages::bytes).sum())
    }
}

/// `MemTotal:       16316412 kB`
fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default().saturating_mul(1024)
}

fn os_image(text: &str) -> String {
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    name.trim_matches('"').to_owned()
}

/// The processor's kind, in the names that images use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "x86" => "386",
        other => other,
    }
}

/// Bytes of the filesystem that holds a path: all, and those available.
pub fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_understood() {
        assert_eq!(memory("MemTotal:       16316412 kB\nMemFree: 1 kB\n"), 16_316_412 * 1024);
        assert_eq!(memory("nonsense"), 0);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }
}
