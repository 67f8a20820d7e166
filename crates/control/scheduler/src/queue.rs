//! The pods that wait for a node.
//!
//! A pod is in one of three places: *active*, ordered by priority and age; *backing off* after a failed attempt
//! (1 s, doubled up to 10 s); or *unschedulable*, until something changed that could help it, or five minutes are
//! over. Pods with scheduling gates do not come here.

use crate::filter::Plugins;
use crate::hints::{Event, helps};
use crate::pod::PodInfo;
use parking_lot::Mutex;
use pintle_types::ObjectKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);

/// A pod that nothing helped is tried again after this time in any case.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

type Order = (Reverse<i32>, u64);

#[derive(Debug)]
enum Place {
    Active(Order),
    BackingOff(Instant, u64),
    /// With the end of its back-off, should it be wanted again before that, and who refused it.
    Unschedulable {
        since: Instant,
        backoff: Instant,
        refused_by: Plugins,
    },
    /// Being scheduled now; whether something that could help changed meanwhile.
    Tried {
        helped: bool,
    },
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    /// Of its arrival: older pods go first.
    sequence: u64,
    attempts: u32,
    place: Place,
}

#[derive(Default)]
struct State {
    pods: HashMap<ObjectKey, Waiting>,
    active: BTreeMap<Order, ObjectKey>,
    backing_off: BTreeMap<(Instant, u64), ObjectKey>,
    unschedulable: BTreeMap<(Instant, u64), ObjectKey>,
    next: u64,
}

/// Cheap to share; all calls but `pop` return at once.
#[derive(Default)]
pub(crate) struct PodQueue {
    state: Mutex<State>,
    changed: Notify,
}

impl State {
    fn leave(&mut self, waiting: &Waiting) {
        match &waiting.place {
            Place::Active(order) => drop(self.active.remove(order)),
            Place::BackingOff(until, sequence) => drop(self.backing_off.remove(&(*until, *sequence))),
            Place::Unschedulable { since, .. } => drop(self.unschedulable.remove(&(*since, waiting.sequence))),
            Place::Tried { .. } => {}
        }
    }

    fn enter(&mut self, key: ObjectKey, mut waiting: Waiting) {
        match &mut waiting.place {
            Place::Active(order) => {
                *order = (Reverse(waiting.pod.priority), waiting.sequence);
                self.active.insert(*order, key.clone());
            }
            Place::BackingOff(until, sequence) => {
                *sequence = waiting.sequence;
                self.backing_off.insert((*until, *sequence), key.clone());
            }
            Place::Unschedulable { since, .. } => {
                self.unschedulable.insert((*since, waiting.sequence), key.clone());
            }
            Place::Tried { .. } => {}
        }
        self.pods.insert(key, waiting);
    }

    /// Active, or backing off when its time is not over.
    fn wanted(until: Instant) -> Place {
        if until <= Instant::now() { Place::Active((Reverse(0), 0)) } else { Place::BackingOff(until, 0) }
    }
}

impl State {
    /// An unschedulable pod is wanted again.
    fn wake(&mut self, key: &ObjectKey) -> bool {
        let Some(mut waiting) = self.pods.remove(key) else { return false };
        self.leave(&waiting);
        if let Place::Unschedulable { backoff, .. } = waiting.place {
            waiting.place = Self::wanted(backoff);
        }
        self.enter(key.clone(), waiting);
        true
    }

    /// Moves those whose time is over.
    fn flush(&mut self, now: Instant) {
        while let Some((&(since, _), key)) = self.unschedulable.first_key_value() {
            if since + LONGEST_WAIT > now {
                break;
            }
            let key = key.clone();
            self.wake(&key);
        }
        while let Some((&(until, sequence), _)) = self.backing_off.first_key_value() {
            if until > now {
                break;
            }
            let Some(key) = self.backing_off.remove(&(until, sequence)) else { break };
            let Some(mut waiting) = self.pods.remove(&key) else { continue };
            waiting.place = Place::Active((Reverse(0), 0));
            self.enter(key, waiting);
        }
    }

    /// When the next pod's time is over.
    fn next_flush(&self) -> Option<Instant> {
        let backoff = self.backing_off.first_key_value().map(|((until, _), _)| *until);
        let longest = self.unschedulable.first_key_value().map(|((since, _), _)| *since + LONGEST_WAIT);
        backoff.into_iter().chain(longest).min()
    }
}

impl PodQueue {
    /// A pod that is new, or has changed: a change may be what helps it.
    pub(crate) fn add(&self, pod: Arc<PodInfo>) {
        let mut state = self.state.lock();
        let key = pod.key.clone();
        let waiting = match state.pods.remove(&key) {
            Some(mut old) => {
                state.leave(&old);
                let same_spec =
                    old.pod.pod.spec == pod.pod.spec && old.pod.pod.metadata.labels == pod.pod.metadata.labels;
                old.place = match old.place {
                    Place::Unschedulable { backoff, .. } if !same_spec => State::wanted(backoff),
                    Place::Tried { helped } => Place::Tried { helped: helped || !same_spec },
                    kept => kept,
                };
                old.pod = pod;
                old
            }
            None => {
                state.next += 1;
                Waiting { pod, sequence: state.next, attempts: 0, place: Place::Active((Reverse(0), 0)) }
            }
        };
        state.enter(key, waiting);
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn remove(&self, key: &ObjectKey) {
        let mut state = self.state.lock();
        if let Some(waiting) = state.pods.remove(key) {
            state.leave(&waiting);
        }
    }

    /// Something changed; those whom it could help are wanted again.
    pub(crate) fn cluster_changed(&self, event: &Event) {
        let mut state = self.state.lock();
        let mut woken = false;
        for waiting in state.pods.values_mut() {
            // Of a pod that is tried at this moment nobody knows yet what it lacks.
            if let Place::Tried { helped } = &mut waiting.place {
                *helped = true;
            }
        }
        let helped = |key: &&ObjectKey| {
            state.pods.get(*key).is_some_and(|w| match w.place {
                Place::Unschedulable { refused_by, .. } => helps(event, refused_by, &w.pod),
                _ => false,
            })
        };
        let keys: Vec<ObjectKey> = state.unschedulable.values().filter(helped).cloned().collect();
        for key in keys {
            woken |= state.wake(&key);
        }
        drop(state);
        if woken {
            self.changed.notify_one();
        }
    }

    /// No node would do for the pod that was popped, by these plugins' word.
    pub(crate) fn unschedulable(&self, key: &ObjectKey, refused_by: Plugins) {
        self.failed(key, Some(refused_by));
    }

    /// The attempt failed for a reason that is not the pod's; it is tried again after its back-off.
    pub(crate) fn retry(&self, key: &ObjectKey) {
        self.failed(key, None);
    }

    fn failed(&self, key: &ObjectKey, refused_by: Option<Plugins>) {
        let mut state = self.state.lock();
        let Some(mut waiting) = state.pods.remove(key) else { return };
        let helped = matches!(waiting.place, Place::Tried { helped: true });
        state.leave(&waiting);
        let time = FIRST_BACKOFF.saturating_mul(1 << waiting.attempts.min(8)).min(LAST_BACKOFF);
        waiting.attempts += 1;
        let since = Instant::now();
        let backoff = since + time;
        waiting.place = match refused_by {
            Some(refused_by) if !helped => Place::Unschedulable { since, backoff, refused_by },
            _ => Place::BackingOff(backoff, 0),
        };
        state.enter(key.clone(), waiting);
        drop(state);
        self.changed.notify_one();
    }

    /// The pod to schedule next: the one of the highest priority, the oldest among equals. It stays known here until
    /// it is removed or reported as failed.
    pub(crate) async fn pop(&self) -> Arc<PodInfo> {
        loop {
            let wake = match self.try_pop() {
                Ok(pod) => return pod,
                Err(wake) => wake,
            };
            let changed = self.changed.notified();
            match wake {
                Some(at) => drop(tokio::time::timeout_at(at, changed).await),
                None => changed.await,
            }
        }
    }

    /// The next pod, or when the next back-off ends.
    pub(crate) fn try_pop(&self) -> Result<Arc<PodInfo>, Option<Instant>> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.flush(now);
        let Some((_, key)) = state.active.pop_first() else {
            return Err(state.next_flush());
        };
        let Some(waiting) = state.pods.get_mut(&key) else { return Err(Some(now)) };
        waiting.place = Place::Tried { helped: false };
        Ok(Arc::clone(&waiting.pod))
    }
}
