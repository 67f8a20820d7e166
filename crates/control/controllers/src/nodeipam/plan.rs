//! Which share of each range is free.

use ipnet::IpNet;
use std::collections::HashSet;

/// Bits of a node's share, by upstream's defaults.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

/// The first share that overlaps none of those that are taken; nothing when the range is used up.
pub fn free_share(range: IpNet, taken: &[IpNet]) -> Option<IpNet> {
    let usual = if range.addr().is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 };
    let prefix = usual.max(range.prefix_len());
    // Nearly all are shares of the same size: thousands of nodes are looked up, not compared.
    let (same, other): (Vec<IpNet>, Vec<IpNet>) = taken.iter().partition(|net| net.prefix_len() == prefix);
    let same: HashSet<IpNet> = same.iter().map(IpNet::trunc).collect();
    let overlaps = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    range.subnets(prefix).ok()?.find(|share| !same.contains(share) && !other.iter().any(|net| overlaps(share, net)))
}

/// A free share of each range, in their order; nothing when one of them is used up.
pub fn free_shares(ranges: &[IpNet], taken: &[IpNet]) -> Option<Vec<IpNet>> {
    ranges.iter().map(|range| free_share(*range, taken)).collect()
}
