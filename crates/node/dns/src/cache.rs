//! Remembers what upstream servers said, for as long as they allow and half a minute at most.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const MAX_ENTRIES: usize = 1000;
/// Larger answers are rare, and asked for again.
const MAX_RECORDS: usize = 64;
const MAX_AGE: Duration = Duration::from_secs(30);

/// What makes two questions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// In lower case.
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) dnssec: bool,
    pub(crate) checking_disabled: bool,
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    stored: Instant,
    expires: Instant,
}

/// Answers of upstream servers. When it is full it begins anew: that is rare, and costs only time.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: Mutex<HashMap<Question, Entry>>,
}

impl Cache {
    /// The answer with the time that is left of each record, if it is known.
    pub(crate) fn get(&self, question: &Question) -> Option<Message> {
        let now = Instant::now();
        let (message, age) = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = entries.get(question).filter(|entry| now < entry.expires)?;
            (Arc::clone(&entry.message), now - entry.stored)
        };
        let mut message = Message::clone(&message);
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let older = |record: &mut Record| {
            record.set_ttl(record.ttl().saturating_sub(age));
        };
        message.answers_mut().iter_mut().for_each(older);
        message.name_servers_mut().iter_mut().for_each(older);
        message.additionals_mut().iter_mut().for_each(older);
        Some(message)
    }

    /// Forgets everything: other servers are asked from now on.
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Remembers an answer that is worth it.
    pub(crate) fn put(&self, question: Question, message: &Message) {
        let Some(lifetime) = lifetime(message) else { return };
        let now = Instant::now();
        let entry = Entry { message: Arc::new(message.clone()), stored: now, expires: now + lifetime };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, entry| now < entry.expires);
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(question, entry);
    }
}

/// The shortest time of its records; that of the SOA when there is no answer (RFC 2308).
fn lifetime(message: &Message) -> Option<Duration> {
    if message.truncated() || message.all_sections().count() > MAX_RECORDS {
        return None;
    }
    let seconds = match message.response_code() {
        ResponseCode::NoError if !message.answers().is_empty() => message.answers().iter().map(Record::ttl).min(),
        ResponseCode::NoError | ResponseCode::NXDomain => {
            message.name_servers().iter().find_map(|record| match record.data() {
                RData::SOA(soa) => Some(record.ttl().min(soa.minimum())),
                _ => None,
            })
        }
        _ => None,
    }?;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(MAX_AGE))
}
