//! Starts this program once more, in the background, and finds and ends what was started so.
//!
//! Its process id is in `pintle.pid` of the run directory, its messages in `pintle.log` of the data directory.

use crate::cluster::Cluster;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, test_kill_process};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LOG_LINES: usize = 20;
/// How long a server or an agent may take to end.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

fn pid_file(cluster: &Cluster) -> PathBuf {
    cluster.run("pintle.pid")
}

fn log_file(cluster: &Cluster) -> PathBuf {
    cluster.data("pintle.log")
}

/// A process that goes on when this one ends.
pub(crate) struct Started {
    child: Child,
    log: PathBuf,
}

/// Starts `pintle COMMAND` for a cluster whose settings were written down.
pub(crate) fn start(cluster: &Cluster, command: &str) -> Result<Started> {
    let log = log_file(cluster);
    let open = || std::fs::File::options().create(true).append(true).open(&log);
    let (out, error) = (open(), open());
    let child = Command::new(std::env::current_exe().context("find this program")?)
        .arg(command)
        .arg("--data-dir")
        .arg(cluster.settings.data_dir())
        .stdin(Stdio::null())
        .stdout(out.with_context(|| format!("open {}", log.display()))?)
        .stderr(error.with_context(|| format!("open {}", log.display()))?)
        // What the terminal sends to this command is not meant for it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start pintle {command}"))?;
    let path = pid_file(cluster);
    std::fs::write(&path, child.id().to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(Started { child, log })
}

impl Started {
    pub(crate) fn log(&self) -> String {
        self.log.display().to_string()
    }

    /// Asks until there is an answer; fails with the end of the log when the process ends, or at last.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = ask().await {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{what}: it ended with {status}; its last messages:\n{}", self.last_lines());
            }
            if start.elapsed() > limit {
                bail!("{what}: not within {} s; the last messages:\n{}", limit.as_secs(), self.last_lines());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// Ends what runs in the background of this cluster, if anything does, and waits for it.
pub(crate) fn end(cluster: &Cluster) -> Result<()> {
    let Some(pid) = running(cluster) else { return Ok(()) };
    rustix::process::kill_process(pid, Signal::TERM).context("end what runs in the background")?;
    let start = Instant::now();
    while running(cluster).is_some() {
        if start.elapsed() > PATIENCE {
            bail!("process {} did not end within {} s", pid.as_raw_nonzero(), PATIENCE.as_secs());
        }
        std::thread::park_timeout(PAUSE);
    }
    Ok(())
}

/// The process of the file, if it is one of this program: the number may be somebody else's by now.
fn running(cluster: &Cluster) -> Option<Pid> {
    let pid = std::fs::read_to_string(pid_file(cluster)).ok()?.trim().parse().ok().and_then(Pid::from_raw)?;
    test_kill_process(pid).ok()?;
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    let data = cluster.settings.data_dir();
    let ours = line.split(|byte| *byte == 0).any(|word| word == data.as_os_str().as_encoded_bytes());
    // One that has ended, and that nobody has waited for, has no command line any more.
    ours.then_some(pid)
}
