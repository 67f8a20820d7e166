//! The server that is measured: how to reach it, and what its processes have used.

use anyhow::{Context, Result, ensure};
use pintle_client::Kubeconfig;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long an own server may take to write its kubeconfig, in steps of [`STEP`].
const STEPS: u32 = 1000;
const STEP: Duration = Duration::from_millis(10);

/// A server under load.
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) host: String,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pids: Vec<i32>,
    own: Option<Own>,
}

/// A server of our own; killed when it is dropped.
struct Own {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Own {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    pub(crate) fn of_kubeconfig(file: &Path, pids: Vec<i32>) -> Result<Self> {
        let kubeconfig = Kubeconfig::load(file)?;
        let uri: http::Uri = kubeconfig.server().parse().context("the kubeconfig's server")?;
        ensure!(uri.scheme_str() == Some("https"), "the server must be reached by https");
        let host = uri.host().context("the kubeconfig's server has no host")?.to_owned();
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        Ok(Self { address, host, tls: Arc::new(kubeconfig.tls()?), pids, own: None })
    }

    /// Starts this program once more, as a server with an empty store in a temporary directory.
    pub(crate) async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("serve").arg(directory.path()).stdin(Stdio::null());
        let child = command.spawn().context("start the server")?;
        let pid = i32::try_from(child.id())?;
        let own = Own { child, _directory: directory };
        let file = own._directory.path().join("kubeconfig");
        for _ in 0..STEPS {
            if file.exists() {
                let target = Self::of_kubeconfig(&file, vec![pid])?;
                return Ok(Self { own: Some(own), ..target });
            }
            tokio::time::sleep(STEP).await;
        }
        anyhow::bail!("the server did not start")
    }

    /// Whether the server is ours, with a store that was empty.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Processor time that the server has used.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self.pids.iter().filter_map(|pid| ticks(*pid)).sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    /// Bytes of memory that the server has (proportional set size).
    pub(crate) fn memory(&self) -> u64 {
        self.pids.iter().filter_map(|pid| proportional_bytes(*pid)).sum()
    }
}

/// User and system time of a process: fields 14 and 15 of proc(5) `/proc/PID/stat`.
fn ticks(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn proportional_bytes(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
