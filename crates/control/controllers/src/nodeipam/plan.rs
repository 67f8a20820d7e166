//! Which share of a range is free.

use ipnet::Ipv4Net;

/// Bits of a node's share.
const NODE_PREFIX: u8 = 24;

/// The first share that overlaps none of those that are taken; nothing when the range is used up.
pub fn free_share(range: Ipv4Net, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let prefix = NODE_PREFIX.max(range.prefix_len());
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    range.subnets(prefix).ok()?.find(|share| !taken.iter().any(|other| overlaps(share, other)))
}
