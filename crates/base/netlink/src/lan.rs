//! A link that several network namespaces are on, as machines are on a switch: a bridge, and a pair of interfaces each.
//!
//! The bridge has the first address of the link's network and is everybody's way to the outside; machine 0 has the
//! second, machine 1 the third, and so on.

use crate::route::{Bridge, HardwareAddress, LinkChange, Peer, Route, Scope, Veth};
use crate::{Error, Netlink, Result, forgive_missing};
use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

const MTU: u32 = 1500;
/// What a machine calls its interface.
const INTERFACE: &str = "eth0";

/// The link, seen from the namespace that the bridge is in.
pub struct Lan {
    netlink: Netlink,
    bridge: String,
    net: Ipv4Net,
}

impl Lan {
    /// Makes the bridge in the namespace of `netlink`.
    pub fn create(mut netlink: Netlink, bridge: &str, net: Ipv4Net) -> Result<Self> {
        let [a, b, c, d] = net.network().octets();
        let hardware = HardwareAddress([0x02, 0x70, a, b, c, d]);
        netlink.add_bridge(&Bridge { name: bridge, mtu: MTU, hardware })?;
        let mut lan = Self::open(netlink, bridge, net);
        let index = lan.index(bridge)?;
        let gateway = prefixed(lan.gateway(), net);
        lan.netlink.add_address(index, gateway)?;
        Ok(lan)
    }

    /// A link whose bridge was made before.
    pub fn open(netlink: Netlink, bridge: &str, net: Ipv4Net) -> Self {
        Self { netlink, bridge: bridge.to_owned(), net }
    }

    /// The address of the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        nth(self.net, 1)
    }

    /// The address of a machine.
    pub fn address(&self, machine: u8) -> Ipv4Addr {
        address(self.net, machine)
    }

    /// Gives a namespace its interface, address and way to the outside. `port` names the bridge's end.
    pub fn connect(&mut self, port: &str, namespace: BorrowedFd<'_>, machine: u8) -> Result<()> {
        let master = Some(self.index(&self.bridge.clone())?);
        let peer = Peer { name: INTERFACE, hardware: None, namespace: Some(namespace) };
        self.netlink.add_veth(&Veth { name: port, mtu: MTU, master, group: 0, peer })?;
        let mut inside = Netlink::in_namespace(namespace)?;
        let found = inside.link(INTERFACE)?.ok_or_else(|| missing(INTERFACE))?;
        inside.set_link(found.index, &LinkChange { up: Some(true), ..LinkChange::default() })?;
        inside.add_address(found.index, prefixed(self.address(machine), self.net))?;
        inside.set_route(&Route {
            destination: Ipv4Net::default().into(),
            gateway: Some(self.gateway().into()),
            link: Some(found.index),
            scope: Scope::Universe,
            source: None,
        })
    }

    /// Takes a port off the bridge; the machine does not notice by its own interface.
    pub fn cut(&mut self, port: &str) -> Result<()> {
        self.set_master(port, 0)
    }

    /// Puts it back.
    pub fn heal(&mut self, port: &str) -> Result<()> {
        let bridge = self.index(&self.bridge.clone())?;
        self.set_master(port, bridge)
    }

    /// Removes the bridge; ports go with their machines' namespaces. Nothing there is success.
    pub fn remove(&mut self) -> Result<()> {
        forgive_missing(self.netlink.delete_link_named(&self.bridge))
    }

    fn set_master(&mut self, port: &str, master: u32) -> Result<()> {
        let index = self.index(port)?;
        self.netlink.set_link(index, &LinkChange { master: Some(master), ..LinkChange::default() })
    }

    fn index(&mut self, name: &str) -> Result<u32> {
        self.netlink.link(name)?.map(|link| link.index).ok_or_else(|| missing(name))
    }
}

/// The address of a machine on a link with this network.
pub fn address(net: Ipv4Net, machine: u8) -> Ipv4Addr {
    nth(net, 2 + u32::from(machine))
}

fn nth(net: Ipv4Net, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).wrapping_add(number))
}

fn prefixed(address: Ipv4Addr, net: Ipv4Net) -> IpNet {
    Ipv4Net::new(address, net.prefix_len()).unwrap_or(net).into()
}

fn missing(link: &str) -> Error {
    Error::Refused {
        doing: format!("look up the link {link}"),
        source: std::io::Error::from_raw_os_error(libc::ENODEV),
        detail: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn machines_on_a_link_meet_unless_one_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["switch", "a", "b"].map(|name| folder.path().join(name));
        let spaces = paths.each_ref().map(|path| {
            namespace::create(path).expect("needs root");
            namespace::open(path).unwrap()
        });
        let net: Ipv4Net = "192.0.2.0/24".parse().unwrap();
        let mut lan = Lan::create(Netlink::in_namespace(spaces[0].as_fd()).unwrap(), "lan0", net).unwrap();
        lan.connect("port-a", spaces[1].as_fd(), 0).unwrap();
        lan.connect("port-b", spaces[2].as_fd(), 1).unwrap();
        assert_eq!((lan.gateway().to_string(), lan.address(1).to_string()), ("192.0.2.1".into(), "192.0.2.3".into()));
        let listener = namespace::enter(spaces[1].as_fd(), || TcpListener::bind("0.0.0.0:0").unwrap()).unwrap();
        let to = (lan.address(0), listener.local_addr().unwrap().port()).into();
        let call = |from: usize, wait| {
            let work = || TcpStream::connect_timeout(&to, Duration::from_millis(wait)).is_ok();
            namespace::enter(spaces[from].as_fd(), work).unwrap()
        };
        assert!(call(2, 5000) && call(0, 5000), "a machine and the bridge's own reach it");
        lan.cut("port-a").unwrap();
        assert!(!call(2, 200));
        lan.heal("port-a").unwrap();
        assert!(call(2, 5000));
        lan.remove().unwrap();
        lan.remove().unwrap();
        paths.iter().for_each(|path| namespace::delete(path).unwrap());
    }
}
