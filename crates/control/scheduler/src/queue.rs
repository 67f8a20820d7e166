//! The pods that wait for a node.
//!
//! A pod is in one of three places: *active*, ordered by priority and age; *backing off* after a failed attempt
//! (1 s, doubled up to 10 s); or *unschedulable*, until something changed that could help it, or five minutes are
//! over. While nobody is active, those that back off after a refusal are tried before their time, as upstream does;
//! those that back off after an error are not. Pods with scheduling gates do not come here.

use crate::filter::{Plugin, Plugins};
use crate::groups::Groups;
use crate::hints::{Event, asks, helps};
use crate::metrics::Metrics;
use crate::pod::PodInfo;
use parking_lot::Mutex;
use pintle_types::ObjectKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Changes that are remembered for pods which are being tried.
const RECENT: usize = 256;

/// A pod that nothing helped is tried again after this time in any case.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

type Order = (Reverse<i32>, u64);

#[derive(Debug)]
enum Place {
    Active(Order),
    BackingOff {
        until: Instant,
        /// Whether the attempt failed by an error, not for want of a node.
        error: bool,
    },
    /// With the end of its back-off, should it be wanted again before that, and who refused it.
    Unschedulable {
        since: Instant,
        backoff: Instant,
        refused_by: Plugins,
    },
    /// Being scheduled now, since so many changes; whether the pod itself changed meanwhile.
    Tried {
        since: u64,
        changed: bool,
    },
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    /// Of its arrival: older pods go first.
    sequence: u64,
    arrived: Instant,
    attempts: u32,
    place: Place,
}

/// A pod whose turn it is.
#[derive(Debug)]
pub(crate) struct Popped {
    pub(crate) pod: Arc<PodInfo>,
    pub(crate) arrived: Instant,
    /// This one included.
    pub(crate) attempts: u32,
}

#[derive(Default)]
struct State {
    pods: HashMap<ObjectKey, Waiting>,
    active: BTreeMap<Order, ObjectKey>,
    /// After a refusal, and after an error.
    backing_off: [BTreeMap<(Instant, u64), ObjectKey>; 2],
    unschedulable: BTreeMap<(Instant, u64), ObjectKey>,
    /// The same by what could help them.
    groups: Groups,
    /// How many unschedulable pods each plugin refused, by its place among all; the last is of those whom none did.
    refused: [usize; Plugin::ALL.len() + 1],
    /// The last changes: what a pod that is being tried lacks is known only after.
    recent: VecDeque<Arc<Event>>,
    changes: u64,
    next: u64,
}

/// Cheap to share; all calls but `pop` return at once.
pub(crate) struct PodQueue {
    state: Mutex<State>,
    changed: Notify,
    backoff: [Duration; 2],
    metrics: Arc<Metrics>,
}

impl State {
    fn count_refusers(&mut self, refused_by: Plugins, comes: bool) {
        let change = |count: &mut usize| if comes { *count += 1 } else { *count -= 1 };
        for (i, plugin) in Plugin::ALL.into_iter().enumerate() {
            if refused_by.contains(plugin) {
                change(&mut self.refused[i]);
            }
        }
        if refused_by == Plugins::default() {
            change(&mut self.refused[Plugin::ALL.len()]);
        }
    }

    fn leave(&mut self, waiting: &Waiting) {
        match waiting.place {
            Place::Active(order) => drop(self.active.remove(&order)),
            Place::BackingOff { until, error } => {
                drop(self.backing_off[usize::from(error)].remove(&(until, waiting.sequence)));
            }
            Place::Unschedulable { since, refused_by, .. } => {
                self.unschedulable.remove(&(since, waiting.sequence));
                self.groups.leave(&waiting.pod);
                self.count_refusers(refused_by, false);
            }
            Place::Tried { .. } => {}
        }
    }

    fn enter(&mut self, key: ObjectKey, mut waiting: Waiting) {
        match &mut waiting.place {
            Place::Active(order) => {
                *order = (Reverse(waiting.pod.priority), waiting.sequence);
                self.active.insert(*order, key.clone());
            }
            Place::BackingOff { until, error } => {
                self.backing_off[usize::from(*error)].insert((*until, waiting.sequence), key.clone());
            }
            Place::Unschedulable { since, refused_by, .. } => {
                self.unschedulable.insert((*since, waiting.sequence), key.clone());
                let refused_by = *refused_by;
                self.groups.enter(&waiting.pod, refused_by);
                self.count_refusers(refused_by, true);
            }
            Place::Tried { .. } => {}
        }
        self.pods.insert(key, waiting);
    }

    /// Active, or backing off when its time is not over.
    fn wanted(until: Instant) -> Place {
        if until <= Instant::now() { Place::Active((Reverse(0), 0)) } else { Place::BackingOff { until, error: false } }
    }

    /// An unschedulable pod is wanted again; returns the name of the queue that it comes to.
    fn wake(&mut self, key: &ObjectKey) -> Option<&'static str> {
        let mut waiting = self.pods.remove(key)?;
        self.leave(&waiting);
        if let Place::Unschedulable { backoff, .. } = waiting.place {
            waiting.place = Self::wanted(backoff);
        }
        let queue = if matches!(waiting.place, Place::Active(_)) { "active" } else { "backoff" };
        self.enter(key.clone(), waiting);
        Some(queue)
    }

    /// Moves those whose time is over.
    fn flush(&mut self, now: Instant, metrics: &Metrics) {
        while let Some((&(since, _), key)) = self.unschedulable.first_key_value() {
            if since + LONGEST_WAIT > now {
                break;
            }
            let key = key.clone();
            if let Some(queue) = self.wake(&key) {
                metrics.came(queue, "UnschedulableTimeout");
            }
        }
        for error in [false, true] {
            while let Some((&(until, sequence), _)) = self.backing_off[usize::from(error)].first_key_value() {
                if until > now {
                    break;
                }
                self.end_backoff(error, (until, sequence), metrics);
            }
        }
    }

    fn end_backoff(&mut self, error: bool, place: (Instant, u64), metrics: &Metrics) {
        let Some(key) = self.backing_off[usize::from(error)].remove(&place) else { return };
        let Some(mut waiting) = self.pods.remove(&key) else { return };
        waiting.place = Place::Active((Reverse(0), 0));
        metrics.came("active", "BackoffComplete");
        self.enter(key, waiting);
    }

    /// When the next pod's time is over.
    fn next_flush(&self) -> Option<Instant> {
        let backoff = self.backing_off.iter().filter_map(|pods| Some(pods.first_key_value()?.0.0)).min();
        let longest = self.unschedulable.first_key_value().map(|((since, _), _)| *since + LONGEST_WAIT);
        backoff.into_iter().chain(longest).min()
    }

    /// Whether somebody is being tried who may want to know of changes.
    fn anyone_tried(&self) -> bool {
        let resting: usize = self.backing_off.iter().map(BTreeMap::len).sum();
        self.pods.len() > self.active.len() + self.unschedulable.len() + resting
    }

    /// Whether a change since then could help the pod.
    fn helped_since(&self, since: u64, refused_by: Plugins, pod: &PodInfo) -> bool {
        let missed = usize::try_from(self.changes - since).unwrap_or(usize::MAX);
        let known = self.recent.len();
        // What was forgotten may have helped.
        missed > known || self.recent.range(known - missed..).any(|event| helps(event, refused_by, pod))
    }

    /// Whether any unschedulable pod was refused by somebody who asks about such changes.
    fn may_help_any(&self, event: &Event) -> bool {
        let none = Plugin::ALL.len();
        let any = Plugin::ALL.into_iter().enumerate().any(|(i, plugin)| self.refused[i] > 0 && asks(plugin, event));
        any || (self.refused[none] > 0 && matches!(event, Event::NodeAdded(_)))
    }
}

impl PodQueue {
    pub(crate) fn new(backoff: [Duration; 2], metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), backoff, metrics }
    }

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
                    Place::Unschedulable { backoff, .. } if !same_spec => {
                        self.metrics.came("active", "UnschedulablePodUpdate");
                        State::wanted(backoff)
                    }
                    Place::Tried { since, changed } => Place::Tried { since, changed: changed || !same_spec },
                    kept => kept,
                };
                old.pod = pod;
                old
            }
            None => {
                state.next += 1;
                self.metrics.came("active", "UnscheduledPodAdd");
                let (sequence, place) = (state.next, Place::Active((Reverse(0), 0)));
                Waiting { pod, sequence, arrived: Instant::now(), attempts: 0, place }
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
        state.changes += 1;
        if state.anyone_tried() {
            if state.recent.len() == RECENT {
                state.recent.pop_front();
            }
            state.recent.push_back(Arc::new(event.clone()));
        } else {
            state.recent.clear();
        }
        if !state.may_help_any(event) {
            return;
        }
        let keys = state.groups.helped(event);
        for key in &keys {
            if let Some(queue) = state.wake(key) {
                self.metrics.came(queue, event.name());
            }
        }
        drop(state);
        if !keys.is_empty() {
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
        let tried = match waiting.place {
            Place::Tried { since, changed } => Some((since, changed)),
            _ => None,
        };
        state.leave(&waiting);
        let [first, last] = self.backoff;
        let doublings = waiting.attempts.saturating_sub(1).min(16);
        let time = first.saturating_mul(1 << doublings).min(last);
        let since = Instant::now();
        let backoff = since + time;
        let mut queue = "backoff";
        waiting.place = match refused_by {
            None => Place::BackingOff { until: backoff, error: true },
            Some(refused_by) => {
                let seen = |(since, changed)| changed || state.helped_since(since, refused_by, &waiting.pod);
                if tried.is_some_and(seen) {
                    Place::BackingOff { until: backoff, error: false }
                } else {
                    queue = "unschedulable";
                    Place::Unschedulable { since, backoff, refused_by }
                }
            }
        };
        self.metrics.came(queue, "ScheduleAttemptFailure");
        state.enter(key.clone(), waiting);
        drop(state);
        self.changed.notify_one();
    }

    /// The pod to schedule next: the one of the highest priority, the oldest among equals. It stays known here until
    /// it is removed or reported as failed.
    pub(crate) async fn pop(&self) -> Popped {
        loop {
            let wake = match self.try_pop() {
                Ok(popped) => return popped,
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
    pub(crate) fn try_pop(&self) -> Result<Popped, Option<Instant>> {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.flush(now, &self.metrics);
        if state.active.is_empty()
            && let Some(first) = state.backing_off[0].first_key_value().map(|(place, _)| *place)
        {
            state.end_backoff(false, first, &self.metrics);
        }
        let Some((_, key)) = state.active.pop_first() else {
            return Err(state.next_flush());
        };
        let since = state.changes;
        let Some(waiting) = state.pods.get_mut(&key) else { return Err(Some(now)) };
        waiting.place = Place::Tried { since, changed: false };
        waiting.attempts += 1;
        Ok(Popped { pod: Arc::clone(&waiting.pod), arrived: waiting.arrived, attempts: waiting.attempts })
    }

    /// Whether anybody waits, or is being tried, whom a change could help.
    pub(crate) fn minds_changes(&self) -> bool {
        let state = self.state.lock();
        !state.unschedulable.is_empty() || state.anyone_tried()
    }

    /// How many pods are active, back off and are unschedulable.
    pub(crate) fn lengths(&self) -> [usize; 3] {
        let state = self.state.lock();
        [state.active.len(), state.backing_off.iter().map(BTreeMap::len).sum(), state.unschedulable.len()]
    }

    /// How many unschedulable pods each plugin refused, by the name of their scheduler.
    pub(crate) fn refused(&self) -> BTreeMap<(Plugin, String), usize> {
        let state = self.state.lock();
        let mut out = BTreeMap::new();
        for waiting in state.unschedulable.values().filter_map(|key| state.pods.get(key)) {
            let Place::Unschedulable { refused_by, .. } = waiting.place else { continue };
            for plugin in Plugin::ALL.into_iter().filter(|plugin| refused_by.contains(*plugin)) {
                *out.entry((plugin, waiting.pod.scheduler().to_owned())).or_default() += 1;
            }
        }
        out
    }
}
