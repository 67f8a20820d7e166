//! The pods that wait for a node.
//!
//! A pod is in one of three places: *active*, ordered by priority and age; *backing off* after a failed attempt
//! (1 s, doubled up to 10 s); or *unschedulable*, until something changed that could help it.

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

type Order = (Reverse<i32>, u64);

#[derive(Debug)]
enum Place {
    Active(Order),
    BackingOff(Instant, u64),
    /// With the end of its back-off, should it be wanted again before that.
    Unschedulable(Instant),
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
    next: u64,
}

/// Cheap to share; all calls but `pop` return at once.
#[derive(Default)]
pub(crate) struct PodQueue {
    state: Mutex<State>,
    changed: Notify,
}

impl State {
    fn leave(&mut self, place: &Place) {
        match place {
            Place::Active(order) => drop(self.active.remove(order)),
            Place::BackingOff(until, sequence) => drop(self.backing_off.remove(&(*until, *sequence))),
            Place::Unschedulable(_) | Place::Tried { .. } => {}
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
            Place::Unschedulable(_) | Place::Tried { .. } => {}
        }
        self.pods.insert(key, waiting);
    }

    /// Active, or backing off when its time is not over.
    fn wanted(until: Instant) -> Place {
        if until <= Instant::now() { Place::Active((Reverse(0), 0)) } else { Place::BackingOff(until, 0) }
    }
}

impl PodQueue {
    /// A pod that is new, or has changed: a change may be what helps it.
    pub(crate) fn add(&self, pod: Arc<PodInfo>) {
        let mut state = self.state.lock();
        let key = pod.key.clone();
        let waiting = match state.pods.remove(&key) {
            Some(mut old) => {
                state.leave(&old.place);
                let same_spec =
                    old.pod.pod.spec == pod.pod.spec && old.pod.pod.metadata.labels == pod.pod.metadata.labels;
                old.place = match old.place {
                    Place::Unschedulable(until) if !same_spec => State::wanted(until),
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
            state.leave(&waiting.place);
        }
    }

    /// Something changed that could help pods for which there was no place.
    pub(crate) fn cluster_changed(&self) {
        let mut state = self.state.lock();
        let helped = |place: &Place| matches!(place, Place::Unschedulable(_) | Place::Tried { .. });
        let keys: Vec<ObjectKey> =
            state.pods.iter().filter(|(_, w)| helped(&w.place)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            let Some(mut waiting) = state.pods.remove(&key) else { continue };
            waiting.place = match waiting.place {
                Place::Unschedulable(until) => State::wanted(until),
                _ => Place::Tried { helped: true },
            };
            state.enter(key, waiting);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// No node would do for the pod that was popped, or the attempt failed (`retry`).
    pub(crate) fn failed(&self, key: &ObjectKey, retry: bool) {
        let mut state = self.state.lock();
        let Some(mut waiting) = state.pods.remove(key) else { return };
        let helped = matches!(waiting.place, Place::Tried { helped: true });
        state.leave(&waiting.place);
        let backoff = FIRST_BACKOFF.saturating_mul(1 << waiting.attempts.min(8)).min(LAST_BACKOFF);
        waiting.attempts += 1;
        let until = Instant::now() + backoff;
        waiting.place = if retry || helped { Place::BackingOff(until, 0) } else { Place::Unschedulable(until) };
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
        while let Some((&(until, sequence), _)) = state.backing_off.first_key_value() {
            if until > now {
                break;
            }
            let Some(key) = state.backing_off.remove(&(until, sequence)) else { break };
            let Some(mut waiting) = state.pods.remove(&key) else { continue };
            waiting.place = Place::Active((Reverse(0), 0));
            state.enter(key, waiting);
        }
        let Some((_, key)) = state.active.pop_first() else {
            return Err(state.backing_off.first_key_value().map(|((until, _), _)| *until));
        };
        let Some(waiting) = state.pods.get_mut(&key) else { return Err(Some(now)) };
        waiting.place = Place::Tried { helped: false };
        Ok(Arc::clone(&waiting.pod))
    }
}
