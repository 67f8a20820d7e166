//! Makes changes in the kernel: one transaction for any number of policies and pods.

use crate::plan::{Changes, Element, SetId};
use crate::rules::{self, TABLE};
use pintle_netlink::nft::{Batch, Family, Key, Nftables, SetName, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// What can go wrong with policies.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("network policies: {0}")]
    Kernel(#[from] pintle_netlink::Error),
    /// A thread that was at work in the kernel ended without an answer.
    #[error("network policies: the thread that programs the kernel failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// Removes the table from the caller's network namespace, as a reset does; no table is success.
pub fn remove() -> Result<(), Error> {
    Kernel::open()?.remove()
}

/// The table of one network namespace: the one of the thread that opens it.
#[derive(Debug)]
pub(crate) struct Kernel {
    nft: Nftables,
}

impl Kernel {
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self { nft: Nftables::open()? })
    }

    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        Ok(self.nft.remove_table(Family::Ip, TABLE)?)
    }

    /// Changes the table.
    pub(crate) fn change(&mut self, changes: &Changes) -> Result<(), Error> {
        let mut batch = Batch::new(Family::Ip, TABLE);
        write(&mut batch, changes);
        Ok(self.nft.commit(batch)?)
    }

    /// Puts a table of these contents in the place of the one that is there, if any.
    pub(crate) fn replace(&mut self, everything: &Changes) -> Result<(), Error> {
        let mut batch = Batch::new(Family::Ip, TABLE);
        batch.replace_table();
        rules::add_frame(&mut batch);
        write(&mut batch, everything);
        Ok(self.nft.commit(batch)?)
    }
}

/// Names first, then what refers to them; what is referred to goes after what referred to it.
fn write(batch: &mut Batch, changes: &Changes) {
    for set in &changes.new_sets {
        set.add(batch);
    }
    for chain in changes.new_chains.keys() {
        batch.add_chain(&chain.name());
    }
    for (chain, lines) in &changes.new_chains {
        rules::fill_chain(batch, *chain, lines);
    }
    for (chain, lines) in &changes.changed_chains {
        batch.flush_chain(&chain.name());
        rules::fill_chain(batch, *chain, lines);
    }
    for (set, elements) in by_set(&changes.gone_elements) {
        batch.delete_keys(SetName::Named(&set.name()), elements.iter().map(|(_, item)| set.key(*item)));
    }
    for (set, elements) in by_set(&changes.new_elements) {
        let name = set.name();
        if set.is_map() {
            let verdicts: Vec<(Key, Verdict)> =
                elements.iter().map(|(_, item)| (set.key(*item), set.verdict(*item))).collect();
            batch.add_verdicts(SetName::Named(&name), verdicts.iter().map(|(key, verdict)| (*key, verdict)));
        } else {
            batch.add_keys(SetName::Named(&name), elements.iter().map(|(_, item)| set.key(*item)));
        }
    }
    for chain in &changes.gone_chains {
        batch.flush_chain(&chain.name());
    }
    for chain in &changes.gone_chains {
        batch.delete_chain(&chain.name());
    }
    for set in &changes.gone_sets {
        batch.delete_set(&set.name());
    }
}

fn by_set(elements: &BTreeSet<Element>) -> BTreeMap<SetId, Vec<Element>> {
    let mut sets: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
    for element in elements {
        sets.entry(element.0).or_default().push(*element);
    }
    sets
}
