//! Seats for requests: classification, waiting and the end of a request, over the levels' pure cores.

use crate::defaults;
use crate::level::{Arrival, Level, Ticket};
use crate::metrics::Metrics;
use crate::schema::{Digest, LevelObject, Schema};
use crate::seats::{Claim, allocate, nominal};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Levels lend and borrow anew after this time, when somebody has to wait.
const ADJUST_SECONDS: f64 = 10.0;
/// The widest request, and the part of a level that one request may take.
const MAX_SEATS: u32 = 10;
const MAX_PART: f64 = 0.15;

/// Why a request does not get a seat: it is to be answered 429.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// `queue-full`, `concurrency-limit` or `time-out`, as the metrics say it.
    pub reason: &'static str,
    pub schema_uid: Arc<str>,
    pub level_uid: Arc<str>,
}

/// A level with those who wait for it.
pub(crate) struct LevelState {
    pub name: Arc<str>,
    uid: Arc<str>,
    pub exempt: bool,
    pub claim: Claim,
    pub core: Mutex<Guarded>,
}

pub(crate) struct Guarded {
    pub level: Level,
    sleepers: HashMap<Ticket, oneshot::Sender<usize>>,
}

pub(crate) struct SchemaState {
    name: Arc<str>,
    uid: Arc<str>,
    schema: Arc<Schema>,
    level: Arc<LevelState>,
    counts: crate::metrics::Counts,
}

#[derive(Default)]
pub(crate) struct Rules {
    /// In the order of their precedence.
    schemas: Vec<Arc<SchemaState>>,
    pub levels: Vec<Arc<LevelState>>,
}

#[derive(Default)]
struct Objects {
    schemas: BTreeMap<String, Arc<Schema>>,
    levels: BTreeMap<String, LevelObject>,
}

impl Objects {
    /// What cannot be read is as good as gone.
    fn set(&mut self, object: &Value) {
        let name = name(object);
        if object["spec"].get("matchingPrecedence").is_some() {
            match Schema::read(object) {
                Some(schema) => drop(self.schemas.insert(name.to_owned(), Arc::new(schema))),
                None => drop(self.schemas.remove(name)),
            }
        } else {
            match LevelObject::read(object) {
                Some(level) => drop(self.levels.insert(name.to_owned(), level)),
                None => drop(self.levels.remove(name)),
            }
        }
    }
}

/// Who gets a seat when.
pub struct Fairness {
    total: u32,
    began: Instant,
    objects: Mutex<Objects>,
    pub(crate) rules: ArcSwap<Rules>,
    adjusted: Mutex<f64>,
    pub(crate) metrics: Metrics,
}

impl std::fmt::Debug for Fairness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fairness").field("total", &self.total).finish_non_exhaustive()
    }
}

/// A place among those that are answered; given back when it is dropped.
pub struct Seat {
    fairness: Arc<Fairness>,
    schema: Arc<SchemaState>,
    queue: usize,
    seats: u32,
    began: Instant,
}

impl Seat {
    /// The uid of the flow schema that matched, for `X-Kubernetes-PF-FlowSchema-UID`.
    pub fn schema_uid(&self) -> &Arc<str> {
        &self.schema.uid
    }

    /// The uid of the priority level, for `X-Kubernetes-PF-PriorityLevel-UID`.
    pub fn level_uid(&self) -> &Arc<str> {
        &self.schema.level.uid
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("schema", &self.schema.name).field("seats", &self.seats).finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = self.began.elapsed().as_secs_f64();
        self.schema.counts.finished(self.seats, taken);
        self.fairness.release(&self.schema.level, self.queue, self.seats, taken);
    }
}

impl Fairness {
    /// `total` seats for all levels together. The mandatory objects hold until others of their names are set.
    pub fn new(total: u32, registry: &pintle_metrics::Registry) -> Arc<Self> {
        let mut objects = Objects::default();
        defaults::mandatory().iter().for_each(|object| objects.set(object));
        let fairness = Arc::new(Self {
            total,
            began: Instant::now(),
            objects: Mutex::new(objects),
            rules: ArcSwap::default(),
            adjusted: Mutex::new(0.0),
            metrics: Metrics::new(registry),
        });
        fairness.settle();
        let weak = Arc::downgrade(&fairness);
        registry.on_scrape(move |text| {
            if let Some(fairness) = weak.upgrade() {
                fairness.show(text);
            }
        });
        fairness
    }

    /// A `FlowSchema` or `PriorityLevelConfiguration` as it is now; takes effect with [`Fairness::settle`].
    pub fn set(&self, object: &Value) {
        self.objects.lock().set(object);
    }

    /// A schema (`true`) or a level that is no more; the mandatory ones fall back to what they are from the start.
    pub fn remove(&self, schema: bool, gone: &str) {
        let kind = if schema { "FlowSchema" } else { "PriorityLevelConfiguration" };
        let mandatory = defaults::mandatory().into_iter().find(|o| o["kind"] == kind && name(o) == gone);
        let mut objects = self.objects.lock();
        match mandatory {
            Some(object) => objects.set(&object),
            None if schema => drop(objects.schemas.remove(gone)),
            None => drop(objects.levels.remove(gone)),
        }
    }

    /// Puts what was set and removed into effect. Requests that wait or are answered stay where they are.
    pub fn settle(&self) {
        let objects = self.objects.lock();
        let present = self.rules.load();
        let shares: Vec<u32> = objects.levels.values().map(LevelObject::shares).collect();
        let seats = nominal(self.total, &shares);
        let state = |(object, seats): (&LevelObject, u32)| level_state(object, seats, &present.levels);
        let levels: Vec<_> = objects.levels.values().zip(seats).map(state).collect();
        let mut schemas: Vec<_> = objects
            .schemas
            .values()
            .cloned()
            .filter_map(|schema| {
                let level = levels.iter().find(|l| *l.name == *schema.spec.priority_level_configuration.name)?.clone();
                let name: Arc<str> = schema.metadata.name.as_str().into();
                let counts = self.metrics.counts(&level.name, &name);
                Some(Arc::new(SchemaState { uid: schema.metadata.uid.as_str().into(), name, schema, level, counts }))
            })
            .collect();
        schemas.sort_by_cached_key(|s| (s.schema.spec.matching_precedence, s.name.clone()));
        self.rules.store(Arc::new(Rules { schemas, levels }));
    }

    /// Whether the level that a schema names is missing, for its condition `Dangling`.
    pub fn dangling(&self, schema: &Value) -> bool {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
        !self.objects.lock().levels.contains_key(level)
    }

    /// Waits for a place, at most for `patience`. `width` is asked only for levels that count seats.
    pub async fn acquire(
        self: &Arc<Self>,
        digest: &Digest<'_>,
        width: impl FnOnce() -> u32,
        patience: Duration,
    ) -> Result<Seat, Rejected> {
        let rules = self.rules.load();
        let matching = rules.schemas.iter().find(|s| s.schema.matches(digest)).or_else(|| rules.schemas.last());
        let Some(schema) = matching.cloned() else { return Err(nobody()) };
        drop(rules);
        let seats = if schema.level.exempt { 1 } else { width().clamp(1, widest(&schema.level)) };
        let flow = schema.schema.distinguisher(digest);
        let arrival = self.arrive(&schema, flow, seats);
        let began = Instant::now();
        let reject = |reason| {
            schema.counts.rejected(reason);
            Rejected { reason, schema_uid: schema.uid.clone(), level_uid: schema.level.uid.clone() }
        };
        let queue = match arrival {
            Ok(queue) => queue,
            Err(Denied::Reason(reason)) => return Err(reject(reason)),
            Err(Denied::Wait(wait)) => match self.wait(&schema, wait, seats, patience).await {
                Some(queue) => queue,
                None => return Err(reject("time-out")),
            },
        };
        schema.counts.started(seats, began.elapsed());
        Ok(Seat { fairness: self.clone(), schema, queue, seats, began: Instant::now() })
    }

    fn arrive(&self, schema: &SchemaState, flow: &str, seats: u32) -> Result<usize, Denied> {
        let now = self.now();
        let arrival = {
            let mut guard = schema.level.core.lock();
            let hash = if guard.level.queuing.is_some() { hash(&schema.name, flow) } else { 0 };
            match guard.level.arrive(now, hash, seats, (&schema.name, flow)) {
                Arrival::Execute(queue) => return Ok(queue),
                Arrival::Wait(ticket, length) => {
                    let (sender, receiver) = oneshot::channel();
                    guard.sleepers.insert(ticket, sender);
                    schema.counts.queued(length);
                    Denied::Wait((ticket, receiver))
                }
                Arrival::QueueFull => Denied::Reason("queue-full"),
                Arrival::NoSeat => Denied::Reason("concurrency-limit"),
            }
        };
        self.adjust(now);
        Err(arrival)
    }

    async fn wait(
        self: &Arc<Self>,
        schema: &Arc<SchemaState>,
        (ticket, receiver): (Ticket, oneshot::Receiver<usize>),
        seats: u32,
        patience: Duration,
    ) -> Option<usize> {
        // Whoever stops waiting (the client is gone) must leave the queue, or give back the seat that just came.
        let (fairness, schema) = (self.clone(), schema.clone());
        let mut leaving = Leaving { fairness, schema, ticket, seats, receiver, seated: false };
        let Ok(Ok(queue)) = tokio::time::timeout(patience, &mut leaving.receiver).await else { return None };
        leaving.seated = true;
        Some(queue)
    }

    fn release(&self, level: &LevelState, queue: usize, seats: u32, taken: f64) {
        let now = self.now();
        let waiting = {
            let mut guard = level.core.lock();
            guard.level.finish(now, queue, seats, taken);
            guard.wake(now);
            guard.level.waiting > 0
        };
        if waiting {
            self.adjust(now);
        }
    }

    /// Lets levels lend and borrow, if it is time for that.
    fn adjust(&self, now: f64) {
        let Some(mut adjusted) = self.adjusted.try_lock() else { return };
        if now - *adjusted < ADJUST_SECONDS {
            return;
        }
        *adjusted = now;
        let rules = self.rules.load();
        let limited: Vec<&Arc<LevelState>> = rules.levels.iter().filter(|l| !l.exempt).collect();
        let claim = |level: &&Arc<LevelState>| {
            let (smooth, peak) = level.core.lock().level.demand.take(now);
            let least = level.claim.least.max(level.claim.nominal.min(peak));
            Claim { least, demand: smooth.max(peak), ..level.claim }
        };
        let claims: Vec<Claim> = limited.iter().map(claim).collect();
        let total: f64 = limited.iter().map(|l| l.claim.nominal).sum();
        for (level, limit) in limited.iter().zip(allocate(total, &claims)) {
            let mut guard = level.core.lock();
            guard.level.limit = limit;
            guard.wake(now);
        }
    }

    pub(crate) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

impl Guarded {
    fn wake(&mut self, now: f64) {
        if self.level.waiting == 0 {
            return;
        }
        for woken in self.level.dispatch(now) {
            if let Some(sleeper) = self.sleepers.remove(&woken.ticket) {
                // Nobody listens when the request was given up this moment: its guard gives the seat back.
                let _ = sleeper.send(woken.queue);
            }
        }
    }
}

enum Denied {
    Reason(&'static str),
    Wait((Ticket, oneshot::Receiver<usize>)),
}

/// Takes a request that waits no longer out of its queue.
struct Leaving {
    fairness: Arc<Fairness>,
    schema: Arc<SchemaState>,
    ticket: Ticket,
    seats: u32,
    receiver: oneshot::Receiver<usize>,
    seated: bool,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.schema.counts.left_queue();
        if self.seated {
            return;
        }
        let now = self.fairness.now();
        let mut guard = self.schema.level.core.lock();
        guard.sleepers.remove(&self.ticket);
        if !guard.level.leave(now, self.ticket)
            && let Ok(queue) = self.receiver.try_recv()
        {
            guard.level.finish(now, queue, self.seats, 0.0);
        }
        guard.wake(now);
    }
}

fn nobody() -> Rejected {
    Rejected { reason: "concurrency-limit", schema_uid: "".into(), level_uid: "".into() }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn hash(schema: &str, flow: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, flow).hash(&mut hasher);
    hasher.finish()
}

fn widest(level: &LevelState) -> u32 {
    ((level.claim.nominal * MAX_PART).ceil() as u32).clamp(1, MAX_SEATS)
}

/// The state of a level: the one there is, with new limits, when its queues are the same.
fn level_state(object: &LevelObject, seats: u32, present: &[Arc<LevelState>]) -> Arc<LevelState> {
    let nominal = f64::from(seats);
    let lendable = (nominal * f64::from(object.lendable_percent()) / 100.0).round();
    let borrowed = object.borrowing_percent().map_or(f64::INFINITY, |p| (nominal * f64::from(p) / 100.0).round());
    let claim = Claim { nominal, least: nominal - lendable, most: nominal + borrowed, demand: 0.0 };
    let uid: Arc<str> = object.metadata.uid.as_str().into();
    let same = present.iter().find(|l| *l.name == *object.metadata.name).filter(|l| {
        l.exempt == object.exempt()
            && l.claim == claim
            && l.uid == uid
            && l.core.lock().level.queuing == object.queuing()
    });
    if let Some(same) = same {
        return same.clone();
    }
    let limit = if object.exempt() { u32::MAX } else { seats };
    let core = Mutex::new(Guarded { level: Level::new(object.queuing(), limit), sleepers: HashMap::new() });
    Arc::new(LevelState { name: object.metadata.name.as_str().into(), uid, exempt: object.exempt(), claim, core })
}
