//! Simulates clusters by their seeds, one process for each, and tells which seeds fail.
//!
//! A process that simulates draws all its entropy from the seed: also the hashes of the standard library, the choices
//! of tokio's `select!`, and the uids of objects. So a seed replays the same way.

#![allow(clippy::print_stdout, reason = "what it finds is its output")]

use clap::Parser;
use pintle_sim::{Options, Outcome, run};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Simulates clusters by their seeds.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, each in a process of its own; without it, the seed is simulated here.
    #[arg(long)]
    count: Option<u64>,
    #[arg(long, default_value_t = 4)]
    nodes: u16,
    /// How long things go wrong, in seconds of virtual time.
    #[arg(long, default_value_t = 240)]
    trouble: u64,
    /// Seeds at a time.
    #[arg(long)]
    jobs: Option<usize>,
    /// What is logged to the standard error, such as `pintle_sim=info,pintle_kubelet=debug`.
    #[arg(long)]
    log: Option<tracing_subscriber::filter::Targets>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.count {
        Some(count) => sweep(&arguments, count),
        None => one(&arguments),
    }
}

fn one(arguments: &Arguments) -> ExitCode {
    entropy::draw_from(arguments.seed);
    if let Some(filter) = &arguments.log {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        tracing_subscriber::registry().with(lines.with_filter(filter.clone())).init();
    }
    let trouble = Duration::from_secs(arguments.trouble);
    let options = Options { seed: arguments.seed, nodes: arguments.nodes, trouble, ..Options::default() };
    match run(&options) {
        Ok(outcome) => tell(&outcome),
        Err(error) => {
            println!("seed {}: {error:#}", arguments.seed);
            ExitCode::FAILURE
        }
    }
}

fn tell(outcome: &Outcome) -> ExitCode {
    let Outcome { seed, changes, digest, took, violations } = outcome;
    println!("seed {seed}: {changes} changes in {took:.0?}, digest {digest}");
    for violation in violations {
        println!("seed {seed}: {violation}");
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Simulates seeds side by side. Prints what fails, and how to have it again.
fn sweep(arguments: &Arguments, count: u64) -> ExitCode {
    let jobs = arguments.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let (next, failed) = (AtomicU64::new(arguments.seed), AtomicU64::new(0));
    let end = arguments.seed.saturating_add(count);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Err(said) = in_process(arguments, seed) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        print!("{said}");
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{count} seeds, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn in_process(arguments: &Arguments, seed: u64) -> Result<(), String> {
    let (nodes, trouble) = (arguments.nodes.to_string(), arguments.trouble.to_string());
    let own = std::env::current_exe().map_err(|e| format!("seed {seed}: {e}\n"))?;
    let seed_text = seed.to_string();
    let flags = ["--seed", &seed_text, "--nodes", &nodes, "--trouble", &trouble];
    let output = Command::new(own).args(flags).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("seed {seed}: {e}\n"))?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{out}{err}seed {seed}: again with: pintle-sim {}\n", flags.join(" ")))
}

/// The entropy of this process.
mod entropy {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The state of the generator; 0 is not seeded, and the kernel is asked.
    static STATE: AtomicU64 = AtomicU64::new(0);

    /// From now on all random bytes follow from the seed.
    pub fn draw_from(seed: u64) {
        STATE.store(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, Ordering::Relaxed);
    }

    /// SplitMix64.
    fn next() -> u64 {
        let state = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In place of the C library's function, for every library of this binary.
    #[allow(unsafe_code)]
    // SAFETY: the name and the signature are those of getrandom(3); no other definition is linked into this binary
    // but the C library's, which a program may replace.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
        if STATE.load(Ordering::Relaxed) == 0 {
            // SAFETY: the caller's buffer and length are handed on as they are.
            return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as isize;
        }
        let mut done = 0;
        while done < length {
            let bytes = next().to_ne_bytes();
            let count = bytes.len().min(length - done);
            // SAFETY: the caller says that `length` bytes from `buffer` can be written; `done + count` is at most that.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.add(done), count) };
            done += count;
        }
        isize::try_from(length).unwrap_or(isize::MAX)
    }
}
