//! The distribution's containerd in the network of a node, for its kubelet to run pods by.
//!
//! Its plugins connect pods by links of their own, with addresses of the range that the kubelet tells it, so that
//! packets between pods pass the node's rules.
//!
//! It has mounts of its own, where /run is empty, for its shims' sockets and runc's state are in /run/containerd
//! whatever it is told. The node's directory is shared between its mounts and the machine's: it sees the volumes that
//! the kubelet mounts there.

use crate::cluster::sha256;
use crate::command::{Spawned, run, run_within};
use crate::host::Host;
use crate::image::write_image;
use crate::leftovers::processes_about;
use crate::wait::until;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// The image of sandboxes.
const PAUSE: (&str, [&str; 2]) = ("e2e/pause:1", ["sleep", "2000000000"]);

const SCRIPT: &str = r#"
cat > network <<END
{"cniVersion": "1.0.0", "name": "e2e", "plugins": [
  {"type": "ptp", "mtu": 1450, "ipam": {"type": "host-local", "dataDir": "$PWD/addresses",
    "ranges": [{{range \$n, \$range := .PodCIDRRanges}}{{if \$n}}, {{end}}[{"subnet": "{{\$range}}"}]{{end}}],
    "routes": [{{range \$n, \$route := .Routes}}{{if \$n}}, {{end}}{"dst": "{{\$route}}"}{{end}}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
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
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$PWD/cni"
conf_template = "$PWD/network"
END
mount --make-private "$(findmnt --noheadings --output TARGET --target /run)"
mount -t tmpfs tmpfs /run
exec containerd --config config.toml
"#;

/// Gone with all its containers when dropped.
pub(crate) struct Containerd {
    /// The node's.
    directory: PathBuf,
    daemon: Mutex<Option<Spawned>>,
}

fn tool(program: &str, words: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(words);
    run(command, "")?.ok()
}

impl Containerd {
    /// Starts it in the network of `host`, with everything of it in a folder of `directory`.
    pub(crate) fn start(host: &Host, directory: &Path) -> Result<Self> {
        let containerd = Self { directory: directory.to_owned(), daemon: Mutex::new(None) };
        let folder = containerd.folder();
        std::fs::create_dir_all(&folder)?;
        let place = directory.to_string_lossy();
        tool("mount", &["--bind", &place, &place])?;
        tool("mount", &["--make-private", &place])?;
        tool("mount", &["--make-shared", &place])?;
        let script = folder.join("script");
        std::fs::write(&script, SCRIPT)?;
        let mut command = host.command("unshare");
        command.args(["--mount", "--propagation", "unchanged", "sh", "-eu"]).arg(&script).current_dir(&folder);
        let daemon = Spawned::start(command)?;
        daemon.expect("containerd successfully booted", Duration::from_secs(60))?;
        *containerd.lock() = Some(daemon);
        let pause = folder.join("pause.tar");
        write_image(&pause, PAUSE.0, &PAUSE.1, |bytes| sha256(&folder.join("digest"), bytes))?;
        containerd.load(&pause)?;
        Ok(containerd)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Spawned>> {
        self.daemon.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn folder(&self) -> PathBuf {
        self.directory.join("containerd")
    }

    /// Where that of a node is which has its directory there.
    pub(crate) fn socket_in(directory: &Path) -> PathBuf {
        directory.join("containerd/containerd.sock")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        Self::socket_in(&self.directory)
    }

    /// Asks it by its own tool.
    pub(crate) fn ctr(&self, words: &[&str]) -> Result<String> {
        let address = self.socket().to_string_lossy().into_owned();
        tool("ctr", &[&["--address", &address, "--namespace", "k8s.io"][..], words].concat())
    }

    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", &archive.to_string_lossy()]).map(drop)
    }

    /// The first processes of its sandboxes and containers.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        let tasks = self.ctr(&["tasks", "list"])?;
        Ok(tasks.lines().filter_map(|task| task.split_whitespace().nth(1)?.parse().ok()).collect())
    }

    pub(crate) fn log(&self) -> String {
        self.lock().as_ref().map(Spawned::output).unwrap_or_default()
    }

    /// Fails when something of the kubelet's is left once its pods are gone.
    pub(crate) fn expect_nothing(&self) -> Result<()> {
        // The last sandbox goes a moment after its pod, and its shim a moment after that.
        let mut left = String::new();
        let socket = self.socket();
        let gone = until("nothing is left in containerd", Duration::from_secs(30), || {
            left = self.ctr(&["containers", "list"])?;
            let shims = processes_about(&socket)?.into_iter().filter(|process| process.contains("containerd-shim"));
            let shims: Vec<String> = shims.collect();
            let gone = left.lines().count() <= 1 && shims.is_empty();
            left.extend(shims);
            Ok(gone.then_some(()))
        });
        gone.with_context(|| left)?;
        let parts = self.directory.join("run/cri/sub-paths");
        let parts = std::fs::read_dir(parts).map(Iterator::count).unwrap_or_default();
        ensure!(parts == 0, "{parts} sandboxes have parts of volumes left");
        Ok(())
    }

    /// Ends it and takes away what it leaves.
    pub(crate) fn finish(self, host: &Host) -> Result<()> {
        self.stop()?;
        // The plugins leave their rules.
        for table in ["ip nat", "ip6 nat"] {
            let words: Vec<&str> = ["nft", "delete", "table"].into_iter().chain(table.split(' ')).collect();
            host.run(&words)?;
        }
        Ok(())
    }

    /// Ends what runs in it, and then itself and its mounts.
    fn stop(&self) -> Result<()> {
        let Some(mut daemon) = self.lock().take() else { return Ok(()) };
        for task in self.ctr(&["tasks", "list", "--quiet"]).unwrap_or_default().lines() {
            // One that has ended by itself is as good.
            let _ = self.ctr(&["tasks", "delete", "--force", task]);
        }
        daemon.signal(Signal::TERM)?;
        daemon.wait()?;
        let place = self.directory.to_string_lossy();
        let mut unmount = Command::new("umount");
        unmount.args(["--recursive", "--lazy", &place]);
        run_within(unmount, "", Duration::from_secs(30))?.ok()?;
        let folder = self.folder();
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            crate::suite::tell(&format!("containerd can't be ended: {error:#}"));
        }
    }
}
