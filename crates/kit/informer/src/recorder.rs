//! Tells people what happened to an object, as `v1` events: repeated ones are counted, floods are held back.
//!
//! Recording never waits: one background task posts, and what its bounded queue can't take is dropped. The task begins
//! with the first event: most components of a quiet cluster never have one. Source of the rules: client-go's
//! `EventCorrelator`.

use pintle_client::{Client, ClientError, Patch, PatchOptions};
use pintle_clock::{Clock, Timestamp};
use pintle_types::k8s::api::core::v1::{Event, EventSource, ObjectReference};
use pintle_types::{Kind, ObjectMeta, Time};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Events that wait to be posted.
const QUEUE_LENGTH: usize = 1024;
/// Objects and messages that are remembered.
const MEMORY: usize = 4096;
/// More different messages than this about one matter are told as one.
const MAX_SIMILAR: usize = 10;
const SIMILAR_WINDOW_SECONDS: i64 = 600;
/// Events that one object may have at once, and the seconds after which it may have one more.
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL_SECONDS: f64 = 300.0;
const MAX_MESSAGE_BYTES: usize = 1024;
const ATTEMPTS: u32 = 5;

/// Whether an event is worth worrying about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events in the name of one component. Clones share the queue; the background task ends with the last one.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

struct Shared {
    client: Client,
    component: String,
    node: String,
    /// Whoever records need not be part of it.
    runtime: Handle,
    queue: OnceLock<mpsc::Sender<Record>>,
}

struct Record {
    object: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// Events of `component` on `node` (empty for a component that belongs to no node).
    pub fn new(client: Client, component: &str, node: &str) -> Self {
        Self::with_clock(client, component, node, pintle_clock::system())
    }

    /// With a clock other than the machine's.
    pub fn with_clock(client: Client, component: &str, node: &str, clock: Arc<dyn Clock>) -> Self {
        let (component, node) = (component.to_owned(), node.to_owned());
        let shared = Shared { client, component, node, runtime: Handle::current(), queue: OnceLock::new() };
        Self { shared: Arc::new(shared), clock }
    }

    /// Records an event about an object.
    pub fn event<K: Kind>(&self, object: &K, event_type: EventType, reason: &str, message: impl Into<String>) {
        self.event_on(reference(object), event_type, reason, message);
    }

    /// Records an event about what a reference names: an object, or with `field_path` a part of it, such as
    /// `spec.containers{web}`.
    pub fn event_on(&self, object: ObjectReference, event_type: EventType, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            let whole = (0..=MAX_MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at));
            message.truncate(whole.unwrap_or_default());
        }
        let record = Record { object, event_type, reason: reason.to_owned(), message, at: self.clock.now() };
        if self.shared.queue().try_send(record).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait to be posted");
        }
    }
}

impl Shared {
    /// The queue, with the task that works it off.
    fn queue(&self) -> &mpsc::Sender<Record> {
        self.queue.get_or_init(|| {
            let (queue, records) = mpsc::channel(QUEUE_LENGTH);
            let poster = Poster {
                client: self.client.clone(),
                component: self.component.clone(),
                node: self.node.clone(),
                correlator: Correlator::default(),
            };
            self.runtime.spawn(poster.run(records));
            queue
        })
    }
}

/// A reference to an object, for events about it.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ObjectReference {
        api_version: some(K::API_VERSION),
        kind: some(K::KIND),
        name: some(object.name()),
        namespace: some(object.namespace()),
        uid: some(object.uid()),
        resource_version: object.metadata().resource_version.clone(),
        field_path: None,
    }
}

struct Poster {
    client: Client,
    component: String,
    node: String,
    correlator: Correlator,
}

impl Poster {
    async fn run(mut self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            let Some(order) = self.correlator.correlate(record) else { continue };
            let mut pause = Duration::from_millis(500);
            for attempt in 1..=ATTEMPTS {
                match post(&self.client, &order, &self.event(&order)).await {
                    Ok(()) => break,
                    Err(error @ ClientError::Status(_)) => {
                        tracing::debug!(%error, reason = order.record.reason, "an event was refused");
                        break;
                    }
                    Err(error) if attempt == ATTEMPTS => {
                        tracing::warn!(%error, reason = order.record.reason, "an event could not be posted");
                    }
                    Err(_) => tokio::time::sleep(pause).await,
                }
                pause *= 2;
            }
        }
    }

    fn event(&self, order: &Order) -> Event {
        let record = &order.record;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Event {
            metadata: ObjectMeta {
                name: Some(order.name.clone()),
                namespace: Some(event_namespace(&record.object).to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: record.object.clone(),
            type_: Some(record.event_type.as_str().to_owned()),
            reason: Some(record.reason.clone()),
            message: Some(record.message.clone()),
            count: Some(order.count),
            first_timestamp: Some(Time(seconds(order.first))),
            last_timestamp: Some(Time(seconds(record.at))),
            source: Some(EventSource { component: some(&self.component), host: some(&self.node) }),
            reporting_component: some(&self.component),
            reporting_instance: some(&self.node),
            ..Event::default()
        }
    }
}

/// Changes the event that is counted up, or creates a new one.
async fn post(client: &Client, order: &Order, event: &Event) -> Result<(), ClientError> {
    if order.count > 1 {
        let patch = serde_json::json!({
            "count": order.count,
            "lastTimestamp": Time(seconds(order.record.at)),
            "message": order.record.message,
        });
        let options = PatchOptions::default();
        match client.patch::<Event>(event.namespace(), &order.name, Patch::Strategic(patch), &options).await {
            Err(error) if error.is_not_found() => (),
            other => return other.map(drop),
        }
    }
    match client.create(event).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Events about cluster-scoped objects live in `default`.
fn event_namespace(object: &ObjectReference) -> &str {
    object.namespace.as_deref().unwrap_or("default")
}

/// What to post: a new event, or with a count above one a change of an old one.
struct Order {
    record: Record,
    name: String,
    count: i32,
    first: Timestamp,
}

/// What came lately, by digests: the texts themselves would be most of its memory.
#[derive(Default)]
struct Correlator {
    digests: RandomState,
    /// By object.
    spam: HashMap<u64, Bucket>,
    /// By object, type and reason.
    similar: HashMap<u64, Similar>,
    /// By object, type and reason, and unless they are combined by message.
    posted: HashMap<u64, Posted>,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Similar {
    /// [`MAX_SIMILAR`] at most.
    messages: Vec<u64>,
    at: Timestamp,
}

struct Posted {
    count: i32,
    /// Says the event's name, too.
    first: Timestamp,
    at: Timestamp,
}

impl Correlator {
    /// Nothing when the object had too many events of late.
    fn correlate(&mut self, mut record: Record) -> Option<Order> {
        let object = self.digest(parts(&record.object));
        let matter = self.digest((object, record.event_type.as_str(), &record.reason));
        let message = self.digest((matter, &record.message));
        let combined = self.is_flood(matter, message, record.at);
        if combined {
            record.message = format!("(combined from similar events): {}", record.message);
        }
        if !self.spend(object, record.at) {
            return None;
        }
        bound(&mut self.posted, |entry| entry.at, record.at);
        let at = record.at;
        let posted = self.posted.entry(if combined { matter } else { message });
        let posted = posted.or_insert(Posted { count: 0, first: at, at });
        posted.count = posted.count.saturating_add(1);
        posted.at = at;
        let name = event_name(&record.object, posted.first);
        Some(Order { name, count: posted.count, first: posted.first, record })
    }

    fn digest(&self, of: impl Hash) -> u64 {
        self.digests.hash_one(of)
    }

    /// Whether more different messages about this matter came than are worth telling apart.
    fn is_flood(&mut self, matter: u64, message: u64, at: Timestamp) -> bool {
        bound(&mut self.similar, |entry| entry.at, at);
        let fresh = || Similar { messages: Vec::new(), at };
        let similar = self.similar.entry(matter).or_insert_with(fresh);
        if at.as_second() - similar.at.as_second() > SIMILAR_WINDOW_SECONDS {
            *similar = fresh();
        }
        similar.at = at;
        if similar.messages.contains(&message) {
            return false;
        }
        if similar.messages.len() < MAX_SIMILAR {
            similar.messages.reserve_exact(1);
            similar.messages.push(message);
            return false;
        }
        true
    }

    /// Takes one of the events that an object may have.
    fn spend(&mut self, object: u64, at: Timestamp) -> bool {
        bound(&mut self.spam, |entry| entry.at, at);
        let bucket = self.spam.entry(object).or_insert(Bucket { tokens: SPAM_BURST, at });
        let passed = (at.as_second() - bucket.at.as_second()).max(0) as f64;
        bucket.tokens = (bucket.tokens + passed / SPAM_REFILL_SECONDS).min(SPAM_BURST);
        bucket.at = at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// Keeps a memory small: when it is full, what is older than the window goes, and if that is nothing, all of it.
fn bound<V>(memory: &mut HashMap<u64, V>, at: impl Fn(&V) -> Timestamp, now: Timestamp) {
    if memory.len() < MEMORY {
        return;
    }
    memory.retain(|_, entry| now.as_second() - at(entry).as_second() <= SIMILAR_WINDOW_SECONDS);
    if memory.len() >= MEMORY {
        memory.clear();
    }
}

/// What tells objects apart.
fn parts(object: &ObjectReference) -> [&str; 6] {
    let parts = [&object.kind, &object.namespace, &object.name, &object.uid, &object.api_version, &object.field_path];
    parts.map(|part| part.as_deref().unwrap_or_default())
}

fn event_name(object: &ObjectReference, at: Timestamp) -> String {
    format!("{}.{:x}", object.name.as_deref().unwrap_or_default(), at.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str, second: i64) -> Record {
        Record {
            object: ObjectReference { name: Some("web".into()), ..ObjectReference::default() },
            event_type: EventType::Normal,
            reason: "Created".into(),
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn equal_events_are_counted() {
        let mut correlator = Correlator::default();
        let first = correlator.correlate(record("a", 100)).unwrap();
        let second = correlator.correlate(record("a", 200)).unwrap();
        let other = correlator.correlate(record("b", 300)).unwrap();
        assert_eq!((first.count, second.count, other.count), (1, 2, 1));
        assert_eq!(first.name, second.name);
        assert_ne!(first.name, other.name);
        assert_eq!(second.first.as_second(), 100);
    }

    #[test]
    fn many_similar_events_are_combined() {
        let mut correlator = Correlator::default();
        let orders: Vec<Order> =
            (0..12).filter_map(|i| correlator.correlate(record(&format!("m{i}"), 100 + i))).collect();
        assert_eq!(orders[9].record.message, "m9");
        assert_eq!(orders[10].record.message, "(combined from similar events): m10");
        assert_eq!((orders[10].count, orders[11].count), (1, 2));
    }

    #[test]
    fn an_object_with_too_many_events_is_held_back_until_time_has_passed() {
        let mut correlator = Correlator::default();
        let taken = (0..30).filter(|_| correlator.correlate(record("a", 100)).is_some()).count();
        assert_eq!(taken, 25);
        assert!(correlator.correlate(record("a", 399)).is_none());
        assert!(correlator.correlate(record("a", 401)).is_some());
    }
}
