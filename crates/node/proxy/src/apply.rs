//! Makes changes in the kernel: one transaction for any number of services.

use crate::ledger::Changes;
use crate::plan::{Map, Target, UDP};
use crate::rules::{self, Ranges, TABLE};
use pintle_netlink::conntrack::{Conntrack, Flow};
use pintle_netlink::nft::{Batch, Family, Key, Nftables, Verdict};
use std::collections::HashSet;
use std::net::IpAddr;

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

/// The table of one network namespace: the one of the thread that opens it.
#[derive(Debug)]
pub struct Kernel {
    nft: Nftables,
    conntrack: Conntrack,
}

impl Kernel {
    pub fn open() -> Result<Self, Error> {
        Ok(Self { nft: Nftables::open()?, conntrack: Conntrack::open()? })
    }

    /// Removes the table, as a reset does; no table is success.
    pub fn remove_all(&mut self) -> Result<(), Error> {
        Ok(self.nft.remove_table(Family::Ip, TABLE)?)
    }

    /// Changes the table.
    pub(crate) fn change(&mut self, changes: &Changes, ranges: &Ranges) -> Result<(), Error> {
        let mut batch = Batch::new(Family::Ip, TABLE);
        write(&mut batch, changes, ranges);
        self.nft.commit(batch)?;
        self.forget_datagrams(changes);
        Ok(())
    }

    /// Puts a table of these contents in the place of the one that is there, if any.
    pub(crate) fn replace(&mut self, everything: &Changes, ranges: &Ranges) -> Result<(), Error> {
        let mut batch = Batch::new(Family::Ip, TABLE);
        batch.replace_table();
        rules::add_frame(&mut batch, ranges);
        write(&mut batch, everything, ranges);
        self.nft.commit(batch)?;
        self.forget_datagrams(everything);
        Ok(())
    }

    /// Forgets flows of datagrams that lead to endpoints that are gone, and those that began before their service
    /// was there and so lead nowhere. Failing is no reason to undo the change.
    fn forget_datagrams(&mut self, changes: &Changes) {
        let gone = &changes.gone_datagram_endpoints;
        let udp_keys = changes.new_elements.iter().filter(|((map, key), _)| *map == Map::Services && is_datagram(key));
        let new: HashSet<Key> = udp_keys.map(|((_, key), _)| *key).collect();
        if gone.is_empty() && new.is_empty() {
            return;
        }
        let stale = |flow: &Flow| {
            let (original, reply) = (flow.original, flow.reply);
            let translated = original.destination != reply.source || original.destination_port != reply.source_port;
            original.protocol == UDP
                && if translated {
                    gone.contains(&(reply.source, reply.source_port))
                } else {
                    new.contains(&datagram_key(original.destination, original.destination_port))
                }
        };
        if let Err(error) = self.conntrack.delete_where(stale) {
            tracing::warn!(%error, "cannot forget tracked datagrams; clients may be led to endpoints that are gone");
        }
    }
}

fn datagram_key(address: IpAddr, port: u16) -> Key {
    Key::new().address(address).protocol(UDP).port(port)
}

fn is_datagram(key: &Key) -> bool {
    key.as_slice().get(4) == Some(&UDP)
}

/// Names first, then what refers to them; what is referred to goes after what referred to it.
fn write(batch: &mut Batch, changes: &Changes, ranges: &Ranges) {
    for (name, timeout_ms) in &changes.new_sets {
        rules::add_client_set(batch, name, *timeout_ms);
    }
    for name in changes.new_chains.keys() {
        batch.add_chain(name);
    }
    for (name, chain) in &changes.new_chains {
        rules::fill_chain(batch, name, chain, ranges);
    }
    for (name, chain) in &changes.changed_chains {
        batch.flush_chain(name);
        rules::fill_chain(batch, name, chain, ranges);
    }
    write_elements(batch, changes);
    for name in &changes.gone_chains {
        batch.flush_chain(name);
    }
    for name in &changes.gone_chains {
        batch.delete_chain(name);
    }
    for name in &changes.gone_sets {
        batch.delete_set(name);
    }
}

fn write_elements(batch: &mut Batch, changes: &Changes) {
    for map in Map::ALL {
        let gone = changes.gone_elements.iter().filter(|((of, _), _)| *of == map).map(|((_, key), _)| *key);
        batch.delete_keys(map.reference(), gone);
        let new = changes.new_elements.iter().filter(|((of, _), _)| *of == map);
        if map.is_set() {
            batch.add_keys(map.reference(), new.map(|((_, key), _)| *key));
        } else {
            let verdicts: Vec<(Key, Verdict)> =
                new.map(|((_, key), target): &(_, Target)| (*key, target.verdict())).collect();
            batch.add_verdicts(map.reference(), verdicts.iter().map(|(key, verdict)| (*key, verdict)));
        }
    }
}
