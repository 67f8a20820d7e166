//! A cluster whose kubelet runs pods by a containerd beside it.

use anyhow::{Context, Result};
use pintle_e2e::{BUSYBOX, Cluster, Spawned, Subject, until};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// In the mounts of the machine, for it must see those of the kubelet; its shims' sockets are in /run/containerd.
const SCRIPT: &str = r#"
mkdir -p cni
cat > cni/10-bridge.conflist <<END
{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{"type": "bridge", "bridge": "cni-e2e", "isGateway": true,
  "ipam": {"type": "host-local", "dataDir": "$PWD/addresses", "routes": [{"dst": "0.0.0.0/0"}],
    "ranges": [[{"subnet": "10.88.0.0/16"}]]}}]}
END
cat > config.toml <<END
version = 2
root = "$PWD/root"
state = "$PWD/state"
[grpc]
address = "$PWD/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/e2e/pause:1"
stream_server_address = "127.0.0.1"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$PWD/cni"
END
exec containerd --config config.toml
"#;

pub struct Containerd {
    pub cluster: Cluster,
    daemon: Mutex<Option<Spawned>>,
}

fn socket(cluster: &Cluster) -> PathBuf {
    cluster.path("containerd/containerd.sock")
}

fn ctr(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let address = socket(cluster).to_string_lossy().into_owned();
    let all = [&["ctr", "--address", &address, "--namespace", "k8s.io"][..], words].concat();
    cluster.host.run(&all)?.ok()
}

fn start(cluster: &Cluster) -> Result<Spawned> {
    let folder = cluster.path("containerd");
    std::fs::create_dir_all(&folder)?;
    let script = folder.join("script");
    std::fs::write(&script, SCRIPT)?;
    let mut command = cluster.host.command("sh");
    command.arg("-eu").arg(&script).current_dir(&folder);
    let daemon = Spawned::start(command)?;
    daemon.expect("containerd successfully booted", Duration::from_secs(30))?;
    for (name, words) in [("e2e/pause:1", ["sleep", "2000000000"]), (BUSYBOX, ["sleep", "1"])] {
        let archive = cluster.write_image(name, &words)?;
        ctr(cluster, &["images", "import", &archive.to_string_lossy()]).with_context(|| name.to_owned())?;
    }
    Ok(daemon)
}

impl Containerd {
    pub fn socket(&self) -> PathBuf {
        socket(&self.cluster)
    }

    /// Asks containerd itself.
    pub fn ctr(&self, words: &[&str]) -> Result<String> {
        ctr(&self.cluster, words)
    }
}

impl Subject for Containerd {
    fn start() -> Result<Self> {
        let mut daemon = None;
        let cluster = Cluster::start_over(|cluster| {
            daemon = Some(start(cluster)?);
            let endpoint = format!("unix://{}", socket(cluster).display());
            Ok(vec!["--container-runtime-endpoint".to_owned(), endpoint])
        })?;
        Ok(Self { cluster, daemon: Mutex::new(daemon) })
    }

    fn log(&self) -> String {
        let daemon = self.daemon.lock().unwrap_or_else(|p| p.into_inner());
        let theirs = daemon.as_ref().map(Spawned::output).unwrap_or_default();
        format!("{theirs}\n---- ours\n{}", self.cluster.server_log())
    }

    /// Nothing may be left in containerd once all pods are gone; what is its own goes with it.
    fn finish(self) -> Result<()> {
        let Self { cluster, daemon } = self;
        cluster.kubectl(&["delete", "pods", "--all", "--all-namespaces", "--timeout=60s"])?.ok()?;
        // The last sandbox goes a moment after its pod.
        until("nothing is left in containerd", Duration::from_secs(30), || {
            let left = ctr(&cluster, &["containers", "list", "--quiet"])?;
            Ok(left.trim().is_empty().then_some(()))
        })?;
        let mounts = std::fs::read_dir(cluster.path("run/cri/sub-paths")).map(Iterator::count).unwrap_or_default();
        anyhow::ensure!(mounts == 0, "{mounts} sandboxes have parts of volumes left");
        if let Some(mut daemon) = daemon.into_inner().unwrap_or_else(|p| p.into_inner()) {
            daemon.signal(Signal::TERM)?;
            daemon.wait()?;
        }
        // The plugin leaves its bridge.
        cluster.host.run(&["ip", "link", "delete", "cni-e2e"])?.ok()?;
        remove(&cluster.path("containerd"))?;
        cluster.finish()
    }
}

fn remove(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}
