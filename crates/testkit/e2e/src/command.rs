//! Commands of real clients: run to their end, or in the background with their output at hand.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long any command may take.
const LIMIT: Duration = Duration::from_secs(180);

/// What a command that ended has said.
#[derive(Debug)]
pub struct Output {
    pub line: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The standard output; a command that failed is an error with all that it said.
    pub fn ok(self) -> Result<String> {
        if !self.status.success() {
            bail!("{}: {}\n{}{}", self.line, self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }

    /// The standard error of a command that must fail.
    pub fn failed(self) -> Result<String> {
        if self.status.success() {
            bail!("{}: succeeded, which it must not\n{}", self.line, self.stdout);
        }
        Ok(self.stderr)
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end with `input` as its standard input.
pub fn run(command: Command, input: &str) -> Result<Output> {
    run_within(command, input, LIMIT)
}

/// The same, for a command that may take longer or shorter than others.
pub fn run_within(mut command: Command, input: &str, limit: Duration) -> Result<Output> {
    let line = shown(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {line}"))?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = input.to_owned();
    let writing = std::thread::spawn(move || {
        // A command that ends without reading its input is no failure.
        let _ = stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
    });
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.map(|mut p| p.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(stdout.map(|p| Box::new(p) as Box<dyn Read + Send>));
    let stderr = read(stderr.map(|p| Box::new(p) as Box<dyn Read + Send>));
    let status = wait(&mut child, &line, limit)?;
    let join = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    drop(writing.join());
    Ok(Output { line, status, stdout: join(stdout), stderr: join(stderr) })
}

fn wait(child: &mut Child, line: &str, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{line}: did not end within {} s", limit.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A command that runs in the background; it is killed when dropped.
pub struct Spawned {
    child: Child,
    line: String,
    seen: Arc<(Mutex<String>, Condvar)>,
}

impl Spawned {
    /// Starts a command; its standard output and error are collected.
    pub fn start(mut command: Command) -> Result<Self> {
        let line = shown(&command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {line}"))?;
        let seen = Arc::new((Mutex::new(String::new()), Condvar::new()));
        collect(child.stdout.take(), &seen);
        collect(child.stderr.take(), &seen);
        Ok(Self { child, line, seen })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    pub fn say(&mut self, text: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is closed")?;
        stdin.write_all(text.as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// Waits until its output has a text; returns all of the output so far.
    pub fn expect(&self, text: &str, limit: Duration) -> Result<String> {
        let (lock, changed) = &*self.seen;
        let seen = lock.lock().unwrap_or_else(|p| p.into_inner());
        let missing = |seen: &mut String| !seen.contains(text);
        let (seen, timeout) = changed.wait_timeout_while(seen, limit, missing).unwrap_or_else(|p| p.into_inner());
        if timeout.timed_out() {
            bail!("{}: no {text:?} within {} s, but:\n{}", self.line, limit.as_secs(), *seen);
        }
        Ok(seen.clone())
    }

    /// Waits until its output has such a line.
    pub fn expect_line(&self, good: impl Fn(&str) -> bool, limit: Duration) -> Result<()> {
        let (lock, changed) = &*self.seen;
        let seen = lock.lock().unwrap_or_else(|p| p.into_inner());
        let missing = |seen: &mut String| !seen.lines().any(&good);
        let (seen, timeout) = changed.wait_timeout_while(seen, limit, missing).unwrap_or_else(|p| p.into_inner());
        if timeout.timed_out() {
            bail!("{}: no such line within {} s, but:\n{}", self.line, limit.as_secs(), *seen);
        }
        Ok(())
    }

    /// All of the output so far.
    pub fn output(&self) -> String {
        self.seen.0.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).context("a process id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        wait(&mut self.child, &self.line, LIMIT)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>, seen: &Arc<(Mutex<String>, Condvar)>) {
    let (Some(pipe), seen) = (pipe, Arc::clone(seen)) else { return };
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        loop {
            let bytes = match reader.fill_buf() {
                Ok(bytes) if !bytes.is_empty() => bytes,
                _ => return,
            };
            let length = bytes.len();
            seen.0.lock().unwrap_or_else(|p| p.into_inner()).push_str(&String::from_utf8_lossy(bytes));
            seen.1.notify_all();
            reader.consume(length);
        }
    });
}
