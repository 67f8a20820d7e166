//! What nodes of a cluster on one machine are joined by: a bridge, and the way to the outside through this machine.

use super::plan::Plan;
use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net};
use pintle_netlink::lan::Lan;
use pintle_netlink::nft::{Batch, ChainKind, Family, Hook, Nftables, Policy};
use pintle_netlink::{Netlink, namespace};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// The networks that are tried: 172.30.200.0/24 and on.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 200, 0);
const TRIED: u32 = 55;
/// The priority of source translation (nft(8)).
const SOURCE_NAT: i32 = 100;

/// The network of the flag, or the first that this machine doesn't know a way to.
pub(super) fn choose(wanted: Option<&str>) -> Result<Ipv4Net> {
    if let Some(text) = wanted {
        let net: Ipv4Net =
            text.parse().with_context(|| format!("--subnet {text:?} is no range like 172.30.200.0/24"))?;
        ensure!(net.prefix_len() == 24, "--subnet {text}: it must be a /24");
        return Ok(net.trunc());
    }
    let mut netlink = Netlink::open()?;
    let routes = netlink.routes()?.into_iter().map(|route| route.destination);
    let addresses = netlink.addresses()?.into_iter().map(|found| found.address);
    let taken: Vec<IpNet> = routes.chain(addresses).filter(|net| net.prefix_len() > 0).collect();
    free(&taken)
}

fn free(taken: &[IpNet]) -> Result<Ipv4Net> {
    let meets = |net: Ipv4Net| {
        let net = IpNet::V4(net);
        taken.iter().any(|other| other.contains(&net) || net.contains(other) || net.contains(&other.addr()))
    };
    for number in 0..TRIED {
        let net = Ipv4Net::new(Ipv4Addr::from(u32::from(FIRST) + (number << 8)), 24)?;
        if !meets(net) {
            return Ok(net);
        }
    }
    bail!("all networks from {FIRST}/24 on are in use: name one with --subnet")
}

/// Whether this machine passes packets on.
pub(super) fn forwards() -> bool {
    std::fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "1")
}

fn set_forwarding(on: bool) -> Result<()> {
    std::fs::write(FORWARDING, if on { "1" } else { "0" }).with_context(|| format!("set {FORWARDING}"))
}

/// Makes the bridge, the nodes' namespaces on it, and the way to the outside.
pub(super) fn make(plan: &Plan) -> Result<()> {
    let mut lan = Lan::create(Netlink::open()?, &plan.bridge(), plan.net)?;
    for machine in plan.machines() {
        let path = machine.net_path();
        namespace::create(&path)?;
        lan.connect(&plan.port(&machine), namespace::open(&path)?.as_fd(), machine.number)?;
    }
    if plan.stop_forwarding {
        set_forwarding(true)?;
    }
    let (chain, net) = ("postrouting", IpNet::V4(plan.net));
    let mut batch = Batch::new(Family::Ip, &plan.table());
    batch.replace_table();
    batch.add_base_chain(chain, ChainKind::Nat, Hook::Postrouting, SOURCE_NAT, Policy::Accept);
    let outside = Family::Ip.rule().source_in(net, true).output_is(&plan.bridge(), false);
    batch.add_rule(chain, outside.masquerade().comment("nodes to the outside"));
    Ok(Nftables::open()?.commit(batch)?)
}

/// Takes all of it away; what is not there is no failure.
pub(super) fn remove(plan: &Plan) -> Result<()> {
    Lan::open(Netlink::open()?, &plan.bridge(), plan.net).remove()?;
    Nftables::open()?.remove_table(Family::Ip, &plan.table())?;
    if plan.stop_forwarding {
        set_forwarding(false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_chosen_that_nobody_has() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        assert_eq!(free(&[]).unwrap().to_string(), "172.30.200.0/24");
        assert_eq!(free(&nets(&["172.30.200.7/32", "172.30.201.0/25"])).unwrap().to_string(), "172.30.202.0/24");
        assert!(free(&nets(&["172.16.0.0/12"])).unwrap_err().to_string().contains("--subnet"));
        assert_eq!(choose(Some("10.9.8.7/24")).unwrap().to_string(), "10.9.8.0/24");
        assert!(choose(Some("10.9.0.0/16")).is_err() && choose(Some("x")).is_err());
    }
}
