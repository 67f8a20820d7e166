//! Sends requests at a steady rate from given network namespaces, each over a connection of its own, and counts.

use anyhow::{Context, Result};
use pintle_e2e::Host;
use pintle_netlink::namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests that may be under way at once, for each target.
const WORKERS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

/// Who asks whom.
pub struct Target<'a> {
    pub from: &'a Host,
    pub to: SocketAddr,
}

#[derive(Default)]
pub struct Outcome {
    pub answered: usize,
    /// How often what went wrong.
    pub failures: BTreeMap<String, usize>,
    /// From when a request was due until its whole answer was there, so that a late start counts.
    pub took: Vec<Duration>,
    /// Everything that was said.
    pub answers: BTreeSet<String>,
    /// From the first request to the end of the last one.
    pub lasted: Duration,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.took.extend(other.took);
        self.answers.extend(other.answers);
        self.lasted = self.lasted.max(other.lasted);
        for (what, times) in other.failures {
            *self.failures.entry(what).or_default() += times;
        }
    }

    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }
}

/// Runs until it is told to end.
pub struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Result<Outcome>>>,
}

/// The shared clock of a target's workers: the next request is due at a multiple of the interval.
struct Pace {
    to: SocketAddr,
    begun: Instant,
    interval: Duration,
    next: AtomicU32,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// `rate` requests per second, spread evenly over the targets.
    pub fn start(targets: &[Target<'_>], rate: u32) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let interval = Duration::from_secs(1) * targets.len() as u32 / rate;
        let start = |target: &Target<'_>| {
            let space = open(target.from)?;
            let (begun, stop) = (Instant::now(), Arc::clone(&stop));
            let pace = Pace { to: target.to, begun, interval, next: AtomicU32::new(0), stop };
            Ok(std::thread::spawn(move || Ok(namespace::enter(space.as_fd(), || send_all(&pace))?)))
        };
        let senders = targets.iter().map(start).collect::<Result<_>>()?;
        Ok(Self { stop, senders })
    }

    /// Lets what is under way end.
    pub fn finish(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for sender in self.senders {
            all.add(sender.join().ok().context("the load generator panicked")??);
        }
        Ok(all)
    }
}

/// The network namespace of a host.
pub fn open(host: &Host) -> Result<File> {
    Ok(namespace::open(&Path::new("/run/netns").join(&host.name))?)
}

/// New threads are in the namespace of the one that starts them.
fn send_all(pace: &Pace) -> Outcome {
    let mut all = Outcome::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(pace))).collect();
        for worker in workers {
            // A worker that panics has counted nothing, which shows in the count.
            all.add(worker.join().unwrap_or_default());
        }
    });
    all
}

fn work(pace: &Pace) -> Outcome {
    let mut seen = Outcome::default();
    while !pace.stop.load(Ordering::Relaxed) {
        let due = pace.begun + pace.interval * pace.next.fetch_add(1, Ordering::Relaxed);
        while let Some(rest) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(rest);
        }
        match request(pace.to) {
            Ok(said) => {
                seen.answered += 1;
                seen.answers.insert(said);
            }
            Err(error) => *seen.failures.entry(error.to_string()).or_default() += 1,
        }
        seen.took.push(due.elapsed());
    }
    seen.lasted = pace.begun.elapsed();
    seen
}

/// One request on a connection of its own, which the server closes; the body of the answer.
fn request(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") && body.starts_with("Hello") => {
            Ok(body.trim().to_owned())
        }
        _ => Err(std::io::Error::other(format!("the answer {answer:?}"))),
    }
}
