//! A `pintle engine` in a network of its own, with everything of it below one temporary directory, driven by `docker`.

use crate::cluster::{binary, sha256};
use crate::command::{Output, Spawned, run};
use crate::host::Host;
use crate::image::{BUSYBOX, write_archive};
use crate::leftovers;
use crate::suite::Subject;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

pub struct Engine {
    pub host: Host,
    daemon: Mutex<Option<Spawned>>,
    directory: TempDir,
}

impl Subject for Engine {
    /// Starts an engine and loads the image for tests.
    fn start() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "the tests make containers and networks: run them as root");
        let engine = Self {
            host: Host::new()?,
            daemon: Mutex::new(None),
            directory: tempfile::Builder::new().prefix("pintle-e2e-").tempdir()?,
        };
        engine.start_daemon()?;
        let archive = engine.path("busybox.tar");
        write_archive(&archive, |bytes| sha256(&engine.path("digest"), bytes))?;
        engine.ok(&["load", "--input", &archive.to_string_lossy()])?;
        Ok(engine)
    }

    fn log(&self) -> String {
        self.lock().as_ref().map(Spawned::output).unwrap_or_default()
    }

    /// Removes what the tests made with `docker` and looks whether that was all; then resets the rest.
    fn finish(self) -> Result<()> {
        self.empty()?;
        let left = self.left_of_containers()?;
        ensure!(left.is_empty(), "left behind after all was removed:\n{}", left.join("\n"));
        self.stop_daemon(Signal::TERM)?;
        let flags = self.flags();
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.args(["reset", "--yes"]).args(&flags);
        run(command, "")?.ok()?;
        let left = leftovers::of(&self.host, self.directory.path())?;
        ensure!(left.is_empty(), "left behind after the reset:\n{}", left.join("\n"));
        Ok(())
    }
}

impl Engine {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).to_string_lossy().into_owned();
        let pairs = [
            ("--data-dir", path("data")),
            ("--run-dir", path("run")),
            ("--log-dir", path("logs")),
            ("--cgroup-root", format!("/{}", self.host.name)),
        ];
        pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Spawned>> {
        self.daemon.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// The program that is tested.
    pub fn program(&self) -> Result<PathBuf> {
        binary()
    }

    /// Starts the engine in the background; it must not run.
    pub fn start_daemon(&self) -> Result<()> {
        self.start_daemon_with(&[])
    }

    /// The same with further flags.
    pub fn start_daemon_with(&self, further: &[String]) -> Result<()> {
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.arg("engine").args(self.flags()).args(further).env("RUST_BACKTRACE", "1");
        let daemon = Spawned::start(command)?;
        daemon.expect("the engine is ready for requests", Duration::from_secs(60))?;
        *self.lock() = Some(daemon);
        Ok(())
    }

    /// Starts the engine with flags that it must refuse; returns its complaint.
    pub fn refused_start(&self, further: &[String]) -> Result<String> {
        let mut command = self.host.command(&binary()?.to_string_lossy());
        command.arg("engine").args(self.flags()).args(further);
        run(command, "")?.failed()
    }

    /// Ends the engine by a signal and waits for its end.
    pub fn stop_daemon(&self, signal: Signal) -> Result<()> {
        let Some(mut daemon) = self.lock().take() else { return Ok(()) };
        daemon.signal(signal)?;
        daemon.wait().map(drop)
    }

    /// A program in the engine's network that finds the engine where `docker` looks for it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.host.command(program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.path("run/docker.sock").display()))
            .env("DOCKER_CONFIG", self.path("docker-config"))
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CLI_HINTS", "false")
            .env("HOME", self.directory.path())
            .current_dir(self.directory.path());
        command
    }

    fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("docker");
        command.args(arguments);
        command
    }

    /// Runs `docker` to its end.
    pub fn docker(&self, arguments: &[&str]) -> Result<Output> {
        run(self.docker_command(arguments), "")
    }

    /// Runs `docker`, which must succeed; returns what it printed, without the last line's end.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.docker(arguments)?.ok()?.trim_end().to_owned())
    }

    /// The same, with an input.
    pub fn ok_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        Ok(run(self.docker_command(arguments), input)?.ok()?.trim_end().to_owned())
    }

    /// Runs `docker` with what it must refuse; returns its complaint.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        self.docker(arguments)?.failed()
    }

    /// The exit code of a `docker` command.
    pub fn code(&self, arguments: &[&str]) -> Result<i32> {
        self.docker(arguments)?.status.code().context("docker was killed")
    }

    /// Starts `docker` in the background.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Spawned> {
        Spawned::start(self.docker_command(arguments))
    }

    /// Runs lines of a shell, which must succeed.
    pub fn shell(&self, lines: &str) -> Result<String> {
        let mut command = self.command("sh");
        command.args(["-ec", lines]);
        Ok(run(command, "")?.ok()?.trim_end().to_owned())
    }

    /// Starts lines of a shell on a terminal of 40 rows and 100 columns, in the background.
    pub fn terminal(&self, lines: &str) -> Result<Spawned> {
        let mut command = self.command("script");
        command.args(["--quiet", "--return", "--flush", "--command"]);
        command.arg(format!("stty rows 40 cols 100; {lines}")).arg("/dev/null");
        Spawned::start(command)
    }

    /// Starts a program that talks to the engine or to containers in the background.
    pub fn start_program(&self, command: Command) -> Result<Spawned> {
        Spawned::start(command)
    }

    /// Removes all containers, networks, volumes and images.
    pub fn empty(&self) -> Result<()> {
        self.shell(
            "docker ps --all --quiet | xargs -r docker rm --force --volumes
             docker network ls --quiet --filter type=custom | xargs -r docker network rm
             docker volume ls --quiet | xargs -r docker volume rm
             docker images --filter dangling=false --format '{{.Repository}}:{{.Tag}}' | xargs -r docker rmi --force
             docker image prune --all --force",
        )
        .map(drop)
    }

    /// What containers that are gone have left: processes, mounts, network namespaces, cgroups, links, files.
    pub fn left_of_containers(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let shims = leftovers::shims(self.directory.path())?;
        left.extend(shims.iter().map(|pid| format!("shim {pid}")));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let own = |point: &&str| Path::new(point).starts_with(self.directory.path());
        left.extend(points.filter(own).filter(|p| !p.ends_with("/run/engine")).map(|p| format!("mount {p}")));
        for folder in ["data/docker/containers", "data/images/snapshots", "run/engine/sandboxes", "run/engine/netns"] {
            for entry in std::fs::read_dir(self.path(folder)).into_iter().flatten() {
                left.push(format!("file {}", entry?.path().display()));
            }
        }
        left.extend(leftovers::cgroups_below(&self.host.name)?.iter().map(|path| format!("cgroup {}", path.display())));
        let links = self.host.run(&["ip", "-brief", "link"])?.ok()?;
        let known = ["lo", "eth0", "outside", "pindocker0", "pintle0"];
        let foreign = links.lines().filter(|l| !known.iter().any(|own| l.starts_with(own)));
        left.extend(foreign.map(|l| format!("link {l}")));
        Ok(left)
    }

    /// The shims of its containers.
    pub fn shims(&self) -> Result<Vec<u32>> {
        leftovers::shims(self.directory.path())
    }

    /// The cgroups of its containers, whether they run or not, in every hierarchy.
    pub fn container_cgroups(&self) -> Result<Vec<PathBuf>> {
        leftovers::cgroups_below(&self.host.name)
    }

    /// The process of the engine.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.lock().as_ref().context("the engine does not run")?.id())
    }

    /// Makes a container with the image for tests that runs `words` in the background; returns its ID.
    pub fn run_detached(&self, options: &[&str], words: &[&str]) -> Result<String> {
        self.ok(&[&["run", "--detach"][..], options, &[BUSYBOX], words].concat())
    }
}
