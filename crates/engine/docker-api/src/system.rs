//! The Engine's calls on itself.

use crate::answer::{Answer, Result, bytes, value};
use crate::call::Call;
use crate::route::not_found;
use crate::{API_VERSION, MIN_API_VERSION, State, events, images};
use http::{HeaderValue, Method, StatusCode};
use pintle_distribution::Options as Registries;
use pintle_docker::DockerError;
use pintle_docker::containers::{ListOptions, Status};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn route(state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => Ok(ping(&call.method)),
        (&Method::GET, ["version"]) => version(),
        (&Method::GET, ["info"]) => info(state),
        (&Method::GET, ["events"]) => events::events(state, &call),
        (&Method::GET, ["system", "df"]) => usage(state, &call).await,
        _ => Err(not_found()),
    }
}

fn ping(method: &Method) -> Answer {
    let body = if method == Method::HEAD { "" } else { "OK" };
    let mut answer = bytes(StatusCode::OK, "text/plain; charset=utf-8", body);
    let headers = answer.headers_mut();
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(http::header::PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}

fn version() -> Result {
    let own = env!("CARGO_PKG_VERSION");
    let machine = rustix::system::uname();
    let details = json!({
        "ApiVersion": API_VERSION,
        "Arch": architecture(),
        "Experimental": "false",
        "KernelVersion": machine.release().to_string_lossy(),
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    });
    value(&json!({
        "Platform": { "Name": "pintle" },
        "Version": own,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": machine.release().to_string_lossy(),
        "Components": [{ "Name": "Engine", "Version": own, "Details": details }],
    }))
}

/// In the words of images.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn driver_status(driver: &str) -> Value {
    match driver {
        "overlay2" => json!([["Supports d_type", "true"], ["Native Overlay Diff", "true"], ["userxattr", "false"]]),
        _ => Value::Null,
    }
}

fn info(state: &Arc<State>) -> Result {
    let daemon = &state.daemon;
    let containers = daemon.all_containers();
    let count = |wanted: &[Status]| containers.iter().filter(|c| wanted.contains(&c.status())).count();
    let machine = rustix::system::uname();
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let v2 = daemon.engine.cgroups_are_v2();
    let memory = rustix::system::sysinfo();
    let driver = daemon.storage_driver();
    value(&json!({
        "ID": id.trim(),
        "Containers": containers.len(),
        "ContainersRunning": count(&[Status::Running, Status::Restarting]),
        "ContainersPaused": count(&[Status::Paused]),
        "ContainersStopped": count(&[Status::Created, Status::Exited, Status::Dead, Status::Removing]),
        "Images": daemon.images.list().len(),
        "Driver": driver,
        "DriverStatus": driver_status(driver),
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "macvlan", "null"],
            "Authorization": null,
            "Log": ["json-file", "local"],
        },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": true,
        "Debug": false,
        "NFd": 0,
        "OomKillDisable": !v2,
        "NGoroutines": 0,
        "SystemTime": pintle_docker::containers::rfc3339(daemon.now()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if v2 { "2" } else { "1" },
        "NEventsListener": 0,
        "KernelVersion": machine.release().to_string_lossy(),
        "OperatingSystem": operating_system(),
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": machine.machine().to_string_lossy(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registries(&state.registries),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory.totalram * u64::from(memory.mem_unit),
        "GenericResources": null,
        "DockerRootDir": daemon.config.data_dir,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": machine.nodename().to_string_lossy(),
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Runtimes": { "runc": { "path": "pintle-shim" } },
        "DefaultRuntime": "runc",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": daemon.config.live_restore,
        "Isolation": "",
        "InitBinary": "pintle-init",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "CDISpecDirs": [],
        "Warnings": null,
    }))
}

/// Registries that are not asked as others are.
fn registries(options: &Registries) -> Value {
    let is_range = |entry: &&String| entry.contains('/');
    let ranges: Vec<&String> = options.insecure.iter().filter(is_range).collect();
    let mut hosts = serde_json::Map::new();
    for host in options.insecure.iter().filter(|entry| !is_range(entry) && *entry != "localhost") {
        hosts.insert(host.clone(), json!({ "Name": host, "Mirrors": [], "Secure": false, "Official": false }));
    }
    // Each with a slash at its end, as dockerd has them.
    let mirrors: Vec<String> = options.mirrors.iter().map(|m| format!("{}/", m.trim_end_matches('/'))).collect();
    let own = json!({ "Name": "docker.io", "Mirrors": mirrors, "Secure": true, "Official": true });
    hosts.insert("docker.io".to_owned(), own);
    json!({
        "InsecureRegistryCIDRs": ranges,
        "IndexConfigs": hosts,
        "Mirrors": if mirrors.is_empty() { Value::Null } else { json!(mirrors) },
    })
}

/// `docker system df`
async fn usage(state: &Arc<State>, call: &Call) -> Result {
    let kinds = call.query.all("type");
    let wanted = |kind: &str| kinds.is_empty() || kinds.iter().any(|k| k == kind);
    let options = ListOptions { all: true, size: true, ..ListOptions::default() };
    let mut body = json!({ "LayersSize": state.images.layers_size() });
    if wanted("container") {
        let daemon = Arc::clone(&state.daemon);
        let listed = tokio::task::spawn_blocking(move || daemon.list_containers(options)).await;
        body["Containers"] = json!(listed.map_err(|e| DockerError::internal(e.to_string()))??);
    }
    if wanted("image") {
        body["Images"] = json!(images::summaries(state));
    }
    body["Volumes"] = if wanted("volume") { volumes(state).await? } else { Value::Null };
    body["BuildCache"] = json!([]);
    value(&body)
}

/// Volumes with what they use.
async fn volumes(state: &Arc<State>) -> Result<Value> {
    let daemon = Arc::clone(&state.daemon);
    let measure = move || {
        let of = |volume: pintle_docker::volumes::Volume| {
            let mut shown = volume.to_json();
            let users = daemon.users_of_volume(&volume.name).len();
            shown["UsageData"] = json!({ "RefCount": users, "Size": volume.size() });
            shown
        };
        daemon.volumes.list().into_iter().map(of).collect()
    };
    tokio::task::spawn_blocking(measure).await.map_err(|e| DockerError::internal(e.to_string()))
}
