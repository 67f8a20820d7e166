//! Which share of each range is free: a book that is kept as nodes come and go, so that a node costs the same however
//! many there are.

use ipnet::IpNet;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits of a node's share, by upstream's defaults.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

/// A range that is cut into shares of one size.
#[derive(Debug)]
struct Pool {
    range: IpNet,
    /// Bits of its shares.
    prefix: u8,
    /// All shares before this one are taken.
    from: u128,
}

/// Which node has which shares.
#[derive(Debug)]
pub struct Book {
    /// In the order in which nodes are given shares of them.
    pools: Vec<Pool>,
    /// By the name of the node.
    of_nodes: HashMap<String, Vec<IpNet>>,
    /// How many nodes have a share: more than one by somebody's mistake only.
    taken: HashMap<IpNet, usize>,
    /// Those of them that are of another size than the shares that are given here.
    odd: Vec<IpNet>,
}

impl Pool {
    fn of(range: IpNet) -> Self {
        let usual = if range.addr().is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 };
        Self { range: range.trunc(), prefix: usual.max(range.prefix_len()), from: 0 }
    }

    /// Bits of an address within a share.
    fn host_bits(&self) -> u8 {
        self.range.max_prefix_len() - self.prefix
    }

    /// The share of that number.
    fn share(&self, number: u128) -> Option<IpNet> {
        if number >> (self.prefix - self.range.prefix_len()) != 0 {
            return None;
        }
        let address = bits(self.range.addr()) + (number << self.host_bits());
        let address = match self.range {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(address).ok()?)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(address)),
        };
        IpNet::new(address, self.prefix).ok()
    }

    /// The number of the share that an address of the range belongs to.
    fn number(&self, address: IpAddr) -> u128 {
        bits(address).saturating_sub(bits(self.range.addr())) >> self.host_bits()
    }

    fn overlaps(&self, net: &IpNet) -> bool {
        self.range.contains(net) || net.contains(&self.range)
    }
}

impl Book {
    /// Nothing of the ranges is given yet.
    pub fn new(ranges: &[IpNet]) -> Self {
        let pools = ranges.iter().map(|range| Pool::of(*range)).collect();
        Self { pools, of_nodes: HashMap::new(), taken: HashMap::new(), odd: Vec::new() }
    }

    /// A node says which shares it has. One that says none keeps what it was given: it may not know yet.
    pub fn saw(&mut self, node: &str, shares: &[IpNet]) {
        if shares.is_empty() || self.of_nodes.get(node).is_some_and(|known| known == shares) {
            return;
        }
        let before = self.of_nodes.insert(node.to_owned(), shares.to_vec());
        for share in shares.iter().map(IpNet::trunc) {
            let holders = self.taken.entry(share).or_default();
            *holders += 1;
            if *holders == 1 && self.is_odd(&share) {
                self.odd.push(share);
            }
        }
        self.free(&before.unwrap_or_default());
    }

    /// A node is gone; its shares are free.
    pub fn forget(&mut self, node: &str) {
        let shares = self.of_nodes.remove(node).unwrap_or_default();
        self.free(&shares);
    }

    /// The shares that the node has, or now gets: the first free one of each range. Nothing when one is used up.
    pub fn give(&mut self, node: &str) -> Option<Vec<IpNet>> {
        if let Some(known) = self.of_nodes.get(node) {
            return Some(known.clone());
        }
        let shares = (0..self.pools.len()).map(|at| self.first_free(at)).collect::<Option<Vec<IpNet>>>()?;
        self.saw(node, &shares);
        Some(shares)
    }

    fn is_odd(&self, share: &IpNet) -> bool {
        let same = |pool: &Pool| pool.range.addr().is_ipv4() == share.addr().is_ipv4();
        !self.pools.iter().any(|pool| same(pool) && pool.prefix == share.prefix_len())
    }

    fn first_free(&mut self, at: usize) -> Option<IpNet> {
        let Self { pools, taken, odd, .. } = self;
        let pool = &mut pools[at];
        while let Some(share) = pool.share(pool.from) {
            if let Some(other) = odd.iter().find(|odd| odd.contains(&share) || share.contains(*odd)) {
                pool.from = pool.number(other.broadcast()) + 1;
            } else if taken.contains_key(&share) {
                pool.from += 1;
            } else {
                return Some(share);
            }
        }
        None
    }

    fn free(&mut self, shares: &[IpNet]) {
        for share in shares.iter().map(IpNet::trunc) {
            let Some(holders) = self.taken.get_mut(&share) else { continue };
            *holders -= 1;
            if *holders > 0 {
                continue;
            }
            self.taken.remove(&share);
            self.odd.retain(|odd| *odd != share);
            for pool in self.pools.iter_mut().filter(|pool| pool.overlaps(&share)) {
                pool.from = pool.from.min(pool.number(share.addr()));
            }
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}
