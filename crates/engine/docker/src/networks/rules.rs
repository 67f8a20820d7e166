//! The rules of all networks: who is masqueraded, which ports lead where, and who may not reach whom.
//!
//! There is one table of each family. Its chains follow from the networks and are put in place as a whole when those
//! change; published ports are elements of maps and come and go one by one. To accept in one of these chains means only
//! that this table has no objection: what another table of the machine drops stays dropped.

use super::records::{Network, Publication};
use crate::error::{DockerError, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Family, Field, Hook, Key, Nftables, Policy, Register, Rule, Set, SetName,
    Verdict,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TABLE: &str = "pintle_docker";
/// Ports of all addresses of the host, and of one.
const ANY_ADDRESS: SetName<'static> = SetName::Named("ports");
const ONE_ADDRESS: SetName<'static> = SetName::Named("ports-of-address");
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
/// Nothing leaves the machine from there, whoever translates it: the daemon carries what is sent to it.
const LOOPBACK_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));

/// What the rules are made from.
pub(super) struct Plan<'a> {
    pub networks: Vec<&'a Network>,
    pub publications: Vec<&'a Publication>,
    /// This daemon has switched forwarding on: what does not concern its networks (or those named) stays forbidden.
    pub guard: Option<&'a [String]>,
}

pub(super) fn failed(error: impl std::fmt::Display) -> DockerError {
    DockerError::internal(format!("cannot set up networking: {error}"))
}

/// Puts both tables in place of what is there.
pub(super) fn replace(nft: &mut Nftables, plan: &Plan<'_>) -> Result<()> {
    for v6 in [false, true] {
        let mut batch = Batch::new(family(v6), TABLE);
        batch.replace_table();
        add_sets(&mut batch, v6);
        add_chains(&mut batch, plan, v6);
        plan.publications.iter().filter(|p| p.is_v6() == v6).for_each(|p| add(&mut batch, p));
        nft.commit(batch).map_err(failed)?;
    }
    Ok(())
}

/// Publishes further ports.
pub(super) fn publish(nft: &mut Nftables, publications: &[Publication]) -> Result<()> {
    change(nft, publications, add)
}

/// Takes ports back.
pub(super) fn withdraw(nft: &mut Nftables, publications: &[Publication]) -> Result<()> {
    change(nft, publications, |batch, p| batch.delete_keys(map_of(p), [key_of(p)]))
}

/// Removes both tables.
pub(super) fn remove(nft: &mut Nftables) -> Result<()> {
    for v6 in [false, true] {
        nft.remove_table(family(v6), TABLE).map_err(failed)?;
    }
    Ok(())
}

fn change(nft: &mut Nftables, publications: &[Publication], each: impl Fn(&mut Batch, &Publication)) -> Result<()> {
    for v6 in [false, true] {
        let mut batch = Batch::new(family(v6), TABLE);
        publications.iter().filter(|p| p.is_translated() && p.is_v6() == v6).for_each(|p| each(&mut batch, p));
        nft.commit(batch).map_err(failed)?;
    }
    Ok(())
}

fn family(v6: bool) -> Family {
    if v6 { Family::Ip6 } else { Family::Ip }
}

fn rule(v6: bool) -> Rule {
    if v6 { Rule::v6() } else { Rule::v4() }
}

fn map_of(publication: &Publication) -> SetName<'static> {
    if publication.host_address.is_unspecified() { ANY_ADDRESS } else { ONE_ADDRESS }
}

fn key_of(publication: &Publication) -> Key {
    let address = publication.host_address;
    let key = if address.is_unspecified() { Key::new() } else { Key::new().address(address) };
    key.protocol(publication.protocol.number()).port(publication.host_port)
}

fn add(batch: &mut Batch, publication: &Publication) {
    if publication.is_translated() {
        let target = Key::new().address(publication.target).port(publication.port);
        batch.add_values(map_of(publication), [(key_of(publication), target)]);
    }
}

fn add_sets(batch: &mut Batch, v6: bool) {
    let address = if v6 { Field::Ipv6 } else { Field::Ipv4 };
    let target = [address, Field::Port];
    let one = [address, Field::Protocol, Field::Port];
    let data = Data::Fields(&target);
    batch.add_set("ports", &Set { key: &[Field::Protocol, Field::Port], data, timeout_ms: None });
    batch.add_set("ports-of-address", &Set { key: &one, data, timeout_ms: None });
}

fn add_chains(batch: &mut Batch, plan: &Plan<'_>, v6: bool) {
    batch.add_chain("published");
    batch.add_base_chain("guard-prerouting", ChainKind::Filter, Hook::Prerouting, -300, Policy::Accept);
    batch.add_base_chain("forward", ChainKind::Filter, Hook::Forward, 0, Policy::Accept);
    batch.add_base_chain("nat-prerouting", ChainKind::Nat, Hook::Prerouting, -100, Policy::Accept);
    batch.add_base_chain("nat-output", ChainKind::Nat, Hook::Output, -100, Policy::Accept);
    batch.add_base_chain("nat-postrouting", ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept);
    for hook in ["nat-prerouting", "nat-output"] {
        let local = if v6 { rule(v6).destination_in(LOOPBACK_V6, false) } else { rule(v6) };
        batch.add_rule(hook, local.destination_is_local().verdict(&Verdict::Jump("published".into())));
    }
    add_published(batch, v6);
    for network in plan.networks.iter().filter(|n| n.is_bridge() && n.subnet(v6).is_some()) {
        add_network(batch, network, v6);
    }
    // A network without this family forwards nothing of it either.
    for network in plan.networks.iter().filter(|n| n.is_bridge() && n.subnet(v6).is_none()) {
        let bridge = network.bridge.as_str();
        batch.add_rule("forward", rule(v6).input_is(bridge, true).verdict(&Verdict::Drop));
        batch.add_rule("forward", rule(v6).output_is(bridge, true).verdict(&Verdict::Drop));
    }
    if let Some(others) = plan.guard {
        add_guard(batch, plan, others, v6);
    }
}

fn add_published(batch: &mut Batch, v6: bool) {
    // An IPv6 address fills four registers of 4 bytes.
    let width = if v6 { 4 } else { 1 };
    let register = Register::new;
    batch.add_rule(
        "published",
        rule(v6)
            .load_destination(register(0))
            .load_protocol(register(width))
            .load_destination_port(register(width + 1))
            .lookup_into(ONE_ADDRESS, register(0), register(0))
            .translate_destination(register(0), Some(register(width))),
    );
    batch.add_rule(
        "published",
        rule(v6)
            .load_protocol(register(0))
            .load_destination_port(register(1))
            .lookup_into(ANY_ADDRESS, register(0), register(4))
            .translate_destination(register(4), Some(register(4 + width))),
    );
}

fn add_network(batch: &mut Batch, network: &Network, v6: bool) {
    let bridge = network.bridge.as_str();
    let Some(subnet) = network.subnet(v6) else { return };
    if !v6 {
        // The bridge routes loopback addresses, so that ports of 127.0.0.1 can lead to containers; containers
        // themselves must not reach the host's loopback that way.
        let guard = rule(v6).input_is(bridge, true).destination_in(LOOPBACK, true);
        batch.add_rule("guard-prerouting", guard.verdict(&Verdict::Drop));
        let own = rule(v6).output_is(bridge, true).source_in(LOOPBACK, true);
        batch.add_rule("nat-postrouting", own.masquerade().comment("the host's own loopback"));
    }
    let forward = |batch: &mut Batch, rule: Rule, verdict: &Verdict| batch.add_rule("forward", rule.verdict(verdict));
    let into = || rule(v6).output_is(bridge, true);
    if network.internal {
        forward(batch, into().input_is(bridge, false), &Verdict::Drop);
        forward(batch, rule(v6).input_is(bridge, true).output_is(bridge, false), &Verdict::Drop);
        return;
    }
    forward(batch, into().connection_is(Connection::Established, true), &Verdict::Accept);
    forward(batch, into().connection_is(Connection::Translated, true), &Verdict::Accept);
    if network.has_icc() {
        forward(batch, into().input_is(bridge, false).connection_is(Connection::New, true), &Verdict::Drop);
    } else {
        forward(batch, into().connection_is(Connection::New, true), &Verdict::Drop);
    }
    // Neighbours that meet through a port of the host: the answer must come back through the host as well.
    let meeting = into().source_in(subnet, true).connection_is(Connection::Translated, true);
    batch.add_rule("nat-postrouting", meeting.masquerade().comment("neighbours through a port of the host"));
    if network.masquerades() {
        let leaving = rule(v6).source_in(subnet, true).output_is(bridge, false);
        batch.add_rule("nat-postrouting", leaving.masquerade().comment("containers to the outside"));
    }
}

/// Forwarding between other interfaces was off before, and stays off.
fn add_guard(batch: &mut Batch, plan: &Plan<'_>, others: &[String], v6: bool) {
    batch.add_chain("not-ours");
    let bridges = plan.networks.iter().filter(|n| n.is_bridge()).map(|n| &n.bridge);
    for link in bridges.chain(others) {
        batch.add_rule("not-ours", rule(v6).input_is(link, true).verdict(&Verdict::Return));
        batch.add_rule("not-ours", rule(v6).output_is(link, true).verdict(&Verdict::Return));
    }
    batch.add_rule("not-ours", rule(v6).verdict(&Verdict::Drop));
    batch.add_rule("forward", rule(v6).verdict(&Verdict::Jump("not-ours".into())));
}

/// Within a container: what asks port 53 of the resolver's address reaches the port where it listens. The container may
/// use port 53 itself.
pub(super) fn lead_to_resolver(nft: &mut Nftables, resolver: IpAddr, udp: u16, tcp: u16) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, "pintle_resolver");
    batch.replace_table();
    batch.add_base_chain("output", ChainKind::Nat, Hook::Output, -100, Policy::Accept);
    let set = "resolver";
    let target = [Field::Ipv4, Field::Port];
    let key = [Field::Protocol, Field::Port];
    batch.add_set(set, &Set { key: &key, data: Data::Fields(&target), timeout_ms: None });
    let elements = [(17, udp), (6, tcp)]
        .map(|(protocol, port)| (Key::new().protocol(protocol).port(53), Key::new().address(resolver).port(port)));
    batch.add_values(SetName::Named(set), elements);
    let own = IpNet::from(resolver);
    batch.add_rule(
        "output",
        Rule::v4()
            .destination_in(own, true)
            .load_protocol(Register::new(0))
            .load_destination_port(Register::new(1))
            .lookup_into(SetName::Named(set), Register::new(0), Register::new(2))
            .translate_destination(Register::new(2), Some(Register::new(3))),
    );
    nft.commit(batch).map_err(failed)
}
