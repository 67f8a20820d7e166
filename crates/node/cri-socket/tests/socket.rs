//! A runtime behind a socket is the runtime itself: what is asked arrives as it was, and so do answers and streams.

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use pintle_cri::*;
use pintle_cri_socket::{CriServer, RemoteRuntime};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Keeps what it was asked for. Commands and ports say back what they are told.
#[derive(Default)]
struct Echo {
    sandbox: Mutex<PodSandboxConfig>,
    container: Mutex<ContainerConfig>,
    resources: Mutex<LinuxContainerResources>,
    stopped: Mutex<Vec<(String, u64)>>,
    pod_cidrs: Mutex<Vec<String>>,
}

fn no<T>(what: &str) -> CriResult<T> {
    Err(CriError::Unimplemented(what.to_owned()))
}

fn status(id: &str) -> CriResult<ContainerStatus> {
    if id != "c1" {
        return Err(CriError::NotFound { what: "container", id: id.to_owned() });
    }
    Ok(ContainerStatus {
        id: id.to_owned(),
        metadata: ContainerMetadata { name: "work".to_owned(), attempt: 3 },
        state: ContainerState::Running,
        created_at: 1,
        started_at: 2,
        exit_code: -1,
        image: "e2e/busybox:1".to_owned(),
        image_ref: "repo@sha256:1".to_owned(),
        image_id: "sha256:2".to_owned(),
        user: Some(ContainerUser { uid: 1000, gid: 0, supplemental_groups: vec![5] }),
        pid: 77,
        ..ContainerStatus::default()
    })
}

fn echoed() -> ExecSession {
    let (stdin, stdout) = tokio::io::duplex(1024);
    ExecSession {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: None,
        resize: tokio::sync::mpsc::channel(4).0,
        exit: async { Ok(ExitOutcome::Code(9)) }.boxed(),
    }
}

#[async_trait]
impl RuntimeService for Echo {
    async fn version(&self) -> CriResult<VersionResponse> {
        let text = |text: &str| text.to_owned();
        Ok(VersionResponse { runtime_name: text("echo"), runtime_version: text("7"), runtime_api_version: text("v1") })
    }
    async fn status(&self) -> CriResult<RuntimeStatus> {
        let handler = RuntimeHandler { name: "h".to_owned(), user_namespaces: true, ..RuntimeHandler::default() };
        Ok(RuntimeStatus { runtime_ready: Ok(()), network_ready: Err("no bridge".to_owned()), handlers: vec![handler] })
    }
    async fn update_pod_cidrs(&self, cidrs: &[String]) -> CriResult<()> {
        *self.pod_cidrs.lock() = cidrs.to_vec();
        Ok(())
    }
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> CriResult<String> {
        *self.sandbox.lock() = config;
        Ok(format!("sandbox of {handler}"))
    }
    async fn stop_pod_sandbox(&self, _: &str) -> CriResult<()> {
        Ok(())
    }
    async fn remove_pod_sandbox(&self, _: &str) -> CriResult<()> {
        Ok(())
    }
    async fn pod_sandbox_status(&self, id: &str) -> CriResult<PodSandboxStatus> {
        let ips = vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()];
        let metadata = PodSandboxMetadata { uid: "u1".to_owned(), ..PodSandboxMetadata::default() };
        Ok(PodSandboxStatus { id: id.to_owned(), metadata, ips, ..PodSandboxStatus::default() })
    }
    async fn list_pod_sandbox(&self, _: PodSandboxFilter) -> CriResult<Vec<PodSandbox>> {
        Ok(vec![])
    }
    async fn create_container(&self, _: &str, config: ContainerConfig, of: &PodSandboxConfig) -> CriResult<String> {
        *self.container.lock() = config;
        *self.sandbox.lock() = of.clone();
        Ok("c1".to_owned())
    }
    async fn start_container(&self, id: &str) -> CriResult<()> {
        status(id).map(drop)
    }
    async fn stop_container(&self, id: &str, timeout_seconds: u64) -> CriResult<()> {
        self.stopped.lock().push((id.to_owned(), timeout_seconds));
        Ok(())
    }
    async fn remove_container(&self, _: &str) -> CriResult<()> {
        Err(CriError::FailedPrecondition("it runs".to_owned()))
    }
    async fn container_status(&self, id: &str) -> CriResult<ContainerStatus> {
        status(id)
    }
    async fn list_containers(&self, filter: ContainerFilter) -> CriResult<Vec<Container>> {
        let sandbox_id = filter.sandbox_id.unwrap_or_default();
        Ok((0..200)
            .map(|n| Container { id: n.to_string(), sandbox_id: sandbox_id.clone(), ..Default::default() })
            .collect())
    }
    async fn update_container_resources(&self, _: &str, resources: LinuxContainerResources) -> CriResult<()> {
        *self.resources.lock() = resources;
        Ok(())
    }
    async fn reopen_container_log(&self, _: &str) -> CriResult<()> {
        no("a log")
    }
    async fn container_stats(&self, id: &str) -> CriResult<ContainerStats> {
        Ok(ContainerStats {
            id: id.to_owned(),
            timestamp: 5,
            cpu_usage_nanos: 6,
            memory_usage_bytes: 9,
            memory_working_set_bytes: 8,
            memory_rss_bytes: 7,
            writable_layer_bytes: 10,
            writable_layer_inodes: 11,
            ..ContainerStats::default()
        })
    }
    async fn list_container_stats(&self, _: ContainerFilter) -> CriResult<Vec<ContainerStats>> {
        Ok(vec![self.container_stats("c1").await?])
    }
    async fn exec_sync(&self, _: &str, command: &[String], timeout: u64) -> CriResult<ExecSyncResponse> {
        if timeout == 1 {
            return Err(CriError::DeadlineExceeded("command".to_owned()));
        }
        Ok(ExecSyncResponse { stdout: command.join(" ").into_bytes(), stderr: vec![0, 255], exit_code: 4 })
    }
    async fn exec(&self, _: ExecRequest) -> CriResult<ExecSession> {
        Ok(echoed())
    }
    async fn attach(&self, _: AttachRequest) -> CriResult<ExecSession> {
        no("to attach")
    }
    async fn port_forward(&self, _: &str, port: u16) -> CriResult<ByteStream> {
        if port == 1 {
            return Err(CriError::Internal("nobody listens".to_owned()));
        }
        let (here, there) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(there);
            // The test has seen all that it waits for when this ends.
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        Ok(Box::new(here))
    }
    async fn events(&self) -> CriResult<EventStream> {
        let event = |kind, container: &str| RuntimeEvent {
            kind,
            container_id: container.to_owned(),
            sandbox_id: "s1".to_owned(),
            pod_uid: "u1".to_owned(),
        };
        let events = [event(EventKind::SandboxStarted, ""), event(EventKind::ContainerStopped, "c1")];
        Ok(futures::stream::iter(events).chain(futures::stream::pending()).boxed())
    }
}

#[async_trait]
impl ImageService for Echo {
    async fn list_images(&self) -> CriResult<Vec<Image>> {
        Ok(vec![])
    }
    async fn image_status(&self, _: &str) -> CriResult<Option<Image>> {
        Ok(None)
    }
    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> CriResult<String> {
        Ok(format!("{image} by {}", auth.map(|auth| auth.username).unwrap_or_default()))
    }
    async fn remove_image(&self, _: &str) -> CriResult<()> {
        Ok(())
    }
    async fn image_fs_info(&self) -> CriResult<FilesystemUsage> {
        Ok(FilesystemUsage { timestamp: 1, mountpoint: "/images".to_owned(), used_bytes: 2, inodes_used: 3 })
    }
}

struct Served {
    echo: Arc<Echo>,
    remote: RemoteRuntime,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let (path, stop, echo) = (folder.path().join("cri.sock"), CancellationToken::new(), Arc::new(Echo::default()));
    let server = CriServer::bind(&path).unwrap();
    tokio::spawn(server.serve(Arc::clone(&echo) as Arc<dyn Runtime>, stop.clone()));
    let remote = RemoteRuntime::new(&format!("unix://{}", path.display()), folder.path()).unwrap();
    Served { echo, remote, stop, _folder: folder }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn map(key: &str, value: &str) -> Labels {
    Labels::from([(key.to_owned(), value.to_owned())])
}

fn resources() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: -1,
        cpu_shares: 2,
        memory_limit_in_bytes: 1 << 40,
        memory_swap_limit_in_bytes: 5,
        oom_score_adj: -997,
        cpuset_cpus: "0-1".to_owned(),
        cpuset_mems: "0".to_owned(),
        pids_limit: 0,
        hugepage_limits: vec![("2MB".to_owned(), 4)],
        unified: map("memory.min", "1"),
    }
}

fn sandbox_config() -> PodSandboxConfig {
    let range = IdRange { inside: 0, outside: 65_536, size: 65_536 };
    PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: "p".to_owned(),
            uid: "u".to_owned(),
            namespace: "n".to_owned(),
            attempt: 4,
        },
        hostname: "h".to_owned(),
        log_directory: "/logs".to_owned(),
        dns: DnsConfig { servers: texts(&["10.0.0.10"]), searches: texts(&["a", "b"]), options: texts(&["ndots:5"]) },
        port_mappings: vec![PortMapping {
            protocol: Protocol::Sctp,
            container_port: 80,
            host_port: 65_535,
            host_ip: "::1".to_owned(),
        }],
        labels: map("l", "1"),
        annotations: map("a", "2"),
        cgroup_parent: "/pods/x".to_owned(),
        sysctls: map("kernel.shm_rmid_forced", "1"),
        namespaces: NamespaceOption {
            network: NamespaceMode::Node,
            pid: NamespaceMode::Container,
            ipc: NamespaceMode::Pod,
        },
        privileged: true,
        id_mappings: IdMappings { users: vec![range], groups: vec![range] },
        overhead: Some(resources()),
    }
}

fn container_config() -> ContainerConfig {
    let mount = Mount {
        container_path: "/c".to_owned(),
        host_path: "/h".to_owned(),
        readonly: true,
        recursive_readonly: true,
        propagation: MountPropagation::HostToContainer,
        ..Mount::default()
    };
    let image = Mount { image: "i:1".to_owned(), sub_path: "part".to_owned(), ..Mount::default() };
    ContainerConfig {
        metadata: ContainerMetadata { name: "work".to_owned(), attempt: 5 },
        image: "sha256:2".to_owned(),
        command: texts(&["sh", "-c"]),
        args: texts(&["", "two words"]),
        working_dir: "/w".to_owned(),
        envs: vec![("A".to_owned(), String::new()), ("B".to_owned(), "ü=".to_owned())],
        mounts: vec![mount, image],
        devices: vec![Device {
            container_path: "/dev/a".to_owned(),
            host_path: "/dev/b".to_owned(),
            permissions: "rw".to_owned(),
        }],
        labels: map("l", "3"),
        annotations: map("a", "4"),
        log_path: "work/5.log".to_owned(),
        log_max_bytes: 0,
        stdin: true,
        stdin_once: true,
        tty: true,
        resources: resources(),
        security: ContainerSecurityContext {
            add_capabilities: texts(&["NET_ADMIN"]),
            drop_capabilities: texts(&["ALL"]),
            privileged: true,
            namespaces: NamespaceOption {
                pid: NamespaceMode::Target("other".to_owned()),
                ..NamespaceOption::default()
            },
            run_as_user: Some(0),
            run_as_group: Some(65_534),
            run_as_username: String::new(),
            readonly_rootfs: true,
            supplemental_groups: vec![1, 2],
            supplemental_groups_strict: true,
            no_new_privs: true,
            seccomp: SeccompProfile::Localhost("/p.json".to_owned()),
            masked_paths: texts(&["/proc/keys"]),
            readonly_paths: texts(&["/proc/sys"]),
        },
        stop_signal: "SIGRTMIN+3".to_owned(),
        cdi_devices: vec!["vendor.com/class=one".to_owned()],
    }
}

#[tokio::test]
async fn configurations_arrive_as_they_were() {
    let served = served();
    let made = served.remote.run_pod_sandbox(sandbox_config(), "h").await;
    assert_eq!(made, Ok("sandbox of h".to_owned()));
    assert_eq!(*served.echo.sandbox.lock(), sandbox_config());
    *served.echo.sandbox.lock() = PodSandboxConfig::default();
    assert_eq!(served.remote.create_container("s1", container_config(), &sandbox_config()).await, Ok("c1".to_owned()));
    assert_eq!(*served.echo.container.lock(), container_config());
    assert_eq!(*served.echo.sandbox.lock(), sandbox_config());
    served.remote.update_container_resources("c1", resources()).await.unwrap();
    let cidrs = texts(&["10.42.1.0/24", "fd00:42:0:1::/64"]);
    served.remote.update_pod_cidrs(&cidrs).await.unwrap();
    assert_eq!(*served.echo.pod_cidrs.lock(), cidrs);
    assert_eq!(*served.echo.resources.lock(), resources());
    served.remote.stop_container("c1", 30).await.unwrap();
    assert_eq!(*served.echo.stopped.lock(), [("c1".to_owned(), 30)]);
}

#[tokio::test]
async fn answers_arrive_as_they_were() {
    let (served, echo) = (served(), Echo::default());
    let remote = &served.remote;
    assert_eq!(remote.version().await, echo.version().await);
    assert_eq!(RuntimeService::status(remote).await, RuntimeService::status(&echo).await);
    assert_eq!(remote.container_status("c1").await, echo.container_status("c1").await);
    assert_eq!(remote.pod_sandbox_status("s1").await, echo.pod_sandbox_status("s1").await);
    assert_eq!(remote.container_stats("c1").await, echo.container_stats("c1").await);
    let all = ContainerFilter::default;
    assert_eq!(remote.list_container_stats(all()).await, echo.list_container_stats(all()).await);
    let of_sandbox = || ContainerFilter { sandbox_id: Some("s1".to_owned()), ..ContainerFilter::default() };
    assert_eq!(remote.list_containers(of_sandbox()).await, echo.list_containers(of_sandbox()).await);
    let command = texts(&["echo", "words"]);
    assert_eq!(remote.exec_sync("c1", &command, 5).await, echo.exec_sync("c1", &command, 5).await);
    assert_eq!(remote.image_fs_info().await, echo.image_fs_info().await);
    assert_eq!(remote.image_status("i:1").await, Ok(None));
    let auth = AuthConfig { username: "me".to_owned(), ..AuthConfig::default() };
    assert_eq!(remote.pull_image("i:1", Some(auth)).await, Ok("i:1 by me".to_owned()));
}

#[tokio::test]
async fn failures_arrive_as_they_were() {
    let (served, echo) = (served(), Echo::default());
    let remote = &served.remote;
    assert_eq!(remote.container_status("c2").await, echo.container_status("c2").await);
    assert_eq!(remote.start_container("c2").await, echo.start_container("c2").await);
    assert_eq!(remote.remove_container("c1").await, echo.remove_container("c1").await);
    assert_eq!(remote.reopen_container_log("c1").await, echo.reopen_container_log("c1").await);
    assert_eq!(remote.exec_sync("c1", &[], 1).await, echo.exec_sync("c1", &[], 1).await);
    let nowhere = RemoteRuntime::new("unix:///nowhere/cri.sock", std::path::Path::new("/nowhere")).unwrap();
    assert!(matches!(nowhere.version().await, Err(CriError::Internal(why)) if why.contains("/nowhere/cri.sock")));
    assert!(RemoteRuntime::new("tcp://1.2.3.4:5", std::path::Path::new("/nowhere")).is_err());
}

#[tokio::test]
async fn streams_are_carried() {
    let served = served();
    let request = ExecRequest {
        container_id: "c1".to_owned(),
        command: texts(&["cat"]),
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let mut session = served.remote.exec(request).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"typed").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut told = String::new();
    stdout.read_to_string(&mut told).await.unwrap();
    assert_eq!((told.as_str(), session.exit.await), ("typed", Ok(ExitOutcome::Code(9))));
    let mut port = served.remote.port_forward("s1", 80).await.unwrap();
    port.write_all(b"ping").await.unwrap();
    port.shutdown().await.unwrap();
    let mut told = String::new();
    port.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, "ping");
    let mut refused = served.remote.port_forward("s1", 1).await.unwrap();
    let why = refused.read_to_string(&mut told).await.unwrap_err().to_string();
    assert!(why.contains("nobody listens"), "{why}");
    let attach = AttachRequest { container_id: "c1".to_owned(), stdout: true, ..AttachRequest::default() };
    let session = served.remote.attach(attach).await.unwrap();
    assert!(matches!(session.exit.await, Err(CriError::Internal(why)) if why.contains("is not supported")));
}

#[tokio::test]
async fn events_are_told() {
    let served = served();
    let (mut ours, mut theirs) = (served.echo.events().await.unwrap(), served.remote.events().await.unwrap());
    for _ in 0..2 {
        assert_eq!(theirs.next().await, ours.next().await);
    }
}
