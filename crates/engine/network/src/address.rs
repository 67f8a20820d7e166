//! Which address the next sandbox gets.

use crate::{Error, Result};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of a subnet that sandboxes can have: all but the first two (the network's own and the gateway's) and
/// the last (the broadcast, or what the way to other nodes uses).
///
/// An address that came back is given again as late as possible, because others may still remember whose it was.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: IpNet,
    used: BTreeSet<u128>,
    /// The search begins behind the one given last.
    last: u128,
}

impl Addresses {
    pub(crate) fn new(subnet: IpNet) -> Result<Self> {
        let (least, bits) = (subnet.max_prefix_len() - 3, subnet.prefix_len());
        if bits > least {
            return Err(Error::Config(format!("pod subnet {subnet} is too small: a node needs at least a /{least}")));
        }
        let subnet = subnet.trunc();
        Ok(Self { subnet, used: BTreeSet::new(), last: number(subnet.network()) + 1 })
    }

    pub(crate) fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The first address: the bridge's own.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.address(number(self.subnet.network()) + 1)
    }

    pub(crate) fn total(&self) -> usize {
        usize::try_from(self.end() - self.first()).unwrap_or(usize::MAX)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.len()
    }

    /// Marks an address of an earlier run as used; false if it is not one of ours or is used already.
    pub(crate) fn claim(&mut self, address: IpAddr) -> bool {
        let number = number(address);
        if !self.subnet.contains(&address) || !(self.first()..self.end()).contains(&number) {
            return false;
        }
        self.last = self.last.max(number);
        self.used.insert(number)
    }

    /// Goes on behind the address that an earlier run gave last, if it is one of ours.
    pub(crate) fn resume(&mut self, last: IpAddr) {
        if self.subnet.contains(&last) {
            self.last = number(last);
        }
    }

    /// The next free address.
    pub(crate) fn allocate(&mut self) -> Result<IpAddr> {
        let (first, end) = (self.first(), self.end());
        let free = (self.last + 1..end).chain(first..end).find(|number| !self.used.contains(number));
        let number = free.ok_or(Error::Exhausted { subnet: self.subnet, used: self.used.len() })?;
        self.used.insert(number);
        self.last = number;
        Ok(self.address(number))
    }

    /// An address of another subnet is nothing to release.
    pub(crate) fn release(&mut self, address: IpAddr) {
        if self.subnet.contains(&address) {
            self.used.remove(&number(address));
        }
    }

    fn first(&self) -> u128 {
        number(self.subnet.network()) + 2
    }

    fn end(&self) -> u128 {
        number(self.subnet.broadcast())
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.subnet {
            // What came from 32 bits fits them.
            IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(subnet: &str) -> Addresses {
        Addresses::new(subnet.parse().expect("subnet")).expect("large enough")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn each_is_given_once_and_comes_back_late() {
        for net in ["10.42.0.", "fd00:42::"] {
            let prefix = if net.contains(':') { 125 } else { 29 };
            let at = |last: u8| ip(&format!("{net}{last}"));
            let mut addresses = addresses(&format!("{net}0/{prefix}"));
            assert_eq!(addresses.gateway(), at(1));
            assert_eq!(addresses.total(), 5);
            let given: Vec<IpAddr> = (0..5).map(|_| addresses.allocate().expect("free")).collect();
            assert_eq!(given, [2, 3, 4, 5, 6].map(at));
            let error = addresses.allocate().expect_err("none left").to_string();
            assert!(error.contains(&format!("no address is free in {}: 5 are in use", addresses.subnet())), "{error}");
            addresses.release(at(5));
            addresses.release(at(3));
            addresses.resume(at(4));
            assert_eq!(addresses.allocate().expect("free"), at(5), "an earlier run ended at 4");
            addresses.release(at(5));
            addresses.resume(at(6));
            addresses.resume(ip("192.168.0.1"));
            addresses.resume(ip("fd01::1"));
            assert_eq!(addresses.allocate().expect("free"), at(3), "the search begins anew at the start");
            addresses.release(at(3));
            assert_eq!(addresses.allocate().expect("free"), at(5), "not the one that has just come back");
        }
    }

    #[test]
    fn an_earlier_runs_addresses_stay_taken() {
        let mut addresses = addresses("10.42.0.0/24");
        for (address, ours) in [("10.42.0.2", true), ("10.42.0.2", false), ("10.42.0.1", false), ("::10.42.0.3", false)]
        {
            assert_eq!(addresses.claim(ip(address)), ours, "{address:?}");
        }
        assert!(!addresses.claim(ip("10.42.0.255")) && !addresses.claim(ip("10.43.0.9")));
        assert_eq!(addresses.allocate().expect("free"), ip("10.42.0.3"));
        assert_eq!(addresses.used(), 2);
    }

    #[test]
    fn a_subnet_has_room_for_a_few() {
        assert!(Addresses::new("10.0.0.0/30".parse().expect("subnet")).is_err());
        assert!(Addresses::new("fd00::/126".parse().expect("subnet")).is_err());
        assert_eq!(addresses("fd00::/64").allocate().expect("free"), ip("fd00::2"));
    }
}
