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
    Kernel::open(&[])?.remove()
}

/// The tables of one network namespace, one for each family: the one of the thread that opens it.
#[derive(Debug)]
pub(crate) struct Kernel {
    nft: Nftables,
    families: Vec<Family>,
}

impl Kernel {
    pub(crate) fn open(families: &[Family]) -> Result<Self, Error> {
        Ok(Self { nft: Nftables::open()?, families: families.to_vec() })
    }

    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        for family in [Family::Ip, Family::Ip6] {
            self.nft.remove_table(family, TABLE)?;
        }
        Ok(())
    }

    /// Changes the tables. After an error nothing is known of them.
    pub(crate) fn change(&mut self, changes: &Changes) -> Result<(), Error> {
        for family in &self.families {
            let mut batch = Batch::new(*family, TABLE);
            write(*family, &mut batch, changes);
            self.nft.commit(batch)?;
        }
        Ok(())
    }

    /// Puts tables of these contents in the place of those that are there, if any.
    pub(crate) fn replace(&mut self, everything: &Changes) -> Result<(), Error> {
        for family in &self.families {
            let mut batch = Batch::new(*family, TABLE);
            batch.replace_table();
            rules::add_frame(*family, &mut batch);
            write(*family, &mut batch, everything);
            self.nft.commit(batch)?;
        }
        Ok(())
    }
}

/// Names first, then what refers to them; what is referred to goes after what referred to it.
fn write(family: Family, batch: &mut Batch, changes: &Changes) {
    for set in &changes.new_sets {
        set.add(family, batch);
    }
    let new_chains = || changes.new_chains.iter().filter(|(chain, _)| chain.is_of(family));
    for (chain, _) in new_chains() {
        batch.add_chain(&chain.name());
    }
    for (chain, lines) in new_chains() {
        rules::fill_chain(family, batch, *chain, lines);
    }
    for (chain, lines) in changes.changed_chains.iter().filter(|(chain, _)| chain.is_of(family)) {
        batch.flush_chain(&chain.name());
        rules::fill_chain(family, batch, *chain, lines);
    }
    for (set, elements) in by_set(family, &changes.gone_elements) {
        batch.delete_keys(SetName::Named(&set.name()), elements.iter().map(|(_, item)| set.key(*item)));
    }
    for (set, elements) in by_set(family, &changes.new_elements) {
        let name = set.name();
        if set.is_map() {
            let verdicts: Vec<(Key, Verdict)> =
                elements.iter().map(|(_, item)| (set.key(*item), set.verdict(*item))).collect();
            batch.add_verdicts(SetName::Named(&name), verdicts.iter().map(|(key, verdict)| (*key, verdict)));
        } else {
            batch.add_keys(SetName::Named(&name), elements.iter().map(|(_, item)| set.key(*item)));
        }
    }
    let gone_chains = || changes.gone_chains.iter().filter(|chain| chain.is_of(family));
    for chain in gone_chains() {
        batch.flush_chain(&chain.name());
    }
    for chain in gone_chains() {
        batch.delete_chain(&chain.name());
    }
    for set in &changes.gone_sets {
        batch.delete_set(&set.name());
    }
}

/// The elements of a family by their sets.
fn by_set(family: Family, elements: &BTreeSet<Element>) -> BTreeMap<SetId, Vec<Element>> {
    let mut sets: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
    for element in elements.iter().filter(|(_, item)| item.is_of(family)) {
        sets.entry(element.0).or_default().push(*element);
    }
    sets
}
