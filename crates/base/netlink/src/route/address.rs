//! The addresses of links.

use super::{AddressBytes, Netlink, family, parse_address};
use crate::Result;
use crate::socket::flag;
use crate::wire;
use ipnet::IpNet;
use std::net::IpAddr;

/// Bytes of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub link: u32,
    /// With the length of the prefix that is on the link.
    pub address: IpNet,
}

impl Netlink {
    /// All addresses of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        self.socket.dump(libc::RTM_GETADDR, &[0; ADDRESS_HEADER], "list addresses", |message| {
            addresses.extend(parse(message.payload));
        })?;
        Ok(addresses)
    }

    /// Gives a link an address.
    pub fn add_address(&mut self, link: u32, address: IpNet) -> Result<()> {
        self.change_address(libc::RTM_NEWADDR, flag(libc::NLM_F_CREATE | libc::NLM_F_EXCL), "add", link, address)
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, link: u32, address: IpNet) -> Result<()> {
        self.change_address(libc::RTM_DELADDR, 0, "delete", link, address)
    }

    fn change_address(&mut self, kind: u16, flags: u16, verb: &str, link: u32, address: IpNet) -> Result<()> {
        let mut header = [0; ADDRESS_HEADER];
        header[0] = family(address.addr());
        header[1] = address.prefix_len();
        if address.addr().is_ipv6() {
            // The address is ours to give: waiting for others to object would delay the sandbox by a second.
            header[2] = libc::IFA_F_NODAD as u8;
        }
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        let bytes = AddressBytes::of(address.addr());
        self.socket.request(
            kind,
            flags,
            &header,
            || format!("{verb} address {address} of link {link}"),
            |w| {
                w.attribute(libc::IFA_LOCAL, bytes.as_slice());
                w.attribute(libc::IFA_ADDRESS, bytes.as_slice());
            },
        )
    }
}

fn parse(payload: &[u8]) -> Option<Address> {
    let prefix = *payload.get(1)?;
    let link = wire::u32_at(payload, 4)?;
    let attributes = payload.get(ADDRESS_HEADER..)?;
    // IPv6 has no local attribute; on a point-to-point link the local one is ours.
    let bytes =
        wire::attribute(attributes, libc::IFA_LOCAL).or_else(|| wire::attribute(attributes, libc::IFA_ADDRESS))?;
    let address: IpAddr = parse_address(bytes)?;
    Some(Address { link, address: IpNet::new(address, prefix).ok()? })
}
