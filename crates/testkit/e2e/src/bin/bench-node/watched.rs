//! Pods as `kubectl get --watch` shows them, each line with the time at which it came.

use anyhow::{Context, Result, bail};
use pintle_e2e::Space;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Ends its kubectl when dropped.
pub struct Watched {
    kubectl: Child,
    lines: Receiver<(Instant, String)>,
}

/// When a pod was seen first, and when it ran.
#[derive(Clone, Copy)]
pub struct Seen {
    pub created: Instant,
    pub running: Option<Instant>,
}

impl Watched {
    pub fn start(space: &Space<'_>) -> Result<Self> {
        let columns = "custom-columns=NAME:.metadata.name,PHASE:.status.phase";
        let words = ["--namespace", &space.name, "get", "pods", "--watch", "--no-headers", "-o", columns];
        let mut command = space.cluster.kubectl_command(&space.kubectl, &words);
        let mut kubectl = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start kubectl")?;
        let output = BufReader::new(kubectl.stdout.take().context("its output")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let stamped = output.lines().map_while(Result::ok).map(|line| (Instant::now(), line));
            // It ends with the kubectl, or when nobody listens any more.
            stamped.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Ok(Self { kubectl, lines })
    }

    /// Reads until so many pods have been seen to run.
    pub fn until_running(&self, count: usize, limit: Duration) -> Result<HashMap<String, Seen>> {
        let deadline = Instant::now() + limit;
        let mut seen: HashMap<String, Seen> = HashMap::new();
        while seen.values().filter(|one| one.running.is_some()).count() < count {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Ok((at, line)) = self.lines.recv_timeout(rest) else {
                let running = seen.values().filter(|one| one.running.is_some()).count();
                bail!("of {count} pods {running} run, {} are there", seen.len());
            };
            let mut words = line.split_whitespace();
            let (Some(name), Some(phase)) = (words.next(), words.next()) else { continue };
            let one = seen.entry(name.to_owned()).or_insert(Seen { created: at, running: None });
            if phase == "Running" {
                one.running.get_or_insert(at);
            }
        }
        Ok(seen)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
