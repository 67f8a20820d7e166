//! Makes changes in the kernel: one transaction for any number of services.

use crate::ledger::Changes;
use crate::plan::{Map, Target, UDP};
use crate::rules::{Ranges, TABLE, Table};
use pintle_netlink::conntrack::{Conntrack, Flow, Tuple};
use pintle_netlink::nft::{Family, Key, Nftables, Verdict};
use std::collections::HashSet;

/// What can go wrong with the proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("service proxy: {0}")]
    Kernel(#[from] pintle_netlink::Error),
    /// A thread that was at work in the kernel ended without an answer.
    #[error("service proxy: the thread that programs the kernel failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The tables of one network namespace, one for each family: the one of the thread that opens it.
#[derive(Debug)]
pub struct Kernel {
    nft: Nftables,
    conntrack: Conntrack,
}

impl Kernel {
    pub fn open() -> Result<Self, Error> {
        Ok(Self { nft: Nftables::open()?, conntrack: Conntrack::open()? })
    }

    /// Removes the tables, as a reset does; no table is success.
    pub fn remove_all(&mut self) -> Result<(), Error> {
        for family in [Family::Ip, Family::Ip6] {
            self.nft.remove_table(family, TABLE)?;
        }
        Ok(())
    }

    /// Changes a family's table.
    pub(crate) fn change(&mut self, family: Family, changes: &Changes, ranges: &Ranges) -> Result<(), Error> {
        let mut table = Table::begin(family, ranges);
        table.write(changes);
        self.nft.commit(table.batch)?;
        self.forget_flows(family, changes, false);
        Ok(())
    }

    /// Puts a table of these contents in the place of the family's that is there, if any.
    pub(crate) fn replace(&mut self, family: Family, everything: &Changes, ranges: &Ranges) -> Result<(), Error> {
        let mut table = Table::begin(family, ranges);
        table.batch.replace_table();
        table.add_frame();
        table.write(everything);
        self.nft.commit(table.batch)?;
        self.forget_flows(family, everything, true);
        Ok(())
    }

    /// Forgets flows of datagrams that lead to endpoints that are gone, and those that began before their service
    /// was there and so lead nowhere. With a new table also what else began and was not answered: chains of type nat
    /// are not asked about its next packets, while a table that is there lets no first packet to nobody pass.
    /// Failing is no reason to undo the change.
    fn forget_flows(&mut self, family: Family, changes: &Changes, is_new_table: bool) {
        let gone = &changes.gone_datagram_endpoints;
        let protocol = |key: &Key| key.as_slice().get(4 * family.address_registers() as usize).copied();
        let elements = changes.new_elements.iter().filter(|((map, _), _)| *map == Map::Services);
        let keys = elements.map(|((_, key), _)| *key);
        let new: HashSet<Key> = keys.filter(|key| is_new_table || protocol(key) == Some(UDP)).collect();
        if gone.is_empty() && new.is_empty() {
            return;
        }
        let stale = |flow: &Flow| {
            let (original, reply) = (flow.original, flow.reply);
            let translated = original.destination != reply.source || original.destination_port != reply.source_port;
            let is_datagram = original.protocol == UDP;
            if translated {
                is_datagram && gone.contains(&(reply.source, reply.source_port))
            } else {
                (is_datagram || !flow.answered) && new.contains(&key_of(&original))
            }
        };
        if let Err(error) = self.conntrack.delete_where(stale) {
            tracing::warn!(%error, "cannot forget tracked flows; clients may be led to endpoints that are gone");
        }
    }
}

/// Where a flow goes, as a key of the map of services.
fn key_of(original: &Tuple) -> Key {
    Key::new().address(original.destination).protocol(original.protocol).port(original.destination_port)
}

impl Table<'_> {
    /// Names first, then what refers to them; what is referred to goes after what referred to it.
    fn write(&mut self, changes: &Changes) {
        for (name, timeout_ms) in &changes.new_sets {
            self.add_client_set(name, *timeout_ms);
        }
        for name in changes.new_chains.keys() {
            self.batch.add_chain(name);
        }
        for (name, chain) in &changes.new_chains {
            self.fill_chain(name, chain);
        }
        for (name, chain) in &changes.changed_chains {
            self.batch.flush_chain(name);
            self.fill_chain(name, chain);
        }
        self.write_elements(changes);
        for name in &changes.gone_chains {
            self.batch.flush_chain(name);
        }
        for name in &changes.gone_chains {
            self.batch.delete_chain(name);
        }
        for name in &changes.gone_sets {
            self.batch.delete_set(name);
        }
    }

    fn write_elements(&mut self, changes: &Changes) {
        for map in Map::ALL {
            let gone = changes.gone_elements.iter().filter(|((of, _), _)| *of == map).map(|((_, key), _)| *key);
            self.batch.delete_keys(map.reference(), gone);
            let new = changes.new_elements.iter().filter(|((of, _), _)| *of == map);
            if map.is_set() {
                self.batch.add_keys(map.reference(), new.map(|((_, key), _)| *key));
            } else {
                let verdicts: Vec<(Key, Verdict)> =
                    new.map(|((_, key), target): &(_, Target)| (*key, target.verdict())).collect();
                self.batch.add_verdicts(map.reference(), verdicts.iter().map(|(key, verdict)| (*key, verdict)));
            }
        }
    }
}
