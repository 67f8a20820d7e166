//! An engine on a machine of its own: directories, cgroups, one image, no network. Finds what is left behind.

use async_trait::async_trait;
use pintle_cri::*;
use pintle_runtime::{Config, Engine, ImageInfo, Images, PortError, SandboxNetwork, SnapshotMounts, SnapshotUsage};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest that a test waits for what should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);
const APPLETS: [&str; 24] = [
    "sh", "cat", "echo", "env", "id", "ls", "pwd", "sleep", "true", "false", "kill", "mount", "mknod", "touch",
    "mkdir", "ln", "hostname", "nc", "stty", "dd", "grep", "head", "umount", "readlink",
];

pub struct Machine {
    pub engine: Option<Arc<Engine>>,
    pub config: Config,
    images: Arc<TestImages>,
    pub root: tempfile::TempDir,
}

impl Machine {
    pub async fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make namespaces and cgroups: run them as root");
        let root = tempfile::tempdir().unwrap();
        make_layer(&root.path().join("layer"));
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = Config {
            state_dir: root.path().join("state"),
            run_dir: root.path().join("run"),
            shim_binary: PathBuf::from(env!("CARGO_BIN_EXE_pintle-shim")),
            init_binary: PathBuf::from(env!("CARGO_BIN_EXE_pintle-pause")),
            cgroup_root: format!("/pintle-test-{}-{number}", std::process::id()),
            seccomp_dir: root.path().join("seccomp"),
        };
        let images = Arc::new(TestImages { root: root.path().to_owned() });
        let mut machine = Self { engine: None, config, images, root };
        machine.start().await;
        machine
    }

    /// Starts the engine, again after `crash`.
    pub async fn start(&mut self) {
        let images: Arc<dyn Images> = self.images.clone();
        let engine = Engine::open(self.config.clone(), images, Arc::new(NoNetwork), pintle_clock::system());
        self.engine = Some(engine.await.expect("open the engine"));
    }

    /// Ends the engine as if it was killed: nothing is told, nothing saved.
    pub fn crash(&mut self) {
        let engine = self.engine.take().unwrap();
        assert_eq!(Arc::strong_count(&engine), 1, "somebody else holds the engine");
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub async fn sandbox(&self) -> String {
        self.sandbox_with(|_| ()).await
    }

    pub async fn sandbox_with(&self, change: impl FnOnce(&mut PodSandboxConfig)) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pod{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut config = PodSandboxConfig {
            metadata: PodSandboxMetadata { name: name.clone(), uid: name.clone(), ..Default::default() },
            hostname: name,
            log_directory: self.logs().to_string_lossy().into_owned(),
            ..Default::default()
        };
        change(&mut config);
        self.engine().run_pod_sandbox(config, "").await.expect("run a sandbox")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.path().join("logs")
    }

    pub async fn create(&self, sandbox: &str, change: impl FnOnce(&mut ContainerConfig)) -> CriResult<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut config = ContainerConfig {
            log_path: format!("{name}.log"),
            metadata: ContainerMetadata { name, attempt: 0 },
            image: "test".to_owned(),
            ..Default::default()
        };
        change(&mut config);
        self.engine().create_container(sandbox, config, &PodSandboxConfig::default()).await
    }

    /// Starts a container of this shell command.
    pub async fn shell(&self, sandbox: &str, script: &str) -> String {
        self.shell_with(sandbox, script, |_| ()).await
    }

    pub async fn shell_with(&self, sandbox: &str, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> String {
        let id = self.create(sandbox, |config| {
            config.command = strings(&["sh", "-c", script]);
            change(config);
        });
        let id = id.await.expect("create a container");
        self.engine().start_container(&id).await.expect("start a container");
        id
    }

    /// Waits for a container to end.
    pub async fn ended(&self, id: &str) -> ContainerStatus {
        let mut events = self.engine().events().await.unwrap();
        let wait = async {
            loop {
                let status = self.engine().container_status(id).await.unwrap();
                if status.state == ContainerState::Exited {
                    return status;
                }
                futures::StreamExt::next(&mut events).await.expect("events go on");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container should have ended")
    }

    /// Runs a script to its end; its exit code and what it logged, without times.
    pub async fn run(&self, sandbox: &str, script: &str) -> (i32, String) {
        self.run_with(sandbox, script, |_| ()).await
    }

    pub async fn run_with(
        &self,
        sandbox: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (i32, String) {
        let id = self.shell_with(sandbox, script, change).await;
        let status = self.ended(&id).await;
        (status.exit_code, text_of(&status.log_path))
    }

    /// Removes all sandboxes and proves that nothing is left of them.
    pub async fn finish(mut self) {
        for sandbox in self.engine().list_pod_sandbox(PodSandboxFilter::default()).await.unwrap() {
            self.engine().remove_pod_sandbox(&sandbox.id).await.expect("remove a sandbox");
        }
        assert_eq!(self.leftovers(), Vec::<String>::new());
        self.engine = None;
    }

    /// Processes, mounts, cgroups and files of this machine's sandboxes.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let root = self.root.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&root)).map(|line| format!("mount {line}")));
        let cgroups = pintle_linux::cgroup::Cgroups::detect().unwrap();
        for directory in cgroups.directories(&self.config.cgroup_root).unwrap() {
            let inside = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            let inside = inside.filter(|e| e.file_type().unwrap().is_dir());
            left.extend(inside.map(|e| format!("cgroup {}", e.path().display())));
        }
        for directory in ["state/sandboxes", "state/containers", "run/sandboxes", "run/netns", "snapshots"] {
            let entries = std::fs::read_dir(self.root.path().join(directory)).into_iter().flatten().flatten();
            left.extend(entries.map(|e| format!("file {}", e.path().display())));
        }
        left
    }
}

impl Drop for Machine {
    /// A test that failed leaves containers: they go with their cgroups, and with them their shims' work.
    fn drop(&mut self) {
        let Ok(cgroups) = pintle_linux::cgroup::Cgroups::detect() else { return };
        if std::thread::panicking() {
            for shim in self.shims() {
                let _ = pintle_linux::process::PidFd::open(shim).and_then(|shim| shim.kill(9));
            }
            let _ = cgroups.kill_all(&self.config.cgroup_root, PATIENCE);
            let netns = std::fs::read_dir(self.config.run_dir.join("netns")).into_iter().flatten().flatten();
            netns.for_each(|entry| drop(pintle_linux::netns::remove(&entry.path())));
        }
        let _ = cgroups.remove(&self.config.cgroup_root);
    }
}

impl Machine {
    /// Process ids of the shims of this machine: those that have a log file in its run directory open.
    pub fn shims(&self) -> Vec<i32> {
        let run = self.config.run_dir.join("sandboxes");
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let stderr = std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
            stderr.starts_with(&run)
        })
        .collect()
    }
}

pub fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

/// What a log file says, without times and tags.
pub fn text_of(log: &str) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or_default())).collect()
}

fn make_layer(layer: &Path) {
    for directory in ["bin", "etc", "tmp", "root", "srv"] {
        std::fs::create_dir_all(layer.join(directory)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", layer.join("bin/busybox")).expect("these tests need /usr/bin/busybox, static");
    for applet in APPLETS {
        symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    std::fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
    std::fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:34:\nextra:x:50:web\n").unwrap();
    std::fs::write(layer.join("plain"), "no program\n").unwrap();
}

/// One image, `test`, whose layer is a directory.
struct TestImages {
    root: PathBuf,
}

impl TestImages {
    fn of(&self, container: &str) -> PathBuf {
        self.root.join("snapshots").join(container)
    }
}

fn io(error: std::io::Error) -> PortError {
    PortError::Failed(error.to_string())
}

#[async_trait]
impl Images for TestImages {
    async fn resolve(&self, reference: &str) -> Result<Option<ImageInfo>, PortError> {
        let config = r#"{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Env": ["PATH=/bin", "FROM=image"], "Cmd": ["sh"], "WorkingDir": "/srv",
            "Labels": {"io.kubernetes.pod.uid": "other", "io.cri-containerd.privileged": "true", "user": "0"}}}"#;
        Ok((reference == "test").then(|| ImageInfo {
            id: "sha256:test".to_owned(),
            refs: vec!["test".to_owned()],
            digests: Vec::new(),
            config: oci_spec::image::ImageConfiguration::from_reader(config.as_bytes()).unwrap(),
            chain_ids: Vec::new(),
        }))
    }

    async fn list(&self) -> Result<Vec<Image>, PortError> {
        Ok(Vec::new())
    }

    async fn status(&self, _: &str) -> Result<Option<Image>, PortError> {
        Ok(None)
    }

    async fn pull(&self, reference: &str, _: Option<AuthConfig>) -> Result<String, PortError> {
        Err(PortError::NotFound(reference.to_owned()))
    }

    async fn remove(&self, _: &str) -> Result<(), PortError> {
        Ok(())
    }

    async fn fs_info(&self) -> Result<FilesystemUsage, PortError> {
        Ok(FilesystemUsage::default())
    }

    async fn prepare_snapshot(&self, container: &str, _: &str) -> Result<SnapshotMounts, PortError> {
        let (upper, work) = (self.of(container).join("upper"), self.of(container).join("work"));
        std::fs::create_dir_all(&upper).map_err(io)?;
        std::fs::create_dir_all(&work).map_err(io)?;
        Ok(SnapshotMounts { lower_dirs: vec![self.root.join("layer")], upper, work })
    }

    async fn remove_snapshot(&self, container: &str) -> Result<(), PortError> {
        match std::fs::remove_dir_all(self.of(container)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(e)),
            _ => Ok(()),
        }
    }

    async fn snapshot_usage(&self, _: &str) -> Result<SnapshotUsage, PortError> {
        Ok(SnapshotUsage { bytes: 4096, inodes: 1 })
    }

    async fn snapshots(&self) -> Result<Vec<String>, PortError> {
        let entries = std::fs::read_dir(self.root.join("snapshots")).into_iter().flatten().flatten();
        Ok(entries.filter_map(|e| e.file_name().into_string().ok()).collect())
    }
}

/// Sandboxes have their loopback only.
struct NoNetwork;

#[async_trait]
impl SandboxNetwork for NoNetwork {
    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn setup(&self, _: &str, netns: &Path, _: &PodSandboxConfig) -> Result<Vec<IpAddr>, PortError> {
        assert!(netns.exists());
        Ok(vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9))])
    }

    async fn teardown(&self, _: &str, _: &Path) -> Result<(), PortError> {
        Ok(())
    }

    async fn retain(&self, _: &[String]) -> Result<(), PortError> {
        Ok(())
    }
}

/// Labels of one pair.
pub fn label(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}
