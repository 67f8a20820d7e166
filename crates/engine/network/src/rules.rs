//! The rules of the bridge: who is masqueraded, which ports of the host lead to sandboxes.

use crate::Result;
use crate::bridge::Config;
use crate::record::{HostPort, Record};
use ipnet::{IpNet, Ipv4Net};
use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Family, Field, Hook, Key, Nftables, Policy, Register, Rule, Set, SetName,
    Verdict,
};
use std::net::{IpAddr, Ipv4Addr};

/// The table; nothing else in nf_tables is ours.
const TABLE: &str = "pintle_pod";
/// Ports of all addresses of the host, and of one.
const ANY_ADDRESS: SetName<'static> = SetName::Named("host-ports");
const ONE_ADDRESS: SetName<'static> = SetName::Named("host-ports-of-address");
/// Pairs of an address with itself, for sandboxes that can meet themselves through a port of the host.
const SELF: SetName<'static> = SetName::Named("same-sandbox");
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
const MULTICAST: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4));

const R0: Register = Register::new(0);
const R1: Register = Register::new(1);
const R2: Register = Register::new(2);
const R3: Register = Register::new(3);
const R4: Register = Register::new(4);

/// Puts the whole table in place of what is there, in one step.
pub(crate) fn replace<'r>(
    nft: &mut Nftables,
    config: &Config,
    records: impl Iterator<Item = &'r Record>,
) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    batch.replace_table();
    add_sets(&mut batch);
    add_chains(&mut batch, config);
    for record in records {
        add_ports(&mut batch, record);
    }
    Ok(nft.commit(batch)?)
}

/// Adds the ports of a sandbox.
pub(crate) fn publish(nft: &mut Nftables, record: &Record) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    add_ports(&mut batch, record);
    Ok(nft.commit(batch)?)
}

/// Takes the ports of a sandbox away; fails if one of them is not there.
pub(crate) fn withdraw(nft: &mut Nftables, record: &Record) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    if !record.host_ports.is_empty() {
        batch.delete_keys(SELF, [self_key(record)]);
    }
    for port in &record.host_ports {
        batch.delete_keys(map_of(port), [port_key(port)]);
    }
    Ok(nft.commit(batch)?)
}

/// Removes the table.
pub(crate) fn remove(nft: &mut Nftables) -> Result<()> {
    Ok(nft.remove_table(Family::Ip, TABLE)?)
}

fn add_ports(batch: &mut Batch, record: &Record) {
    if !record.host_ports.is_empty() {
        batch.add_keys(SELF, [self_key(record)]);
    }
    for port in &record.host_ports {
        let target = Key::new().address(record.address.into()).port(port.sandbox_port);
        batch.add_values(map_of(port), [(port_key(port), target)]);
    }
}

fn self_key(record: &Record) -> Key {
    Key::new().address(record.address.into()).address(record.address.into())
}

fn map_of(port: &HostPort) -> SetName<'static> {
    if port.address().is_some() { ONE_ADDRESS } else { ANY_ADDRESS }
}

fn port_key(port: &HostPort) -> Key {
    let key = port.address().map_or_else(Key::new, |address| Key::new().address(address));
    key.protocol(port.protocol.number()).port(port.host_port)
}

fn add_sets(batch: &mut Batch) {
    let target = Data::Fields(&[Field::Ipv4, Field::Port]);
    let sets: [(SetName<'_>, &[Field], Data<'_>); 3] = [
        (ANY_ADDRESS, &[Field::Protocol, Field::Port], target),
        (ONE_ADDRESS, &[Field::Ipv4, Field::Protocol, Field::Port], target),
        (SELF, &[Field::Ipv4, Field::Ipv4], Data::Nothing),
    ];
    for (name, key, data) in sets {
        if let SetName::Named(name) = name {
            batch.add_set(name, &Set { key, data, timeout_ms: None });
        }
    }
}

fn add_chains(batch: &mut Batch, config: &Config) {
    batch.add_chain("host-ports");
    batch.add_base_chain("guard-prerouting", ChainKind::Filter, Hook::Prerouting, -300, Policy::Accept);
    batch.add_base_chain("guard-output", ChainKind::Filter, Hook::Output, 0, Policy::Accept);
    batch.add_base_chain("nat-prerouting", ChainKind::Nat, Hook::Prerouting, -100, Policy::Accept);
    batch.add_base_chain("nat-output", ChainKind::Nat, Hook::Output, -100, Policy::Accept);
    batch.add_base_chain("nat-postrouting", ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept);
    let bridge = config.bridge.as_str();
    // The bridge routes loopback addresses, so that ports of 127.0.0.1 can lead to sandboxes; sandboxes themselves
    // must not reach the host's loopback that way.
    batch.add_rule(
        "guard-prerouting",
        Rule::v4().input_is(bridge, true).destination_in(LOOPBACK, true).verdict(&Verdict::Drop),
    );
    // The host must not tell sandboxes that their neighbours are on the same link: they talk through the host.
    batch.add_rule(
        "guard-output",
        Rule::v4().output_is(bridge, true).protocol_is(1).icmp_type_is(5).verdict(&Verdict::Drop),
    );
    for hook in ["nat-prerouting", "nat-output"] {
        batch.add_rule(hook, Rule::v4().destination_is_local().verdict(&Verdict::Jump("host-ports".into())));
    }
    add_port_rules(batch);
    add_masquerade(batch, config);
}

fn add_port_rules(batch: &mut Batch) {
    batch.add_rule(
        "host-ports",
        Rule::v4()
            .load_destination(R0)
            .load_protocol(R1)
            .load_destination_port(R2)
            .lookup_into(ONE_ADDRESS, R0, R3)
            .translate_destination(R3, Some(R4)),
    );
    batch.add_rule(
        "host-ports",
        Rule::v4()
            .load_protocol(R0)
            .load_destination_port(R1)
            .lookup_into(ANY_ADDRESS, R0, R2)
            .translate_destination(R2, Some(R3)),
    );
}

fn add_masquerade(batch: &mut Batch, config: &Config) {
    let (chain, bridge) = ("nat-postrouting", config.bridge.as_str());
    let subnet = IpNet::V4(config.pod_subnet);
    batch.add_rule(
        chain,
        Rule::v4().output_is(bridge, true).source_in(LOOPBACK, true).masquerade().comment("the host's own loopback"),
    );
    batch.add_rule(
        chain,
        Rule::v4()
            .output_is(bridge, true)
            .connection_is(Connection::Translated, true)
            .load_source(R0)
            .load_destination(R1)
            .lookup(SELF, R0, true)
            .masquerade()
            .comment("a sandbox that meets itself"),
    );
    let inside = config.cluster_subnets.iter().chain(&config.translated_subnets).chain([&MULTICAST]);
    for net in inside.filter(|net| matches!(net, IpNet::V4(_))) {
        batch.add_rule(chain, Rule::v4().source_in(subnet, true).destination_in(*net, true).verdict(&Verdict::Return));
    }
    batch.add_rule(
        chain,
        Rule::v4().source_in(subnet, true).output_is(bridge, false).masquerade().comment("sandboxes to the outside"),
    );
}

/// The address family that host ports are published for.
pub(crate) fn is_supported(port: &HostPort) -> bool {
    !matches!(port.address(), Some(IpAddr::V6(_)))
}
