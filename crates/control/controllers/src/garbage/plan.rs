//! Decides what becomes of an object by what became of its owners.

use crate::metadata::Metadata;
use pintle_client::Propagation;

/// What an owner turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Exists.
    Solid,
    /// Does not exist.
    Absent,
    /// Is being deleted, and waits for what it owns.
    Waiting,
    /// Can't be found out.
    Unknown,
}

/// What to do about an object.
#[derive(Debug, PartialEq)]
pub enum Decision {
    Keep,
    /// Somebody still owns it: take off the references to these uids.
    Disown(Vec<String>),
    Delete(Propagation),
}

/// Decides about an object whose owners are as told, in the order of its references.
pub fn decide(meta: &Metadata, owners: &[Owner], has_dependents: bool) -> Decision {
    let of = |wanted: &[Owner]| -> Vec<String> {
        let pairs = meta.owner_references.iter().zip(owners);
        pairs.filter(|(_, owner)| wanted.contains(owner)).map(|(reference, _)| reference.uid.clone()).collect()
    };
    if meta.owner_references.is_empty() || owners.contains(&Owner::Unknown) {
        return Decision::Keep;
    }
    if owners.contains(&Owner::Solid) {
        let gone = of(&[Owner::Absent, Owner::Waiting]);
        return if gone.is_empty() { Decision::Keep } else { Decision::Disown(gone) };
    }
    if owners.contains(&Owner::Waiting) && has_dependents {
        return Decision::Delete(Propagation::Foreground);
    }
    Decision::Delete(match () {
        () if meta.has_finalizer("orphan") => Propagation::Orphan,
        () if meta.has_finalizer("foregroundDeletion") => Propagation::Foreground,
        () => Propagation::Background,
    })
}
