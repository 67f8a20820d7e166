//! The addresses of Services: which are taken, and which of the ranges that are there just now give more.

use super::pool::{TakeError, band};
use crate::cache::Snapshot;
use ipnet::IpNet;
use parking_lot::Mutex;
use pintle_kinds::tree;
use rand::Rng;
use serde_json::Value;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The name of the range that the server is started with.
const OWN: &str = "kubernetes";
/// How many addresses in a row are looked at for a free one: in a range that is larger, a random place is nearly always
/// free.
const LOOKED_AT: u128 = 1 << 20;

/// Addresses in use, of whatever range: ranges come and go, and may overlap.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    taken: Mutex<HashSet<IpAddr>>,
}

impl Addresses {
    pub(super) fn refill(&self, taken: HashSet<IpAddr>) {
        *self.taken.lock() = taken;
    }

    /// Takes one that is asked for out of any of the ranges.
    pub(super) fn take(&self, address: IpAddr, ranges: &[IpNet]) -> Result<(), TakeError> {
        let mut around = ranges.iter().filter(|range| range.contains(&address)).peekable();
        if around.peek().is_none() {
            return Err(TakeError::NoRange);
        }
        if !around.any(|range| number_in(range, address).is_some()) {
            return Err(TakeError::OutOfRange);
        }
        if self.taken.lock().insert(address) { Ok(()) } else { Err(TakeError::Taken) }
    }

    /// Takes any free one of a family; nothing when all ranges are used up.
    pub(super) fn take_any(&self, family: &str, ranges: &[IpNet]) -> Option<IpAddr> {
        let mut taken = self.taken.lock();
        let found = ranges.iter().filter(|range| self::family(range.addr()) == family).find_map(|range| {
            let (size, band) = (size(range), band(size(range), 16, 16, 256));
            find(range, band, size, &taken).or_else(|| find(range, 0, band, &taken))
        })?;
        taken.insert(found);
        Some(found)
    }

    pub(super) fn give_back(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut taken = self.taken.lock();
        for address in addresses {
            taken.remove(&address);
        }
    }
}

/// The family of an address as Services name it.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// How many addresses a range has to give: not its network's own, nor in IPv4 the last one, where broadcasts go.
fn size(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let all = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    all.saturating_sub(if range.addr().is_ipv4() { 2 } else { 1 })
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Which of a range's addresses this is, if it is one to give.
fn number_in(range: &IpNet, address: IpAddr) -> Option<u128> {
    let number = bits(address).checked_sub(bits(range.network()))?.checked_sub(1)?;
    (number < size(range)).then_some(number)
}

fn nth(range: &IpNet, number: u128) -> IpAddr {
    let bits = bits(range.network()).saturating_add(number + 1);
    match range {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(bits).into(),
    }
}

/// A free address in `from..to`, searched from a random place on.
fn find(range: &IpNet, from: u128, to: u128, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    if from >= to {
        return None;
    }
    let start = rand::rng().random_range(from..to);
    let numbers = (start..to).chain(from..start).take(usize::try_from(LOOKED_AT).unwrap_or(usize::MAX));
    numbers.map(|number| nth(range, number)).find(|address| !taken.contains(address))
}

/// The ranges that give addresses: of all ServiceCIDRs that are ready, the server's own first.
pub(super) fn ready_ranges(own: &[IpNet], objects: Option<&Snapshot>) -> Vec<IpNet> {
    let (mut ranges, mut serves_own) = (Vec::new(), true);
    for entry in objects.into_iter().flat_map(Snapshot::iter) {
        let object = entry.to_value();
        let ready = is_ready(&object);
        serves_own &= ready || entry.name() != OWN;
        let texts = tree::list(&object["spec"], "cidrs").iter().filter(|_| ready);
        ranges.extend(texts.filter_map(|text| text.as_str()?.parse::<IpNet>().ok()));
    }
    ranges.retain(|range| !own.contains(range));
    if serves_own { own.iter().copied().chain(ranges).collect() } else { ranges }
}

/// Without a condition it is: nobody may be there to set it.
fn is_ready(object: &Value) -> bool {
    let conditions = tree::list(&object["status"], "conditions");
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    object["metadata"]["deletionTimestamp"].is_null() && ready.is_none_or(|condition| condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_is_given_once_and_the_upper_band_first() {
        let (addresses, ranges) = (Addresses::default(), [net("10.0.0.0/24"), net("fd00::/112")]);
        assert_eq!(addresses.take([10, 0, 0, 3].into(), &ranges), Ok(()));
        assert_eq!(addresses.take([10, 0, 0, 3].into(), &ranges), Err(TakeError::Taken));
        for outside in [[10, 0, 0, 0], [10, 0, 0, 255]] {
            assert_eq!(addresses.take(outside.into(), &ranges), Err(TakeError::OutOfRange));
        }
        assert_eq!(addresses.take([10, 0, 1, 1].into(), &ranges), Err(TakeError::NoRange));
        let upper: Vec<_> = (0..238).filter_map(|_| addresses.take_any("IPv4", &ranges)).collect();
        assert!(upper.iter().all(|address| *address > IpAddr::from([10, 0, 0, 16])), "the lower band comes last");
        assert_eq!((0..20).filter_map(|_| addresses.take_any("IPv4", &ranges)).count(), 15);
        addresses.give_back([[10, 0, 0, 3].into()]);
        assert_eq!(addresses.take_any("IPv4", &ranges), Some([10, 0, 0, 3].into()));
        let six = addresses.take_any("IPv6", &ranges).unwrap();
        assert!(ranges[1].contains(&six) && addresses.take(six, &ranges) == Err(TakeError::Taken));
    }

    #[test]
    fn ranges_of_any_size_are_counted() {
        for (text, expected) in [
            ("10.0.0.0/16", 65_534),
            ("10.0.0.0/32", 0),
            ("fd00::/112", 65_535),
            ("fd00::/64", (1_u128 << 64) - 1),
            ("::/0", u128::MAX - 1),
        ] {
            assert_eq!(size(&net(text)), expected, "{text}");
        }
        assert!(Addresses::default().take_any("IPv6", &[net("fd00::/8")]).is_some());
    }
}
