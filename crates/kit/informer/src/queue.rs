//! A queue of keys for workers: a key waits once however often it is added, and never runs twice at a time.
//!
//! A key that is added while a worker has it waits until the worker is done. Source of the behaviour and of the
//! back-off: client-go's `workqueue`.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1000);

/// What a queue has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Keys that wait.
    pub depth: usize,
    /// Keys that workers have.
    pub running: usize,
    /// Additions that were not merged with a waiting key.
    pub adds: u64,
    /// Additions after a failure.
    pub retries: u64,
    /// Reconciles that ended well.
    pub successes: u64,
    /// Reconciles that failed.
    pub failures: u64,
    /// Reconciles that panicked; they count as failures too.
    pub panics: u64,
}

/// The queue; clones are the same queue.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    pub(crate) counters: Counters,
}

#[derive(Default)]
pub(crate) struct Counters {
    adds: AtomicU64,
    retries: AtomicU64,
    pub successes: AtomicU64,
    pub failures: AtomicU64,
    pub panics: AtomicU64,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Keys to work on: those that wait, and those to run again when their worker is done.
    dirty: HashSet<T>,
    running: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    delayed_at: HashMap<T, (Instant, u64)>,
    sequence: u64,
    attempts: HashMap<T, u32>,
    stopped: bool,
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            running: HashSet::new(),
            delayed: BTreeMap::new(),
            delayed_at: HashMap::new(),
            sequence: 0,
            attempts: HashMap::new(),
            stopped: false,
        };
        let shared = Shared { state: Mutex::new(state), wake: Notify::new(), counters: Counters::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a key, unless it waits already.
    pub fn add(&self, key: T) {
        let mut state = self.shared.state.lock();
        if state.add(key) {
            self.shared.counters.adds.fetch_add(1, Ordering::Relaxed);
            self.shared.wake.notify_one();
        }
    }

    /// Adds a key later; of several times the soonest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.shared.state.lock();
        if state.add_at(key, Instant::now() + delay) {
            // Every sleeping worker may be sleeping for too long now.
            self.shared.wake.notify_one();
        }
    }

    /// Adds a key after a pause that doubles with every failure in a row: 5 ms to 1000 s.
    pub fn add_rate_limited(&self, key: T) {
        let delay = {
            let mut state = self.shared.state.lock();
            let attempts = state.attempts.entry(key.clone()).or_default();
            let delay = FIRST_BACKOFF.saturating_mul(1u32.checked_shl(*attempts).unwrap_or(u32::MAX));
            *attempts = attempts.saturating_add(1).min(31);
            delay.min(LONGEST_BACKOFF)
        };
        self.shared.counters.retries.fetch_add(1, Ordering::Relaxed);
        self.add_after(key, delay);
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().attempts.remove(key);
    }

    /// How often a key failed in a row.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state.lock().attempts.get(key).copied().unwrap_or_default()
    }

    /// Waits for a key to work on; nothing when the queue was shut down. [`Queue::done`] must follow.
    pub async fn next(&self) -> Option<T> {
        loop {
            let woken = self.shared.wake.notified();
            let soonest = {
                let mut state = self.shared.state.lock();
                if state.stopped {
                    // The next worker has to hear of it too.
                    self.shared.wake.notify_one();
                    return None;
                }
                state.release_due(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match soonest {
                Some(at) => tokio::select! {
                    () = woken => (),
                    () = tokio::time::sleep_until(at) => (),
                },
                None => woken.await,
            }
        }
    }

    /// Tells that the work on a key is over; if it was added meanwhile, it waits again.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        state.running.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            self.shared.wake.notify_one();
        }
    }

    /// Ends the queue: whoever waits for a key gets none. Keys that wait are dropped.
    pub fn shut_down(&self) {
        let mut state = self.shared.state.lock();
        state.stopped = true;
        self.shared.wake.notify_one();
    }

    pub fn stats(&self) -> QueueStats {
        let state = self.shared.state.lock();
        let counters = &self.shared.counters;
        QueueStats {
            depth: state.ready.len(),
            running: state.running.len(),
            adds: counters.adds.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
            successes: counters.successes.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            panics: counters.panics.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Whether the key was not waiting before.
    fn add(&mut self, key: T) -> bool {
        if self.stopped || !self.dirty.insert(key.clone()) {
            return false;
        }
        if !self.running.contains(&key) {
            self.ready.push_back(key);
        }
        true
    }

    /// Whether the time is sooner than any that the key had.
    fn add_at(&mut self, key: T, at: Instant) -> bool {
        if self.stopped {
            return false;
        }
        if let Some(&(known, sequence)) = self.delayed_at.get(&key) {
            if known <= at {
                return false;
            }
            self.delayed.remove(&(known, sequence));
        }
        self.sequence += 1;
        let place = (at, self.sequence);
        self.delayed_at.insert(key.clone(), place);
        self.delayed.insert(place, key);
        true
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.delayed_at.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}
