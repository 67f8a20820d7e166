//! Shows containers whole, field for field in Docker's order.

use super::record::{MountPoint, Record, Status};
use super::{files, spec, times};
use crate::daemon::Daemon;
use crate::error::Result;
use crate::model::{Config, EndpointSettings, Health, HostConfig, PortBinding};
use serde::Serialize;
use std::collections::BTreeMap;

/// What `docker inspect` shows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    pub id: String,
    pub created: String,
    pub path: String,
    pub args: Vec<String>,
    pub state: InspectedState,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: u32,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    pub mounts: Vec<MountPoint>,
    pub config: Config,
    pub network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedState {
    pub status: &'static str,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    pub data: BTreeMap<&'static str, String>,
    pub name: &'static str,
}

/// The first network's addresses are also shown by themselves, as they were when there was one only.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    pub bridge: String,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub sandbox_key: String,
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    pub hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u8,
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<String>>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<String>>,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    pub mac_address: String,
    pub networks: BTreeMap<String, EndpointSettings>,
}

impl Daemon {
    /// One container, with its sizes when asked.
    pub fn inspect_container(&self, wanted: &str, size: bool) -> Result<Inspected> {
        let container = self.container(wanted)?;
        let record = container.record();
        let folder = self.containers.folder.of(&record.id);
        let paths = files::paths(&folder);
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let started = |path| if record.state.started_at == 0 { String::new() } else { text(path) };
        let log = match record.host.log_config.kind.as_str() {
            "json-file" => started(folder.join(spec::log_name(&record.id))),
            _ => String::new(),
        };
        let (size_rw, size_root_fs) = if size { self.sizes(&record) } else { (None, None) };
        let execs: Vec<String> = container.execs.lock().iter().cloned().collect();
        Ok(Inspected {
            id: record.id.clone(),
            created: times::rfc3339(record.created),
            path: record.program.clone(),
            args: record.args.clone(),
            state: state(&record),
            image: record.image_id.clone(),
            resolv_conf_path: started(paths.resolv_conf),
            hostname_path: started(paths.hostname),
            hosts_path: started(paths.hosts),
            log_path: log,
            name: format!("/{}", record.name),
            restart_count: record.restart_count,
            driver: self.storage_driver().to_owned(),
            platform: "linux".to_owned(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: String::new(),
            exec_ids: (!execs.is_empty()).then_some(execs),
            graph_driver: graph_driver(&record, self.storage_driver()),
            size_rw,
            size_root_fs,
            mounts: record.mounts.iter().filter(|m| is_shown(m, &record)).map(|m| m.point.clone()).collect(),
            network_settings: self.network_settings(&record),
            host_config: HostConfig { links: self.told_links(&record), ..record.host },
            config: record.config,
        })
    }

    fn network_settings(&self, record: &Record) -> NetworkSettings {
        let bridge = record.networks.get("bridge").cloned().unwrap_or_default();
        let sandbox = record.sandbox.clone().unwrap_or_default();
        let key = self.engine.netns_path(&sandbox).ok().flatten();
        NetworkSettings {
            sandbox_key: key.map(|k| k.to_string_lossy().into_owned()).unwrap_or_default(),
            sandbox_id: sandbox,
            ports: record.ports.clone(),
            endpoint_id: bridge.endpoint_id,
            gateway: bridge.gateway,
            global_ipv6_address: bridge.global_ipv6_address,
            global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
            ip_address: bridge.ip_address,
            ip_prefix_len: bridge.ip_prefix_len,
            ipv6_gateway: bridge.ipv6_gateway,
            mac_address: bridge.mac_address,
            networks: record.networks.clone(),
            ..NetworkSettings::default()
        }
    }
}

/// A tmpfs of `--tmpfs` is a setting of the host configuration only; one of `--mount` is a mount.
fn is_shown(mount: &super::KeptMount, record: &Record) -> bool {
    let by_flag = record.host.tmpfs.iter().flatten().any(|(target, _)| *target == mount.point.destination);
    mount.point.kind != "tmpfs" || !by_flag
}

fn state(record: &Record) -> InspectedState {
    let state = &record.state;
    InspectedState {
        status: state.status.text(),
        running: state.status.is_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: state.pid,
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: times::rfc3339(state.started_at),
        finished_at: times::rfc3339(state.finished_at),
        health: state.health.clone(),
    }
}

fn graph_driver(record: &Record, name: &'static str) -> GraphDriver {
    let layer = &record.layer;
    let lower: Vec<String> = layer.lower_dirs.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    let merged = layer.upper.parent().map(|p| p.join("merged")).unwrap_or_default();
    let data = BTreeMap::from([
        ("ID", record.id.clone()),
        ("LowerDir", lower.join(":")),
        ("MergedDir", merged.to_string_lossy().into_owned()),
        ("UpperDir", layer.upper.to_string_lossy().into_owned()),
        ("WorkDir", layer.work.to_string_lossy().into_owned()),
    ]);
    GraphDriver { data, name }
}
