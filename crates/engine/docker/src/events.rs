//! What happens in the daemon, told to whoever listens, and kept for those who ask for the past.

use parking_lot::Mutex;
use pintle_clock::Clock;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events that are kept for `--since`, as Docker keeps them.
const KEPT: usize = 256;
/// Events that a slow listener may be behind before it loses some.
const BACKLOG: usize = 1024;

/// One event in the form of the Engine API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// `container`, `image`, `network`, `volume`, `builder`, `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, …
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub scope: &'static str,
    /// Seconds since the epoch.
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nanos: i64,
}

/// Whom an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// The daemon's events.
pub struct Events {
    clock: Arc<dyn Clock>,
    kept: Mutex<VecDeque<Arc<Event>>>,
    listeners: broadcast::Sender<Arc<Event>>,
}

impl Events {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, kept: Mutex::default(), listeners: broadcast::Sender::new(BACKLOG) }
    }

    /// Tells of something that has happened just now.
    pub fn tell(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let nanos = i64::try_from(self.clock.unix_nanos()).unwrap_or(i64::MAX);
        let event = Arc::new(Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local",
            time: nanos / 1_000_000_000,
            time_nanos: nanos,
        });
        let mut kept = self.kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        // Under the lock, so that a new listener gets each event once. Nobody may be listening.
        let _ = self.listeners.send(event);
    }

    /// What has been kept, oldest first, and everything from now on.
    pub fn listen(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept.lock();
        (kept.iter().cloned().collect(), self.listeners.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_and_the_future_meet_without_a_gap() {
        let events = Events::new(pintle_clock::system());
        for number in 0..300 {
            events.tell("container", &format!("{number}"), "id", BTreeMap::new());
        }
        let (past, mut future) = events.listen();
        assert_eq!((past.len(), past[0].action.as_str(), past[KEPT - 1].action.as_str()), (KEPT, "44", "299"));
        events.tell("image", "pull", "x", BTreeMap::new());
        assert_eq!(future.try_recv().unwrap().action, "pull");
    }
}
