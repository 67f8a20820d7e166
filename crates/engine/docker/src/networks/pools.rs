//! Which subnet the next network gets, and which address the next container in it.

use super::request::Range;
use crate::error::{DockerError, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub subnet: IpNet,
    pub part: Option<IpNet>,
    pub gateway: IpAddr,
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Somebody asked for this subnet, so containers may ask for addresses of it.
    pub asked_for: bool,
}

/// A subnet with what is in use of it.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub pool: Pool,
    used: BTreeSet<IpAddr>,
}

/// What Docker chooses from: 15 large ranges, then small ones.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let large = (17..=31).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=240).step_by(16).map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third, 0), 20));
    large.chain(small)
}

pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The first of Docker's ranges that nobody uses.
///
/// # Errors
/// When all are in use.
pub(crate) fn choose_v4(taken: &[IpNet]) -> Result<IpNet> {
    let free = candidates().map(IpNet::V4).find(|net| !taken.iter().any(|other| overlap(net, other)));
    free.ok_or_else(|| DockerError::not_found("all predefined address pools have been fully subnetted"))
}

/// A unique local range that follows from the network's id (RFC 4193 wants it random).
pub(crate) fn choose_v6(id: &str) -> IpNet {
    let digest = Sha256::digest(id.as_bytes());
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&digest[..7]);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(bytes), 64).trunc())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    // A number of a family came from an address of it, or from one behind it in the same subnet.
    if v4 { IpAddr::V4(Ipv4Addr::from(number as u32)) } else { IpAddr::V6(Ipv6Addr::from(number)) }
}

/// First and last number from which addresses are given.
fn bounds(net: IpNet, subnet: IpNet) -> (u128, u128) {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    let (low, high) = (number(subnet.network()), number(subnet.broadcast()));
    if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        return (first, last);
    }
    // Neither the network's own address nor, of IPv4, the one for everybody.
    let high = if subnet.addr().is_ipv4() { high - 1 } else { high };
    (first.max(low + 1), last.min(high))
}

impl Pool {
    /// A subnet with its gateway: the one asked for, or the first address that is not set aside.
    ///
    /// # Errors
    /// When there is no room for a gateway.
    pub fn new(range: Range, asked_for: bool) -> Result<Self> {
        let Range { subnet, part, gateway, auxiliary } = range;
        let pool = Self { subnet, part, gateway: subnet.addr(), auxiliary, asked_for };
        let gateway = match gateway {
            Some(gateway) => gateway,
            None => {
                let (first, last) = bounds(part.unwrap_or(subnet), subnet);
                let reserved: BTreeSet<u128> = pool.auxiliary.values().map(|a| number(*a)).collect();
                let free = (first..=last).find(|n| !reserved.contains(n));
                free.map(|n| address(n, subnet.addr().is_ipv4())).ok_or_else(exhausted)?
            }
        };
        if pool.auxiliary.values().any(|a| *a == gateway) {
            return Err(DockerError::new(
                403,
                "failed to allocate gateway (".to_owned() + &gateway.to_string() + "): Address already in use",
            ));
        }
        Ok(Self { gateway, ..pool })
    }

    pub fn is_v4(&self) -> bool {
        self.subnet.addr().is_ipv4()
    }

    /// The gateway with the subnet's prefix.
    pub fn gateway_net(&self) -> IpNet {
        self.with_prefix(self.gateway)
    }

    pub fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.subnet.prefix_len()).unwrap_or(self.subnet)
    }
}

fn exhausted() -> DockerError {
    DockerError::new(403, "no available IPv4 addresses on this network's address pools")
}

impl Addresses {
    pub fn new(pool: Pool) -> Self {
        let mut used: BTreeSet<IpAddr> = pool.auxiliary.values().copied().collect();
        used.insert(pool.gateway);
        Self { pool, used }
    }

    /// Takes the address that was asked for, or the lowest that is free.
    ///
    /// # Errors
    /// 403 when it is in use, or none is free.
    pub fn take(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr> {
        let taken = match wanted {
            Some(wanted) if self.used.contains(&wanted) => {
                return Err(DockerError::new(403, "Address already in use"));
            }
            Some(wanted) => wanted,
            None => self.lowest_free()?,
        };
        self.used.insert(taken);
        Ok(taken)
    }

    /// Marks what an earlier run gave away.
    pub fn claim(&mut self, address: IpAddr) {
        self.used.insert(address);
    }

    pub fn give_back(&mut self, address: IpAddr) {
        if address != self.pool.gateway && !self.pool.auxiliary.values().any(|a| *a == address) {
            self.used.remove(&address);
        }
    }

    /// Walks over what is in use until there is a gap, not over the addresses themselves.
    fn lowest_free(&self) -> Result<IpAddr> {
        let v4 = self.pool.is_v4();
        let (first, last) = bounds(self.pool.part.unwrap_or(self.pool.subnet), self.pool.subnet);
        let mut next = first;
        if first <= last {
            for used in self.used.range(address(first, v4)..=address(last, v4)) {
                if number(*used) != next {
                    break;
                }
                next += 1;
            }
        }
        if next > last {
            let family = if v4 { "IPv4" } else { "IPv6" };
            return Err(DockerError::new(
                403,
                format!("no available {family} addresses on this network's address pools: {}", self.pool.subnet),
            ));
        }
        Ok(address(next, v4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, part: Option<&str>) -> Addresses {
        let range = Range {
            subnet: subnet.parse().unwrap(),
            part: part.map(|p| p.parse().unwrap()),
            gateway: None,
            auxiliary: BTreeMap::new(),
        };
        Addresses::new(Pool::new(range, true).unwrap())
    }

    #[test]
    fn addresses_are_given_from_below_and_come_back() {
        let mut addresses = pool("10.0.0.0/29", None);
        assert_eq!(addresses.pool.gateway.to_string(), "10.0.0.1");
        let given: Vec<String> = (0..5).map(|_| addresses.take(None).unwrap().to_string()).collect();
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(addresses.take(None).unwrap_err().status, 403);
        addresses.give_back("10.0.0.4".parse().unwrap());
        addresses.give_back("10.0.0.1".parse().unwrap());
        assert_eq!(addresses.take(None).unwrap().to_string(), "10.0.0.4");
        assert_eq!(addresses.take(Some("10.0.0.4".parse().unwrap())).unwrap_err().message, "Address already in use");
    }

    #[test]
    fn a_part_of_the_subnet_is_given() {
        let mut addresses = pool("10.0.0.0/24", Some("10.0.0.128/30"));
        assert_eq!(addresses.pool.gateway.to_string(), "10.0.0.128");
        assert_eq!(addresses.take(None).unwrap().to_string(), "10.0.0.129");
        let mut six = pool("fd00:1::/64", None);
        assert_eq!(
            (six.pool.gateway.to_string(), six.take(None).unwrap().to_string()),
            ("fd00:1::1".into(), "fd00:1::2".into())
        );
    }

    #[test]
    fn subnets_avoid_what_is_there() {
        assert_eq!(choose_v4(&[]).unwrap().to_string(), "172.17.0.0/16");
        let taken = ["172.16.0.0/12".parse().unwrap(), "192.168.0.0/24".parse().unwrap()];
        assert_eq!(choose_v4(&taken).unwrap().to_string(), "192.168.16.0/20");
        assert!(choose_v4(&["0.0.0.0/0".parse().unwrap()]).is_err());
        assert_eq!(choose_v6("a"), choose_v6("a"));
        assert!(choose_v6("a").to_string().starts_with("fd"));
    }
}
