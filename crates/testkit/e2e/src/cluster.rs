//! A `pintle server` in a network of its own, with everything of it below one temporary directory.

use crate::command::{Output, Spawned, run};
use crate::containerd::Containerd;
use crate::host::Host;
use crate::image::write_archive;
use crate::leftovers;
use crate::suite::left_out;
use crate::wait::until;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Names the runtime: `containerd`, `socket` for our own behind its socket, or nothing for our own within the kubelet's
/// process.
const RUNTIME: &str = "PINTLE_E2E_RUNTIME";

/// A node evicts pods late, and keeps all images: how full the disk of this machine is, is not what is tested.
pub(crate) const ROOM: [(&str, &str); 2] = [
    ("--eviction-hard", "memory.available<100Mi,nodefs.available<256Mi,imagefs.available<256Mi"),
    ("--image-gc-high-threshold", "100"),
];

/// What a kubelet runs pods by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Our own, within its process.
    Own,
    /// Our own behind its socket.
    Socket,
    /// The distribution's.
    Containerd,
}

impl Runtime {
    /// What the variable of the environment says.
    pub(crate) fn wanted() -> Result<Self> {
        match std::env::var(RUNTIME).unwrap_or_default().as_str() {
            "" => Ok(Self::Own),
            "socket" => Ok(Self::Socket),
            "containerd" => Ok(Self::Containerd),
            other => anyhow::bail!("{RUNTIME}={other} is not understood: leave it out, or say containerd or socket"),
        }
    }

    /// The flags of a node that has its directory there.
    pub(crate) fn flags(self, directory: &Path) -> Vec<String> {
        let socket = match self {
            Self::Own => return Vec::new(),
            Self::Socket => directory.join("run/cri.sock"),
            Self::Containerd => Containerd::socket_in(directory),
        };
        vec!["--container-runtime-endpoint".to_owned(), format!("unix://{}", socket.display())]
    }

    /// Starts what is not part of the node.
    pub(crate) fn start(self, host: &Host, directory: &Path) -> Result<Option<Containerd>> {
        (self == Self::Containerd).then(|| Containerd::start(host, directory)).transpose()
    }
}

/// The images that every node has from the start, which another runtime does not have.
const BUILTIN: [&str; 4] = ["pintle/hello:latest", "pintle/hello:v1", "pintle/hello:v2", "pintle/pause:latest"];
const BUILTIN_ARCHIVE: &str = "builtin.tar";

/// Its parts go in this order: who uses another before that one.
pub struct Cluster {
    server: Mutex<Option<Spawned>>,
    runtime: Runtime,
    /// What the kubelet runs pods by, if not by itself.
    containerd: Option<Containerd>,
    pub host: Host,
    /// Where clients run, if not there.
    client: Option<Host>,
    directory: TempDir,
    /// Flags of the server besides the usual ones.
    further: Vec<String>,
    next_space: AtomicU32,
}

/// The `pintle` that was built with the tests.
pub(crate) fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests lie in target/PROFILE/deps, benchmarks in target/PROFILE.
    let own = own.parent().context("the folder of this program")?;
    let folder = if own.ends_with("deps") { own.parent().unwrap_or(own) } else { own };
    let binary = folder.join("pintle");
    anyhow::ensure!(binary.exists(), "{} is missing: build it with `cargo build -p pintle`", binary.display());
    Ok(binary)
}

/// Every kubectl of this machine: the one on PATH, and those of other versions beside it. The oldest first.
fn kubectls() -> Result<Vec<PathBuf>> {
    let path = std::env::var_os("PATH").context("PATH")?;
    let mut found = std::env::split_paths(&path).map(|dir| dir.join("kubectl")).filter(|file| file.exists());
    let first = found.next().context("kubectl is missing: install version 1.27 or later")?;
    let real = first.canonicalize()?;
    let folder = real.parent().context("the folder of kubectl")?;
    let mut versions: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("kubectl.1.")))
        .collect();
    versions.sort();
    Ok(if versions.is_empty() { vec![real] } else { versions })
}

/// The newest kubectl of this machine.
pub(crate) fn newest_kubectl() -> Result<PathBuf> {
    kubectls()?.pop().context("a kubectl")
}

impl Cluster {
    /// Starts a server, waits until its node is Ready, and loads the image for tests. Its runtime is what the variable
    /// of the environment says.
    pub fn start() -> Result<Self> {
        Self::start_on(Runtime::wanted()?)
    }

    /// The same with the distribution's containerd.
    pub fn start_on_containerd() -> Result<Self> {
        Self::start_on(Runtime::Containerd)
    }

    fn start_on(runtime: Runtime) -> Result<Self> {
        Self::start_with(|cluster| cluster.use_runtime(runtime))
    }

    /// The same over our own runtime, with flags of the server besides the usual ones.
    pub fn start_with_flags(flags: &[&str]) -> Result<Self> {
        Self::start_with(|cluster| {
            cluster.further.extend(flags.iter().map(|flag| (*flag).to_owned()));
            Ok(())
        })
    }

    fn use_runtime(&mut self, runtime: Runtime) -> Result<()> {
        self.further.extend(runtime.flags(self.directory.path()));
        self.runtime = runtime;
        self.containerd = runtime.start(&self.host, self.directory.path())?;
        Ok(())
    }

    fn start_with(prepare: impl FnOnce(&mut Self) -> Result<()>) -> Result<Self> {
        anyhow::ensure!(
            rustix::process::geteuid().is_root(),
            "the tests make containers and networks: run them as root"
        );
        let mut cluster = Self::on(Host::new()?, None)?;
        prepare(&mut cluster)?;
        cluster.start_server()?;
        cluster.wait_ready()?;
        cluster.load_images()?;
        Ok(cluster)
    }

    fn on(host: Host, client: Option<Host>) -> Result<Self> {
        Ok(Self {
            server: Mutex::new(None),
            runtime: Runtime::Own,
            containerd: None,
            host,
            client,
            directory: tempfile::Builder::new().prefix("pintle-e2e-").tempdir()?,
            further: Vec::new(),
            next_space: AtomicU32::new(0),
        })
    }

    /// Sets up a cluster by `pintle init`, whose server runs in the background; returns what it printed. Clients run
    /// on another host.
    pub(crate) fn init(runtime: Runtime, host: Host, client: Host, further: &[&str]) -> Result<(Self, String)> {
        let mut cluster = Self::on(host, Some(client))?;
        cluster.use_runtime(runtime)?;
        let flags = cluster.flags();
        let words: Vec<&str> = flags.iter().map(String::as_str).chain(further.iter().copied()).collect();
        let told = cluster.pintle(&[&["init"][..], &words].concat())?.ok()?;
        Ok((cluster, told))
    }

    /// Loads the images for tests.
    pub(crate) fn load_images(&self) -> Result<()> {
        let archive = self.path("busybox.tar");
        write_archive(&archive, |bytes| sha256(&self.path("digest"), bytes))?;
        self.load(&archive)?;
        let Some(containerd) = &self.containerd else { return Ok(()) };
        let mut save = self.docker_command("docker");
        save.args(["save", "--output"]).arg(self.path(BUILTIN_ARCHIVE)).args(BUILTIN);
        run(save, "")?.ok()?;
        self.load_builtin_into(containerd)
    }

    /// Loads the images of an archive.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        self.pintle(&["image", "load", &archive.to_string_lossy(), "--socket", &self.socket()])?.ok()?;
        self.containerd.as_ref().map_or(Ok(()), |containerd| containerd.load(archive))
    }

    /// Gives a containerd the images that nodes have from the start.
    pub(crate) fn load_builtin_into(&self, containerd: &Containerd) -> Result<()> {
        containerd.load(&self.path(BUILTIN_ARCHIVE))
    }

    /// A program on the server's machine that finds its engine where `docker` looks for it.
    pub fn docker_command(&self, program: &str) -> Command {
        let mut command = self.host.command(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket()))
            .env("DOCKER_CONFIG", self.path("docker-config"))
            .env("DOCKER_BUILDKIT", "0")
            .env("HOME", self.directory.path());
        command
    }

    /// Whether the kubelet runs pods by containerd.
    pub fn is_on_containerd(&self) -> bool {
        self.containerd.is_some()
    }

    /// For a test that would only repeat itself on another runtime: leaves it out there, with the reason.
    pub fn only_on_own_runtime(&self, reason: &str) -> Result<()> {
        if self.runtime == Runtime::Own { Ok(()) } else { Err(left_out(reason)) }
    }

    /// The socket of containerd.
    pub fn containerd_socket(&self) -> Result<PathBuf> {
        Ok(self.containerd.as_ref().context("there is no containerd")?.socket())
    }

    /// Asks containerd by its own tool.
    pub fn ctr(&self, words: &[&str]) -> Result<String> {
        self.containerd.as_ref().context("there is no containerd")?.ctr(words)
    }

    /// Where clients run.
    pub fn client(&self) -> &Host {
        self.client.as_ref().unwrap_or(&self.host)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> String {
        self.path("run/docker.sock").to_string_lossy().into_owned()
    }

    /// The flags that put everything below the temporary directory.
    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).to_string_lossy().into_owned();
        let pairs = [
            ("--data-dir", path("data")),
            ("--run-dir", path("run")),
            ("--log-dir", path("logs")),
            ("--write-kubeconfig", path("kubeconfig")),
            ("--node-name", "node-1".to_owned()),
            ("--node-ip", self.host.node_ip()),
            ("--cgroup-root", format!("/{}", self.host.name)),
            ("--pod-manifest-path", path("manifests")),
        ];
        let room = ROOM.map(|(flag, value)| (flag, value.to_owned()));
        let usual = pairs.into_iter().chain(room).flat_map(|(flag, value)| [flag.to_owned(), value]);
        usual.chain(self.further.iter().cloned()).collect()
    }

    /// Starts the server in the background; it must not run.
    pub fn start_server(&self) -> Result<()> {
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.arg("server").args(self.flags()).env("RUST_BACKTRACE", "1");
        let server = Spawned::start(command)?;
        server.expect("the server is ready for requests", Duration::from_secs(60))?;
        *self.lock() = Some(server);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Spawned>> {
        self.server.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Ends the server by a signal and waits for its end.
    pub fn stop_server(&self, signal: rustix::process::Signal) -> Result<()> {
        let Some(mut server) = self.lock().take() else { return Ok(()) };
        server.signal(signal)?;
        server.wait().map(drop)
    }

    /// What the server has logged since it was started.
    pub fn server_log(&self) -> String {
        let in_background = || std::fs::read_to_string(self.path("data/pintle.log")).unwrap_or_default();
        let ours = self.lock().as_ref().map_or_else(in_background, Spawned::output);
        match &self.containerd {
            None => ours,
            Some(containerd) => format!("{}\n---- the server's\n{ours}", containerd.log()),
        }
    }

    /// The process of the server.
    pub fn server_pid(&self) -> Result<u32> {
        // The command was started by nsenter, which becomes it.
        self.lock().as_ref().map(Spawned::id).context("no server runs")
    }

    /// The processes of this cluster's shims.
    pub fn shims(&self) -> Result<Vec<u32>> {
        leftovers::shims(self.directory.path())
    }

    /// Processes in the networks of this cluster's pods, at least one of each pod on the server's node.
    pub fn pod_processes(&self) -> Result<Vec<u32>> {
        self.containerd.as_ref().map_or_else(|| self.shims(), Containerd::processes)
    }

    pub fn wait_ready(&self) -> Result<()> {
        until("the node is Ready", Duration::from_secs(60), || {
            let wait = ["wait", "--for=condition=Ready", "node/node-1", "--timeout=30s"];
            Ok(self.kubectl(&wait)?.status.success().then_some(()))
        })
    }

    /// Runs `pintle` to its end.
    pub fn pintle(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.args(arguments);
        run(command, "")
    }

    /// The versions of kubectl to try: the oldest and the newest.
    pub fn kubectl_versions() -> Result<Vec<PathBuf>> {
        let mut all = kubectls()?;
        let newest = all.pop().context("a kubectl")?;
        Ok(all.into_iter().next().into_iter().chain([newest]).collect())
    }

    pub fn kubectl_command(&self, kubectl: &Path, arguments: &[&str]) -> Command {
        let mut command = self.client().command(&kubectl.to_string_lossy());
        command.arg("--kubeconfig").arg(self.path("kubeconfig"));
        if self.client.is_some() {
            command.arg("--server").arg(format!("https://{}:6443", self.host.address));
        }
        command.args(arguments);
        command.env("HOME", self.directory.path()).env_remove("KUBECONFIG");
        command
    }

    /// Runs the newest kubectl to its end.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.kubectl_with(arguments, "")
    }

    /// The same, with an input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let newest = kubectls()?.pop().context("a kubectl")?;
        run(self.kubectl_command(&newest, arguments), input)
    }

    /// A Kubernetes namespace for one test; it is deleted when dropped.
    pub fn space(&self, name: &str) -> Result<Space<'_>> {
        let name = format!("{name}-{}", self.next_space.fetch_add(1, Ordering::Relaxed));
        let kubectl = kubectls()?.pop().context("a kubectl")?;
        self.kubectl(&["create", "namespace", &name])?.ok()?;
        // Without it pods are refused.
        until(&format!("{name} has its service account"), Duration::from_secs(60), || {
            let found = self.kubectl(&["get", "serviceaccount", "default", "--namespace", &name])?;
            Ok(found.status.success().then_some(()))
        })?;
        Ok(Space { cluster: self, name, kubectl })
    }

    /// Has all pods end that another runtime than ours runs, for which our reset does nothing.
    pub(crate) fn end_pods(&self) -> Result<()> {
        let Some(containerd) = &self.containerd else { return Ok(()) };
        let all = ["delete", "pods", "--all", "--all-namespaces"];
        self.kubectl(&[&all[..], &["--grace-period=1", "--timeout=60s"]].concat())?.ok()?;
        containerd.expect_nothing()
    }

    /// Resets the cluster and fails when anything of it is left on the machine.
    pub fn finish(mut self) -> Result<()> {
        self.end_pods()?;
        self.stop_server(rustix::process::Signal::TERM)?;
        let flags = self.flags();
        let mut arguments = vec!["reset", "--yes"];
        arguments.extend(flags.iter().map(String::as_str));
        self.pintle(&arguments)?.ok()?;
        if let Some(containerd) = self.containerd.take() {
            containerd.finish(&self.host)?;
        }
        let left = leftovers::of(&self.host, self.directory.path())?;
        anyhow::ensure!(left.is_empty(), "left behind after the reset:\n{}", left.join("\n"));
        Ok(())
    }
}

/// A digest by the distribution's tool, so that no hash of ours checks itself.
pub(crate) fn sha256(scratch: &Path, bytes: &[u8]) -> Result<String> {
    std::fs::write(scratch, bytes)?;
    let mut command = Command::new("sha256sum");
    command.arg(scratch);
    let printed = run(command, "")?.ok()?;
    Ok(printed.split(' ').next().unwrap_or_default().to_owned())
}

/// A Kubernetes namespace with a kubectl of one version.
pub struct Space<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
    pub kubectl: PathBuf,
}

impl Space<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let all = [&["--namespace", &self.name][..], arguments].concat();
        self.cluster.kubectl_command(&self.kubectl, &all)
    }

    /// Runs kubectl in the namespace to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        run(self.command(arguments), "")
    }

    /// What a pod has said, once it has said something: who has no probe is ready before.
    pub fn logs(&self, words: &[&str]) -> Result<String> {
        self.logs_to("\n", words)
    }

    /// The same once it has said `last`.
    pub fn logs_to(&self, last: &str, words: &[&str]) -> Result<String> {
        until(&format!("{} says {last:?}", words.join(" ")), Duration::from_secs(60), || {
            let said = self.ok(&[&["logs"][..], words].concat())?;
            Ok(said.contains(last).then_some(said))
        })
    }

    /// Runs kubectl, which must succeed; returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments)?.ok()
    }

    /// The same, with an input.
    pub fn ok_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        run(self.command(arguments), input)?.ok()
    }

    /// Runs kubectl with an input that it must refuse; returns its complaint.
    pub fn refused(&self, arguments: &[&str], input: &str) -> Result<String> {
        run(self.command(arguments), input)?.failed()
    }

    /// Starts kubectl in the background.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Spawned> {
        Spawned::start(self.command(arguments))
    }

    /// Reads objects as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.ok(&[&["get", "-o", "json"][..], arguments].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Waits until an object, as JSON, is as it should be.
    pub fn until(
        &self,
        what: &str,
        arguments: &[&str],
        limit: Duration,
        good: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let found = until(what, limit, || {
            last = self.json(arguments)?;
            Ok(good(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("last seen: {}", summary(&last)))
    }

    /// The logs and state of a namespace, for a failure.
    pub fn describe(&self) -> String {
        let all = self.run(&["get", "all,events", "-o", "wide"]);
        let pods = self.run(&["describe", "pods"]);
        let text = |output: Result<Output>| output.map(|o| o.stdout + &o.stderr).unwrap_or_default();
        text(all) + &text(pods)
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // The cluster's reset removes what this could not.
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

/// The status of an object, or what there is of it.
fn summary(object: &Value) -> String {
    let part = if object["status"].is_null() { object } else { &object["status"] };
    let mut text = part.to_string();
    text.truncate(text.char_indices().nth(4000).map_or(text.len(), |(i, _)| i));
    text
}
