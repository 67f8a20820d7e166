//! A bundle of a static busybox and a runtime root of its own; both are gone afterwards, with their containers.

use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub const RUNTIME: &str = env!("CARGO_BIN_EXE_pintle-oci");
const APPLETS: [&str; 14] =
    ["sh", "cat", "echo", "sleep", "id", "ls", "env", "hostname", "true", "touch", "mkdir", "head", "dd", "stty"];

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub struct Bundle {
    pub directory: tempfile::TempDir,
    pub id: String,
    pub config: Value,
}

/// A root filesystem of busybox.
pub fn make_rootfs(rootfs: &Path) {
    std::fs::create_dir_all(rootfs.join("bin")).unwrap();
    std::fs::create_dir_all(rootfs.join("tmp")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    std::fs::copy(busybox.expect("these tests need busybox-static"), rootfs.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
}

impl Bundle {
    /// The configuration that `spec` writes, without a terminal.
    pub fn new(args: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make namespaces and cgroups: run them as root");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        make_rootfs(&directory.path().join("rootfs"));
        let id = format!("pintle-oci-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut bundle = Self { directory, id, config: Value::Null };
        assert_eq!(bundle.run(&["spec", "--bundle", &bundle.path("")]).code, 0);
        bundle.config = serde_json::from_slice(&std::fs::read(bundle.path("config.json")).unwrap()).unwrap();
        bundle.config["process"]["terminal"] = json!(false);
        bundle.config["process"]["args"] = json!(args);
        bundle.config["root"]["readonly"] = json!(false);
        bundle
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RUNTIME);
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub fn save(&self) {
        std::fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    /// Runs the container to its end.
    pub fn run_container(&self) -> Done {
        self.save();
        self.run(&["run", "--bundle", &self.path(""), &self.id])
    }

    /// Creates the container; its output goes nowhere.
    pub fn create(&self) -> Done {
        self.save();
        let log = self.path("log.json");
        let bundle = self.path("");
        let mut command =
            self.command(&["--log", &log, "--log-format", "json", "create", "--bundle", &bundle, &self.id]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Done { code: status.code().unwrap_or(-1), stdout: String::new(), stderr: said }
    }

    /// A command about the container.
    pub fn on(&self, command: &str, more: &[&str]) -> Done {
        let mut arguments = vec![command, self.id.as_str()];
        arguments.extend(more);
        self.run(&arguments)
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.on("state", &[]).stdout).unwrap_or_default()
    }

    /// Waits for the container's process to end.
    pub fn wait(&self) {
        let pid = self.state()["pid"].as_i64().unwrap();
        if let Ok(process) = pintle_linux::process::PidFd::open(i32::try_from(pid).unwrap()) {
            assert!(process.wait(std::time::Duration::from_secs(30)).unwrap(), "the container should have ended");
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.run(&["delete", "--force", &self.id]);
        let cgroups = pintle_linux::cgroup::Cgroups::detect().unwrap();
        assert!(std::thread::panicking() || !cgroups.exists(&format!("/{}", self.id)), "a cgroup is left");
    }
}
