//! The bundle's `config.json`, as far as this runtime acts on it (OCI runtime specification, config.md).

use crate::{Error, Result, refuse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest configuration that is read, in bytes.
const MAX_FILE: u64 = 8 << 20;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    pub oci_version: String,
    pub root: Option<Root>,
    pub mounts: Vec<Mount>,
    pub process: Option<Process>,
    pub hostname: String,
    pub domainname: String,
    pub hooks: Hooks,
    pub annotations: BTreeMap<String, String>,
    pub linux: Linux,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    pub path: PathBuf,
    pub readonly: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: PathBuf,
    pub options: Vec<String>,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub capabilities: Option<CapabilityNames>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub apparmor_profile: String,
    pub selinux_label: String,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<serde_json::Value>,
    pub io_priority: Option<serde_json::Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CapabilityNames {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    pub sysctl: BTreeMap<String, String>,
    pub resources: Option<Resources>,
    pub cgroups_path: String,
    pub namespaces: Vec<Namespace>,
    pub devices: Vec<Device>,
    pub seccomp: Option<serde_json::Value>,
    pub rootfs_propagation: String,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub mount_label: String,
    pub intel_rdt: Option<serde_json::Value>,
    pub personality: Option<serde_json::Value>,
    pub time_offsets: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub inside: u32,
    #[serde(rename = "hostID")]
    pub outside: u32,
    pub size: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: PathBuf,
    pub major: u32,
    pub minor: u32,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Limits; numbers that are not said stay.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    pub devices: Vec<DeviceCgroup>,
    pub memory: Memory,
    pub cpu: Cpu,
    pub pids: Pids,
    #[serde(rename = "blockIO")]
    pub block: Block,
    pub hugepage_limits: Vec<HugepageLimit>,
    pub unified: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct DeviceCgroup {
    pub allow: bool,
    #[serde(rename = "type")]
    pub kind: String,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub access: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub period: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    pub cpus: String,
    pub mems: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Pids {
    pub limit: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Block {
    pub weight: Option<u64>,
    pub weight_device: Vec<WeightDevice>,
    pub throttle_read_bps_device: Vec<Throttle>,
    pub throttle_write_bps_device: Vec<Throttle>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<Throttle>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<Throttle>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct WeightDevice {
    pub major: u32,
    pub minor: u32,
    pub weight: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Throttle {
    pub major: u32,
    pub minor: u32,
    pub rate: u64,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    pub page_size: String,
    pub limit: u64,
}

/// Reads a JSON file of bounded length.
pub fn read_json(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::new(format!("JSON specification file {} not found", path.display())),
        _ => Error::new(format!("read {}: {e}", path.display())),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return refuse(format!("{} is longer than {MAX_FILE} bytes", path.display()));
    }
    Ok(bytes)
}

impl Config {
    /// Parses a configuration, and refuses what is wrong or what this runtime does not do.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let nulls_left_out =
            without_nulls(serde_json::from_slice(bytes).map_err(|e| Error::new(format!("config.json: {e}")))?);
        let config: Self =
            serde_json::from_value(nulls_left_out).map_err(|e| Error::new(format!("config.json: {e}")))?;
        config.check()?;
        Ok(config)
    }

    pub fn root_path(&self, bundle: &Path) -> PathBuf {
        bundle.join(self.root.as_ref().map_or(Path::new(""), |root| &root.path))
    }

    pub fn process(&self) -> Result<&Process> {
        match &self.process {
            Some(process) => Ok(process),
            None => refuse("process property must not be empty"),
        }
    }

    /// The namespace of this type: nothing when it is the caller's, an empty path for a new one.
    pub fn namespace(&self, kind: &str) -> Option<&Path> {
        self.linux.namespaces.iter().find(|n| n.kind == kind).map(|n| n.path.as_path())
    }

    pub fn has_new(&self, kind: &str) -> bool {
        self.namespace(kind).is_some_and(|path| path.as_os_str().is_empty())
    }

    fn check(&self) -> Result<()> {
        if !self.oci_version.starts_with("1.") {
            return refuse(format!("unsupported spec version {:?}: 1.x is", self.oci_version));
        }
        if self.root.as_ref().is_none_or(|root| root.path.as_os_str().is_empty()) {
            return refuse("config.json: root.path must not be empty");
        }
        for (index, namespace) in self.linux.namespaces.iter().enumerate() {
            if !["pid", "network", "mount", "ipc", "uts", "user", "cgroup"].contains(&namespace.kind.as_str()) {
                return refuse(format!("namespace {:?} is not supported", namespace.kind));
            }
            if self.linux.namespaces[..index].iter().any(|n| n.kind == namespace.kind) {
                return refuse(format!("malformed spec file: duplicated ns {}", namespace.kind));
            }
        }
        if self.namespace("mount").is_none() {
            return refuse("a container needs a mount namespace: add one to linux.namespaces");
        }
        if self.has_new("user") && (self.linux.uid_mappings.is_empty() || self.linux.gid_mappings.is_empty()) {
            return refuse("user namespaces enabled, but no uid or gid mappings provided");
        }
        if !self.has_new("user") && !self.linux.uid_mappings.is_empty() && self.namespace("user").is_none() {
            return refuse("user namespace mappings specified, but user namespace isn't enabled in the config");
        }
        for (name, set) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            if !set.is_empty() && self.namespace("uts").is_none() {
                return refuse(format!("unable to set {name} without a private UTS namespace"));
            }
        }
        self.check_unsupported()
    }

    fn check_unsupported(&self) -> Result<()> {
        let linux = &self.linux;
        let is_linux = |domain: &serde_json::Value| domain.get("domain").and_then(|d| d.as_str()) == Some("LINUX");
        let idmapped = self.mounts.iter().any(|m| !m.uid_mappings.is_empty() || !m.gid_mappings.is_empty());
        let unsupported = [
            (linux.intel_rdt.is_some(), "linux.intelRdt"),
            (linux.personality.as_ref().is_some_and(|p| !is_linux(p)), "a personality other than LINUX"),
            (linux.time_offsets.as_ref().is_some_and(|o| !o.is_empty()), "linux.timeOffsets"),
            (!linux.mount_label.is_empty(), "linux.mountLabel"),
            (idmapped, "an ID-mapped mount"),
        ];
        match unsupported.iter().find(|(is_there, _)| *is_there) {
            Some((_, what)) => refuse(format!("{what} is not supported")),
            None => Ok(()),
        }
    }
}

/// Go writes `null` where there is nothing.
pub fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: &str, expected: &str) {
        let text = format!(r#"{{"ociVersion": "1.0.2", "root": {{"path": "rootfs"}}, {change}}}"#);
        let error = Config::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{change}: {error}");
    }

    #[test]
    fn what_is_wrong_or_not_done_is_told() {
        check(r#""linux": {}"#, "mount namespace");
        check(r#""linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}"#, "duplicated ns mount");
        check(r#""linux": {"namespaces": [{"type": "time"}]}"#, "\"time\" is not supported");
        check(r#""hostname": "x", "linux": {"namespaces": [{"type": "mount"}]}"#, "private UTS");
        check(r#""linux": {"namespaces": [{"type": "mount"}, {"type": "user"}]}"#, "no uid or gid mappings");
        check(r#""linux": {"namespaces": [{"type": "mount"}], "intelRdt": {}}"#, "linux.intelRdt is not supported");
        let deep = "[".repeat(1000);
        assert!(Config::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn nulls_are_nothing() {
        let text = r#"{"ociVersion": "1.0.2", "root": {"path": "r"}, "process": null, "hooks": null,
            "linux": {"namespaces": [{"type": "mount"}], "resources": {"memory": null}}}"#;
        assert!(Config::parse(text.as_bytes()).unwrap().process().is_err());
    }
}
