//! Runs requests in a closed loop, and prints what they took.

use crate::connection::{Call, Connection, Version};
use crate::target::Target;
use anyhow::Result;
use std::fmt::Arguments;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Prints one line.
pub(crate) fn say(line: Arguments<'_>) {
    // Whoever closed the output does not want it.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The times of many requests, and what the server used for them.
pub(crate) struct Times {
    pub(crate) each: Vec<Duration>,
    pub(crate) whole: Duration,
    pub(crate) cpu: Duration,
}

impl Times {
    /// The time that a share of the requests stayed below; they are sorted.
    pub(crate) fn share(&self, share: f64) -> Duration {
        let last = self.each.len().saturating_sub(1);
        self.each.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }

    /// Prints a row of the table.
    pub(crate) fn print(&self, name: &str) {
        let count = self.each.len().max(1);
        let rate = count as f64 / self.whole.as_secs_f64();
        let cpu = self.cpu.as_secs_f64() / count as f64;
        say(format_args!(
            "{name:<44} {rate:>10.0} {:>10} {:>10} {:>12}",
            short(self.share(0.5)),
            short(self.share(0.99)),
            short(Duration::from_secs_f64(cpu))
        ));
    }
}

pub(crate) fn short(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..1000 => format!("{us} µs"),
        us @ 1000..100_000 => format!("{:.1} ms", us as f64 / 1000.0),
        us => format!("{:.0} ms", us as f64 / 1000.0),
    }
}

/// Each of so many connections sends one request after the other, `count` in all. `call` makes the request of a number.
pub(crate) async fn closed_loop(
    target: &Target,
    version: Version,
    connections: usize,
    count: u64,
    call: impl Fn(u64) -> Call + Send + Sync + 'static,
) -> Result<Times> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(target, version).await?);
    }
    let (call, next) = (Arc::new(call), Arc::new(AtomicU64::new(0)));
    let (cpu, began) = (target.cpu(), Instant::now());
    let loops: Vec<_> = open
        .into_iter()
        .map(|mut connection| {
            let (call, next) = (Arc::clone(&call), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(times);
                    }
                    let request = call(number);
                    let sent = Instant::now();
                    connection.call(&request).await?;
                    times.push(sent.elapsed());
                }
            })
        })
        .collect();
    let mut each = Vec::new();
    for one in loops {
        each.extend(one.await??);
    }
    let (whole, cpu) = (began.elapsed(), target.cpu() - cpu);
    each.sort_unstable();
    Ok(Times { each, whole, cpu })
}
