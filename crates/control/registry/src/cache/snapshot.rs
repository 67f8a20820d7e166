//! All objects of a resource at one revision, in the order of their keys. Cloning one is a reference count.

use super::entry::Entry;
use imbl::OrdSet;
use pintle_store::{KeyRange, Revision};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// An entry in the order of keys.
#[derive(Clone, Debug)]
struct Slot(Arc<Entry>);

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl Borrow<[u8]> for Slot {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The revision of the last change of the resource, or the one at which it was loaded.
    pub revision: Revision,
    objects: OrdSet<Slot>,
}

impl Snapshot {
    pub(super) fn new(revision: Revision, entries: Vec<Arc<Entry>>) -> Self {
        Self { revision, objects: entries.into_iter().map(Slot).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.objects.get(key).map(|slot| &slot.0)
    }

    /// The entries of a range of keys, in order.
    pub(crate) fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a Arc<Entry>> {
        let end = match range.end.as_deref() {
            None => Bound::Included(&range.start[..]),
            Some([]) => Bound::Unbounded,
            // An end before the start would be a range that maps refuse.
            Some(end) => Bound::Excluded(end.max(&range.start)),
        };
        self.objects.range::<_, [u8]>((Bound::Included(&range.start[..]), end)).map(|slot| &slot.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.objects.iter().map(|slot| &slot.0)
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        self.objects.insert(Slot(entry)).map(|slot| slot.0)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Arc<Entry>> {
        self.objects.remove(key).map(|slot| slot.0)
    }
}
