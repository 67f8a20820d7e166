//! The stream that one watcher reads: first what is there, then what changes, bookmarks in between.

use super::Shared;
use super::entry::Entry;
use super::hub::Interest;
use super::resource::{Frames, PastError, Resource};
use crate::object::{EventKind, Object, WatchEvent};
use futures::Stream;
use pintle_store::{KeyRange, Revision};
use pintle_types::selector::{FieldSelector, LabelSelector};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// Events that a watcher may be behind before it is let go.
const QUEUE: usize = 1024;
/// The time between bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// Which objects of a resource a reader wants.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub range: KeyRange,
    pub labels: LabelSelector,
    /// The fields as positions among the resource's selectable ones, with the values they must or must not have.
    pub fields: Vec<(FieldPlace, String, bool)>,
}

/// Where a selectable field is found in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldPlace {
    Name,
    Namespace,
    Selected(usize),
}

impl Selection {
    /// Every field of the selector must be a name, a namespace or one of `selectable`; the first other one is the error.
    pub(crate) fn new(
        range: KeyRange,
        labels: LabelSelector,
        fields: &FieldSelector,
        place: impl Fn(&str) -> Option<FieldPlace>,
    ) -> Result<Self, String> {
        let found = fields.requirements.iter().map(|requirement| {
            let place = place(&requirement.field).ok_or_else(|| requirement.field.clone())?;
            Ok((place, requirement.value.clone(), requirement.negated))
        });
        let fields = found.collect::<Result<_, String>>()?;
        Ok(Self { range, labels, fields })
    }

    pub(crate) fn selects_all(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        self.range.contains(entry.key()) && self.selects(entry)
    }

    /// Whether the selectors match, whatever the key.
    pub(crate) fn selects(&self, entry: &Entry) -> bool {
        let has = |(place, value, negated): &(FieldPlace, String, bool)| (entry.field(*place) == value) != *negated;
        self.fields.iter().all(has) && (self.labels.is_everything() || self.labels.matches_with(|key| entry.label(key)))
    }

    /// The value that a field must have, if the selector says so.
    pub(crate) fn exact(&self, wanted: FieldPlace) -> Option<&str> {
        self.fields.iter().find(|(place, _, negated)| *place == wanted && !negated).map(|(_, value, _)| value.as_str())
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WatchStart {
    /// With all objects as they are, as added; then what changes. With a bookmark after the first ones, if asked.
    Present { bookmark: bool },
    /// With what changed after a revision.
    After(Revision),
}

/// How a watch goes on.
#[derive(Clone, Debug)]
pub(crate) struct WatchPlan {
    pub start: WatchStart,
    pub bookmarks: bool,
    pub timeout: Duration,
    /// Of the objects as the watcher sees them, for bookmarks.
    pub api_version: String,
    pub kind: String,
}

/// A watcher's end of the cache.
pub(crate) struct CacheWatch {
    events: Pin<Box<dyn Stream<Item = WatchEvent> + Send>>,
}

impl CacheWatch {
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        self.events.as_mut().poll_next(context)
    }

    /// The same watch with every event changed.
    pub(crate) fn map(self, change: impl FnMut(WatchEvent) -> WatchEvent + Send + 'static) -> Self {
        Self { events: Box::pin(futures::StreamExt::map(self.events, change)) }
    }

    /// A watch of one event.
    pub(crate) fn of(event: WatchEvent) -> Self {
        Self { events: Box::pin(futures::stream::iter([event])) }
    }
}

/// Leaves the hub with the stream.
struct Registration {
    resource: Arc<Resource>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.resource.unregister(self.id);
    }
}

struct Watcher {
    shared: Arc<Shared>,
    _registration: Registration,
    first: VecDeque<First>,
    events: mpsc::Receiver<WatchEvent>,
    plan: WatchPlan,
    ends: Instant,
    next_bookmark: Instant,
    /// Runs until the next bookmark or the end; events don't touch it.
    timer: Option<Pin<Box<Sleep>>>,
    over: bool,
    /// Changes up to this revision are not for it, when it began in the future.
    after: Revision,
}

/// What a watcher sees before the changes to come.
enum First {
    Object(Arc<Entry>),
    Event(WatchEvent),
    Bookmark(Revision),
}

impl Shared {
    /// Watches a resource; [`PastError`] when the start is no longer known.
    pub(crate) fn watch(
        self: &Arc<Self>,
        resource: Arc<Resource>,
        selection: Selection,
        plan: WatchPlan,
    ) -> Result<CacheWatch, PastError> {
        let selection = Arc::new(selection);
        let interest = interest(&resource, &selection);
        let (sender, events) = mpsc::channel(QUEUE);
        let reached = self.reached();
        let (id, first) = resource.register(|hub, snapshot, recent| {
            let first = match plan.start {
                WatchStart::Present { bookmark } => {
                    let present = snapshot.range(&selection.range).filter(|entry| selection.selects(entry));
                    let present = present.cloned().map(First::Object);
                    let end = bookmark.then(|| First::Bookmark(reached.max(snapshot.revision)));
                    present.chain(end).collect()
                }
                WatchStart::After(revision) => {
                    let past = recent.after(revision)?;
                    let events = past.iter().filter_map(|change| change.event(&selection, &mut Frames::default()));
                    events.map(First::Event).collect()
                }
            };
            Ok::<_, PastError>((hub.add(interest, selection.clone(), sender), first))
        })?;
        let now = Instant::now();
        let registration = Registration { resource, id };
        let (ends, next_bookmark) = (now + plan.timeout, now + BOOKMARKS);
        let after = if let WatchStart::After(revision) = plan.start { revision } else { 0 };
        let watcher = Watcher {
            after,
            shared: self.clone(),
            _registration: registration,
            first,
            events,
            plan,
            ends,
            next_bookmark,
            timer: None,
            over: false,
        };
        Ok(CacheWatch { events: Box::pin(watcher) })
    }
}

impl Stream for Watcher {
    type Item = WatchEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        let watcher = self.get_mut();
        if watcher.over {
            return Poll::Ready(None);
        }
        if let Some(first) = watcher.first.pop_front() {
            return Poll::Ready(Some(watcher.show(first)));
        }
        // Its memory is not needed any more.
        watcher.first = VecDeque::new();
        loop {
            let event = match watcher.events.poll_recv(context) {
                Poll::Ready(event) => event,
                Poll::Pending => {
                    ready!(watcher.poll_timer(context));
                    watcher.pause()
                }
            };
            match event {
                Some(event) if watcher.is_early(&event) => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

/// The narrowest interest that covers a selection.
fn interest(resource: &Resource, selection: &Selection) -> Interest {
    let prefix = resource.spec.prefix.len() + 1;
    let indexed = resource.spec.indexed.and_then(|at| selection.exact(FieldPlace::Selected(at)));
    match (&selection.range.end, indexed) {
        (None, _) => Interest::Key(selection.range.start[..].into()),
        (_, Some(value)) => Interest::Field(value.into()),
        _ => match std::str::from_utf8(&selection.range.start[prefix.min(selection.range.start.len())..]) {
            Ok(namespace) if !namespace.is_empty() => Interest::Namespace(namespace.trim_end_matches('/').into()),
            _ => Interest::Everything,
        },
    }
}

impl Watcher {
    /// Whether the time of a bookmark or of the end has come.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let due = if self.plan.bookmarks { self.next_bookmark.min(self.ends) } else { self.ends };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(context)
    }

    fn is_early(&self, event: &WatchEvent) -> bool {
        matches!(&event.object, Object::Stored(entry) if entry.revision() <= self.after)
    }

    fn show(&self, first: First) -> WatchEvent {
        match first {
            First::Object(entry) => WatchEvent::new(EventKind::Added, Object::Stored(entry)),
            First::Event(event) => event,
            First::Bookmark(revision) => self.bookmark(revision, true),
        }
    }

    /// A bookmark, and the end when its time has come.
    fn pause(&mut self) -> Option<WatchEvent> {
        self.over = Instant::now() >= self.ends;
        self.next_bookmark = Instant::now() + BOOKMARKS;
        // What the cache has reached was sent before it said so: look at the queue after that.
        let reached = self.shared.reached();
        match self.events.try_recv() {
            Ok(event) => {
                self.over = false;
                Some(event)
            }
            Err(_) if self.plan.bookmarks => Some(self.bookmark(reached, false)),
            Err(_) => None,
        }
    }

    fn bookmark(&self, revision: Revision, ends_initial: bool) -> WatchEvent {
        let mut object: Value = json!({
            "kind": self.plan.kind,
            "apiVersion": self.plan.api_version,
            "metadata": {"resourceVersion": revision.to_string()},
        });
        if ends_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        WatchEvent::new(EventKind::Bookmark, object.into())
    }
}
