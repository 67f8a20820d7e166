//! Routes of the main table.

use super::{AddressBytes, Netlink, family, parse_address};
use crate::Result;
use crate::socket::flag;
use crate::wire;
use ipnet::IpNet;
use std::net::IpAddr;

/// Bytes of `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// `RTNH_F_ONLINK` (linux/rtnetlink.h).
const ONLINK: u32 = 4;

/// How far away a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Behind a gateway.
    Universe,
    /// Behind a gateway that is on the link, though no address of the link says so.
    OnLink,
    /// On the link itself.
    Link,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A prefix of length 0 is the default route.
    pub destination: IpNet,
    pub gateway: Option<IpAddr>,
    /// The link's index.
    pub link: Option<u32>,
    pub scope: Scope,
    /// The address that the host's own packets get.
    pub source: Option<IpAddr>,
}

impl Netlink {
    /// All unicast routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        self.socket.dump(libc::RTM_GETROUTE, &[0; ROUTE_HEADER], "list routes", |message| {
            routes.extend(parse(message.payload));
        })?;
        Ok(routes)
    }

    /// Adds a route, or changes the one to the same destination.
    pub fn set_route(&mut self, route: &Route) -> Result<()> {
        self.change_route(libc::RTM_NEWROUTE, flag(libc::NLM_F_CREATE | libc::NLM_F_REPLACE), "set", route)
    }

    /// Deletes a route.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.change_route(libc::RTM_DELROUTE, 0, "delete", route)
    }

    fn change_route(&mut self, kind: u16, flags: u16, verb: &str, route: &Route) -> Result<()> {
        let destination = route.destination.trunc();
        let mut header = [0; ROUTE_HEADER];
        header[0] = family(destination.addr());
        header[1] = destination.prefix_len();
        header[4] = libc::RT_TABLE_MAIN;
        header[5] = libc::RTPROT_STATIC;
        header[6] = match route.scope {
            Scope::Universe | Scope::OnLink => libc::RT_SCOPE_UNIVERSE,
            Scope::Link => libc::RT_SCOPE_LINK,
        };
        header[7] = libc::RTN_UNICAST;
        if route.scope == Scope::OnLink {
            header[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
        }
        self.socket.request(
            kind,
            flags,
            &header,
            || format!("{verb} route to {destination}"),
            |w| {
                if destination.prefix_len() > 0 {
                    w.attribute(libc::RTA_DST, AddressBytes::of(destination.addr()).as_slice());
                }
                if let Some(gateway) = route.gateway {
                    w.attribute(libc::RTA_GATEWAY, AddressBytes::of(gateway).as_slice());
                }
                if let Some(link) = route.link {
                    w.u32(libc::RTA_OIF, link);
                }
                if let Some(source) = route.source {
                    w.attribute(libc::RTA_PREFSRC, AddressBytes::of(source).as_slice());
                }
            },
        )
    }
}

fn parse(payload: &[u8]) -> Option<Route> {
    let header: [u8; ROUTE_HEADER] = payload.get(..ROUTE_HEADER)?.try_into().ok()?;
    if header[4] != libc::RT_TABLE_MAIN || header[7] != libc::RTN_UNICAST {
        return None;
    }
    let attributes = &payload[ROUTE_HEADER..];
    let address = |kind| wire::attribute(attributes, kind).and_then(parse_address);
    let any = if i32::from(header[0]) == libc::AF_INET {
        IpAddr::from([0_u8; 4])
    } else if i32::from(header[0]) == libc::AF_INET6 {
        IpAddr::from([0_u8; 16])
    } else {
        return None;
    };
    Some(Route {
        destination: IpNet::new(address(libc::RTA_DST).unwrap_or(any), header[1]).ok()?,
        gateway: address(libc::RTA_GATEWAY),
        link: wire::attribute(attributes, libc::RTA_OIF).and_then(|bytes| wire::u32_at(bytes, 0)),
        scope: match (header[6] == libc::RT_SCOPE_LINK, wire::u32_at(&header, 8)? & ONLINK != 0) {
            (true, _) => Scope::Link,
            (false, true) => Scope::OnLink,
            (false, false) => Scope::Universe,
        },
        source: address(libc::RTA_PREFSRC),
    })
}
