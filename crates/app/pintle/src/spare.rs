//! Gives memory back to the system once the work that needed it is over: what is free in the heap, and code.

use pintle_linux::process::processor_time;
use pintle_linux::{heap, program};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// After which the start is over.
const STARTED: Duration = Duration::from_secs(20);
/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(60);
/// Processor time within a period above which the process is at work: it would need the memory again at once.
const BUSY: Duration = Duration::from_secs(3);
/// Processor time after which there may be something to give back.
const WORTH: Duration = Duration::from_millis(500);

/// Looks after it until `stop`.
pub(crate) async fn give_back(stop: CancellationToken) {
    let mut ticks = tokio::time::interval_at(Instant::now() + STARTED, PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet = Quiet::default();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if quiet.begins(processor_time()) {
            // With a heap of gigabytes it takes a while.
            let done = tokio::task::spawn_blocking(|| (heap::give_back(), program::give_back())).await;
            tracing::debug!(?done, "memory was given back");
        }
    }
}

/// When the process comes to rest, told by its processor time at every look.
#[derive(Default)]
struct Quiet {
    last: Duration,
    /// At the last rest.
    rested: Option<Duration>,
}

impl Quiet {
    /// Whether the process rests, and has worked since it last did. Its start was work.
    fn begins(&mut self, used: Duration) -> bool {
        let lately = used.saturating_sub(self.last);
        self.last = used;
        let worked = self.rested.is_none_or(|rested| used.saturating_sub(rested) >= WORTH);
        let begins = lately < BUSY && worked;
        if begins {
            self.rested = Some(used);
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_begins_after_work_and_once() {
        let mut quiet = Quiet::default();
        let mut at = |seconds: f64| quiet.begins(Duration::from_secs_f64(seconds));
        assert!(at(0.2), "the start is over");
        assert!(!at(0.3), "it rests on");
        assert!(!at(20.0), "it works");
        assert!(!at(40.0));
        assert!(at(40.1));
        assert!(!at(40.2));
        assert!(at(40.9), "small work adds up");
    }
}
