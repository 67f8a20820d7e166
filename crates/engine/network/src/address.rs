//! Which address the next sandbox gets.

use crate::{Error, Result};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The addresses of a subnet that sandboxes can have: all but the network's own, the gateway's and the broadcast.
///
/// An address that came back is given again as late as possible, because others may still remember whose it was.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Ipv4Net,
    used: BTreeSet<u32>,
    /// The search begins behind the one given last.
    last: u32,
}

impl Addresses {
    pub(crate) fn new(subnet: Ipv4Net) -> Result<Self> {
        if subnet.prefix_len() > 29 {
            return Err(Error::Config(format!("pod subnet {subnet} is too small: a node needs at least a /29")));
        }
        let subnet = subnet.trunc();
        Ok(Self { subnet, used: BTreeSet::new(), last: u32::from(subnet.network()) + 1 })
    }

    /// The first address: the bridge's own.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + 1)
    }

    pub(crate) fn total(&self) -> usize {
        (u32::from(self.subnet.broadcast()) - self.first()) as usize
    }

    pub(crate) fn used(&self) -> usize {
        self.used.len()
    }

    /// Marks an address of an earlier run as used; false if it is not one of ours or is used already.
    pub(crate) fn claim(&mut self, address: Ipv4Addr) -> bool {
        let number = u32::from(address);
        if !(self.first()..u32::from(self.subnet.broadcast())).contains(&number) {
            return false;
        }
        self.last = self.last.max(number);
        self.used.insert(number)
    }

    /// Goes on behind the address that an earlier run gave last, if it is one of ours.
    pub(crate) fn resume(&mut self, last: Option<Ipv4Addr>) {
        if let Some(last) = last.filter(|address| self.subnet.contains(address)) {
            self.last = last.into();
        }
    }

    /// The next free address.
    pub(crate) fn allocate(&mut self) -> Result<Ipv4Addr> {
        let (first, end) = (self.first(), u32::from(self.subnet.broadcast()));
        let free = (self.last + 1..end).chain(first..end).find(|number| !self.used.contains(number));
        let number = free.ok_or(Error::Exhausted { subnet: self.subnet, used: self.used.len() })?;
        self.used.insert(number);
        self.last = number;
        Ok(number.into())
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }

    fn first(&self) -> u32 {
        u32::from(self.subnet.network()) + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(subnet: &str) -> Addresses {
        Addresses::new(subnet.parse().expect("subnet")).expect("large enough")
    }

    #[test]
    fn each_is_given_once_and_comes_back_late() {
        let mut addresses = addresses("10.42.0.0/29");
        assert_eq!(addresses.gateway(), Ipv4Addr::new(10, 42, 0, 1));
        assert_eq!(addresses.total(), 5);
        let given: Vec<u8> = (0..5).map(|_| addresses.allocate().expect("free").octets()[3]).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        let error = addresses.allocate().expect_err("none left").to_string();
        assert!(error.contains("no address is free in 10.42.0.0/29: 5 are in use"), "{error}");
        addresses.release([10, 42, 0, 5].into());
        addresses.release([10, 42, 0, 3].into());
        addresses.resume(Some([10, 42, 0, 4].into()));
        assert_eq!(addresses.allocate().expect("free").octets()[3], 5, "an earlier run ended at 4");
        addresses.release([10, 42, 0, 5].into());
        addresses.resume(Some([10, 42, 0, 6].into()));
        addresses.resume(Some([192, 168, 0, 1].into()));
        assert_eq!(addresses.allocate().expect("free").octets()[3], 3, "the search begins anew at the start");
        addresses.release([10, 42, 0, 3].into());
        assert_eq!(addresses.allocate().expect("free").octets()[3], 5, "not the one that has just come back");
    }

    #[test]
    fn an_earlier_runs_addresses_stay_taken() {
        let mut addresses = addresses("10.42.0.0/24");
        for (address, ours) in [([10, 42, 0, 2], true), ([10, 42, 0, 2], false), ([10, 42, 0, 1], false)] {
            assert_eq!(addresses.claim(address.into()), ours, "{address:?}");
        }
        assert!(!addresses.claim([10, 42, 0, 255].into()) && !addresses.claim([10, 43, 0, 9].into()));
        assert_eq!(addresses.allocate().expect("free").octets()[3], 3);
        assert_eq!(addresses.used(), 2);
    }

    #[test]
    fn a_subnet_has_room_for_a_few() {
        assert!(Addresses::new("10.0.0.0/30".parse().expect("subnet")).is_err());
    }
}
