//! etcd's requests and responses, to and from the words of the trait.
//!
//! Source: `rpc.proto` and `kv.proto` of etcd's API version 3. Values are copied out of responses: what the caller keeps
//! must not keep a whole page of others alive.

use crate::{Compare, Event, KeyRange, KeyValue, LeaseId, Op, RangeRequest, RangeResult, Revision, Txn, TxnResult};
use bytes::Bytes;
use pintle_protobuf::wire::{Payload, WireError, Writer, read};

/// How keys are named in etcd: the beginning that callers use, and the one that is stored instead.
#[derive(Clone, Debug)]
pub(super) struct Names {
    ours: Bytes,
    theirs: Bytes,
}

impl Names {
    pub(super) fn new(ours: &str, theirs: &str) -> Self {
        Self { ours: Bytes::copy_from_slice(ours.as_bytes()), theirs: Bytes::copy_from_slice(theirs.as_bytes()) }
    }

    fn swap(key: &[u8], from: &[u8], to: &[u8]) -> Bytes {
        match key.strip_prefix(from) {
            Some(rest) if from != to => [to, rest].concat().into(),
            _ => Bytes::copy_from_slice(key),
        }
    }

    fn outward(&self, key: &[u8]) -> Bytes {
        Self::swap(key, &self.ours, &self.theirs)
    }

    fn inward(&self, key: &[u8]) -> Bytes {
        Self::swap(key, &self.theirs, &self.ours)
    }
}

/// Writes a range as the fields 1 and 2, which it has in all requests. A zero byte stands for "from the first key" and
/// "to the last one".
fn write_range(w: &mut Writer, names: &Names, range: &KeyRange) {
    let open = |key: &[u8]| if key.is_empty() { Bytes::from_static(&[0]) } else { names.outward(key) };
    w.bytes(1, &open(&range.start));
    if let Some(end) = &range.end {
        w.bytes(2, &open(end));
    }
}

pub(super) fn range(names: &Names, request: &RangeRequest) -> Bytes {
    let mut w = Writer::default();
    write_range(&mut w, names, &request.range);
    w.int(3, request.limit as u64);
    w.int(4, request.at.unwrap_or_default());
    w.finish()
}

/// A read that finds nothing, for the revision in its answer.
pub(super) fn revision() -> Bytes {
    let mut w = Writer::default();
    w.bytes(1, b"\0");
    w.flag(9, true);
    w.finish()
}

pub(super) fn txn(names: &Names, txn: &Txn) -> Bytes {
    let mut w = Writer::default();
    for compare in &txn.compare {
        w.message(1, |w| {
            let (target, key, field, revision) = match compare {
                Compare::CreateRevision(key, revision) => (1, key, 5, *revision),
                Compare::ModRevision(key, revision) => (2, key, 6, *revision),
            };
            w.int(2, target);
            w.bytes(3, &names.outward(key));
            w.int(field, revision);
        });
    }
    for (field, ops) in [(2, &txn.then), (3, &txn.otherwise)] {
        for op in ops {
            w.message(field, |w| write_op(w, names, op));
        }
    }
    w.finish()
}

fn write_op(w: &mut Writer, names: &Names, op: &Op) {
    match op {
        Op::Get(range) => w.message(1, |w| write_range(w, names, range)),
        Op::Put { key, value, lease } => w.message(2, |w| {
            w.bytes(1, &names.outward(key));
            w.bytes(2, value);
            w.int(3, *lease as u64);
        }),
        Op::Delete(range) => w.message(3, |w| {
            write_range(w, names, range);
            w.flag(3, true);
        }),
    }
}

/// Puts `value` at a key if its version (the changes since its creation) is `version`, else reads it.
pub(super) fn put_at_version(key: &[u8], version: u64, value: &[u8]) -> Bytes {
    let mut w = Writer::default();
    w.message(1, |w| {
        w.bytes(3, key);
        w.int(4, version);
    });
    w.message(2, |w| {
        w.message(2, |w| {
            w.bytes(1, key);
            w.bytes(2, value);
        });
    });
    w.message(3, |w| w.message(1, |w| w.bytes(1, key)));
    w.finish()
}

pub(super) fn compact(revision: Revision) -> Bytes {
    let mut w = Writer::default();
    w.int(1, revision);
    w.finish()
}

pub(super) fn grant(ttl_seconds: u64) -> Bytes {
    let mut w = Writer::default();
    w.int(1, ttl_seconds);
    w.finish()
}

/// Both the renewal and the revocation of a lease.
pub(super) fn lease(lease: LeaseId) -> Bytes {
    let mut w = Writer::default();
    w.int(1, lease as u64);
    w.finish()
}

pub(super) fn watch(names: &Names, range: &KeyRange, from: Revision) -> Bytes {
    let mut w = Writer::default();
    w.message(1, |w| {
        write_range(w, names, range);
        w.int(3, from);
        w.flag(4, true); // progress, once in a while
        w.flag(6, true); // what was before
        w.flag(8, true); // big responses in pieces
    });
    w.finish()
}

pub(super) fn progress_request() -> Bytes {
    let mut w = Writer::default();
    w.message(3, |_| {});
    w.finish()
}

fn header_revision(header: &[u8]) -> Result<Revision, WireError> {
    let mut revision = 0;
    read(header, |number, field| {
        if number == 3 {
            revision = field.int();
        }
        Ok(())
    })?;
    Ok(revision)
}

/// The revision in a response's header.
pub(super) fn read_revision(message: &[u8]) -> Result<Revision, WireError> {
    let mut revision = 0;
    read(message, |number, field| {
        if number == 1 {
            revision = header_revision(field.bytes())?;
        }
        Ok(())
    })?;
    Ok(revision)
}

fn key_value(names: &Names, message: &[u8]) -> Result<KeyValue, WireError> {
    let mut kv =
        KeyValue { key: Bytes::new(), value: Bytes::new(), create_revision: 0, mod_revision: 0, version: 0, lease: 0 };
    read(message, |number, field| {
        match number {
            1 => kv.key = names.inward(field.bytes()),
            2 => kv.create_revision = field.int(),
            3 => kv.mod_revision = field.int(),
            4 => kv.version = field.int(),
            5 => kv.value = Bytes::copy_from_slice(field.bytes()),
            6 => kv.lease = field.int() as LeaseId,
            _ => {}
        }
        Ok(())
    })?;
    Ok(kv)
}

pub(super) fn read_range(names: &Names, message: &[u8]) -> Result<RangeResult, WireError> {
    let mut result = RangeResult::default();
    read(message, |number, field| {
        match number {
            1 => result.revision = header_revision(field.bytes())?,
            2 => result.kvs.push(key_value(names, field.bytes())?),
            4 => result.count = usize::try_from(field.int()).map_err(|_| WireError::Overflow)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(result)
}

pub(super) fn read_txn(names: &Names, message: &[u8]) -> Result<TxnResult, WireError> {
    let mut result = TxnResult::default();
    read(message, |number, field| {
        match number {
            1 => result.revision = header_revision(field.bytes())?,
            2 => result.succeeded = field.int() != 0,
            3 => result.results.push(read_op(names, field.bytes())?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(result)
}

/// The keys that an operation read or deleted.
fn read_op(names: &Names, message: &[u8]) -> Result<Vec<KeyValue>, WireError> {
    let mut kvs = Vec::new();
    read(message, |kind, response| {
        read(response.bytes(), |number, field| {
            if matches!((kind, number), (1, 2) | (3, 3)) {
                kvs.push(key_value(names, field.bytes())?);
            }
            Ok(())
        })
    })?;
    Ok(kvs)
}

/// The number of a granted lease.
pub(super) fn read_lease(message: &[u8]) -> Result<LeaseId, WireError> {
    int_of(message, 2).map(|id| id as LeaseId)
}

/// The time that a renewed lease has; 0 when there is none.
pub(super) fn read_ttl(message: &[u8]) -> Result<u64, WireError> {
    int_of(message, 3)
}

fn int_of(message: &[u8], wanted: u32) -> Result<u64, WireError> {
    let mut found = 0;
    read(message, |number, field| {
        if number == wanted {
            found = field.int();
        }
        Ok(())
    })?;
    Ok(found)
}

/// The version of a member, such as "3.5.21".
pub(super) fn read_version(message: &[u8]) -> Result<String, WireError> {
    let mut version = String::new();
    read(message, |number, field| {
        if number == 2 {
            version = field.text();
        }
        Ok(())
    })?;
    Ok(version)
}

/// One message of a watch.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub revision: Revision,
    pub created: bool,
    pub canceled: bool,
    /// Not 0 when the watch was ended because changes that it asked for are compacted.
    pub compacted: Revision,
    pub reason: String,
    /// More of the same response follows.
    pub fragment: bool,
    /// With the revision of each.
    pub events: Vec<(Revision, Event)>,
}

pub(super) fn read_watched(names: &Names, message: &[u8]) -> Result<Watched, WireError> {
    let mut watched = Watched::default();
    read(message, |number, field| {
        match number {
            1 => watched.revision = header_revision(field.bytes())?,
            3 => watched.created = field.int() != 0,
            4 => watched.canceled = field.int() != 0,
            5 => watched.compacted = field.int(),
            6 => watched.reason = field.text(),
            7 => watched.fragment = field.int() != 0,
            11 => watched.events.push(read_event(names, field)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(watched)
}

fn read_event(names: &Names, event: Payload<'_>) -> Result<(Revision, Event), WireError> {
    let (mut deleted, mut now, mut prev) = (false, None, None);
    read(event.bytes(), |number, field| {
        match number {
            1 => deleted = field.int() == 1,
            2 => now = Some(key_value(names, field.bytes())?),
            3 => prev = Some(key_value(names, field.bytes())?),
            _ => {}
        }
        Ok(())
    })?;
    let kv = now.ok_or(WireError::Truncated)?;
    let revision = kv.mod_revision;
    Ok((revision, if deleted { Event::Delete { kv, prev } } else { Event::Put { kv, prev } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_renamed_both_ways() {
        let names = Names::new("/registry", "/other");
        assert_eq!(names.outward(b"/registry/pods/a"), "/other/pods/a");
        assert_eq!(names.outward(b"/registry0"), "/other0");
        assert_eq!(names.inward(b"/other/pods/a"), "/registry/pods/a");
        assert_eq!(names.outward(b"/x"), "/x");
    }

    #[test]
    fn a_watch_response_is_read() {
        let mut w = Writer::default();
        w.message(1, |w| w.int(3, 9));
        w.message(11, |w| {
            w.message(2, |w| {
                w.bytes(1, b"/a");
                w.int(3, 8);
                w.bytes(5, b"v");
            });
        });
        w.message(11, |w| {
            w.int(1, 1);
            w.message(2, |w| {
                w.bytes(1, b"/b");
                w.int(3, 9);
            });
        });
        let watched = read_watched(&Names::new("", ""), &w.finish()).unwrap();
        assert_eq!(watched.revision, 9);
        assert!(matches!(&watched.events[0], (8, Event::Put { kv, prev: None }) if kv.value == "v"));
        assert!(matches!(&watched.events[1], (9, Event::Delete { kv, .. }) if kv.key == "/b"));
    }
}
