//! The rules of the bridge: who is masqueraded, which ports of the host lead to sandboxes. A table for each family.

use crate::Result;
use crate::bridge::Config;
use crate::record::{HostPort, Record, Records};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pintle_netlink::nft::{
    Batch, ChainKind, Connection, Data, Family, Field, Hook, Key, Nftables, Policy, Register, Set, SetName, Verdict,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The table; nothing else in nf_tables is ours.
const TABLE: &str = "pintle_pod";
/// Ports of all addresses of the host, and of one.
const ANY_ADDRESS: SetName<'static> = SetName::Named("host-ports");
const ONE_ADDRESS: SetName<'static> = SetName::Named("host-ports-of-address");
/// Pairs of an address with itself, for sandboxes that can meet themselves through a port of the host.
const SELF: SetName<'static> = SetName::Named("same-sandbox");
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
const MULTICAST_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4));
const MULTICAST_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8));
/// Protocol and type of the message that says that a neighbour is on the same link.
const REDIRECT_V4: (u8, u8) = (1, 5);
const REDIRECT_V6: (u8, u8) = (58, 137);

/// Puts the tables as a whole in place of what is there, each in one step.
pub(crate) fn replace(nft: &mut Nftables, config: &Config, records: &Records) -> Result<()> {
    replace_with(nft, config, records.iter().map(|(_, record)| record))
}

/// The same for all sandboxes but one.
pub(crate) fn replace_without(nft: &mut Nftables, config: &Config, records: &Records, gone: &str) -> Result<()> {
    replace_with(nft, config, records.iter().filter(|(id, _)| *id != gone).map(|(_, record)| record))
}

fn replace_with<'r>(
    nft: &mut Nftables,
    config: &Config,
    records: impl Iterator<Item = &'r Record> + Clone,
) -> Result<()> {
    for family in config.families() {
        let mut table = Table::begin(family);
        table.batch.replace_table();
        table.add_sets();
        table.add_chains(config);
        records.clone().for_each(|record| table.add_ports(record));
        nft.commit(table.batch)?;
    }
    Ok(())
}

/// Adds the ports of a sandbox.
pub(crate) fn publish(nft: &mut Nftables, config: &Config, record: &Record) -> Result<()> {
    for family in config.families() {
        let mut table = Table::begin(family);
        table.add_ports(record);
        nft.commit(table.batch)?;
    }
    Ok(())
}

/// Takes the ports of a sandbox away; fails if one of them is not there.
pub(crate) fn withdraw(nft: &mut Nftables, config: &Config, record: &Record) -> Result<()> {
    for family in config.families() {
        let mut table = Table::begin(family);
        table.delete_ports(record);
        nft.commit(table.batch)?;
    }
    Ok(())
}

/// Removes the tables.
pub(crate) fn remove(nft: &mut Nftables) -> Result<()> {
    for family in [Family::Ip, Family::Ip6] {
        nft.remove_table(family, TABLE)?;
    }
    Ok(())
}

fn same(address: IpAddr) -> Key {
    Key::new().address(address).address(address)
}

fn map_of(port: &HostPort) -> SetName<'static> {
    if port.address().is_some() { ONE_ADDRESS } else { ANY_ADDRESS }
}

fn port_key(port: &HostPort) -> Key {
    let key = port.address().map_or_else(Key::new, |address| Key::new().address(address));
    key.protocol(port.protocol.number()).port(port.host_port)
}

/// Changes of one family's table.
struct Table {
    family: Family,
    batch: Batch,
}

impl Table {
    fn begin(family: Family) -> Self {
        Self { family, batch: Batch::new(family, TABLE) }
    }

    fn add_ports(&mut self, record: &Record) {
        for (n, (port, address)) in record.ports(self.family).enumerate() {
            if n == 0 {
                self.batch.add_keys(SELF, [same(address)]);
            }
            let target = Key::new().address(address).port(port.sandbox_port);
            self.batch.add_values(map_of(port), [(port_key(port), target)]);
        }
    }

    fn delete_ports(&mut self, record: &Record) {
        for (n, (port, address)) in record.ports(self.family).enumerate() {
            if n == 0 {
                self.batch.delete_keys(SELF, [same(address)]);
            }
            self.batch.delete_keys(map_of(port), [port_key(port)]);
        }
    }

    fn add_sets(&mut self) {
        let address = self.family.address();
        let target = [address, Field::Port];
        let target = Data::Fields(&target);
        let sets: [(&str, &[Field], Data<'_>); 3] = [
            ("host-ports", &[Field::Protocol, Field::Port], target),
            ("host-ports-of-address", &[address, Field::Protocol, Field::Port], target),
            ("same-sandbox", &[address, address], Data::Nothing),
        ];
        for (name, key, data) in sets {
            self.batch.add_set(name, &Set { key, data, timeout_ms: None });
        }
    }

    fn add_chains(&mut self, config: &Config) {
        let (family, batch) = (self.family, &mut self.batch);
        batch.add_chain("host-ports");
        batch.add_base_chain("guard-prerouting", ChainKind::Filter, Hook::Prerouting, -300, Policy::Accept);
        batch.add_base_chain("guard-output", ChainKind::Filter, Hook::Output, 0, Policy::Accept);
        batch.add_base_chain("nat-prerouting", ChainKind::Nat, Hook::Prerouting, -100, Policy::Accept);
        batch.add_base_chain("nat-output", ChainKind::Nat, Hook::Output, -100, Policy::Accept);
        batch.add_base_chain("nat-postrouting", ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept);
        let bridge = config.bridge.as_str();
        if family == Family::Ip {
            // The bridge routes loopback addresses, so that ports of 127.0.0.1 can lead to sandboxes; sandboxes
            // themselves must not reach the host's loopback that way. IPv6 routes its loopback nowhere.
            let from_bridge = family.rule().input_is(bridge, true);
            batch.add_rule("guard-prerouting", from_bridge.destination_in(LOOPBACK, true).verdict(&Verdict::Drop));
        }
        // The host must not tell sandboxes that their neighbours are on the same link: they talk through the host.
        let (protocol, kind) = if family == Family::Ip6 { REDIRECT_V6 } else { REDIRECT_V4 };
        let redirect = family.rule().output_is(bridge, true).protocol_is(protocol).icmp_type_is(kind);
        batch.add_rule("guard-output", redirect.verdict(&Verdict::Drop));
        for hook in ["nat-prerouting", "nat-output"] {
            let local = family.rule().destination_is_local();
            batch.add_rule(hook, local.verdict(&Verdict::Jump("host-ports".into())));
        }
        self.add_port_rules();
        self.add_masquerade(config);
    }

    fn add_port_rules(&mut self) {
        let (family, width) = (self.family, self.family.address_registers());
        let register = Register::new;
        let of_address = family
            .rule()
            .load_destination(register(0))
            .load_protocol(register(width))
            .load_destination_port(register(width + 1))
            .lookup_into(ONE_ADDRESS, register(0), register(width + 2))
            .translate_destination(register(width + 2), Some(register(2 * width + 2)));
        self.batch.add_rule("host-ports", of_address);
        let of_any = family
            .rule()
            .load_protocol(register(0))
            .load_destination_port(register(1))
            .lookup_into(ANY_ADDRESS, register(0), register(2))
            .translate_destination(register(2), Some(register(2 + width)));
        self.batch.add_rule("host-ports", of_any);
    }

    fn add_masquerade(&mut self, config: &Config) {
        let (family, batch) = (self.family, &mut self.batch);
        let (chain, bridge) = ("nat-postrouting", config.bridge.as_str());
        if family == Family::Ip {
            let loopback = family.rule().output_is(bridge, true).source_in(LOOPBACK, true);
            batch.add_rule(chain, loopback.masquerade().comment("the host's own loopback"));
        }
        let itself = family
            .rule()
            .output_is(bridge, true)
            .connection_is(Connection::Translated, true)
            .load_source(Register::new(0))
            .load_destination(Register::new(family.address_registers()))
            .lookup(SELF, Register::new(0), true);
        batch.add_rule(chain, itself.masquerade().comment("a sandbox that meets itself"));
        let multicast = if family == Family::Ip6 { MULTICAST_V6 } else { MULTICAST_V4 };
        let of_family = |net: &&IpNet| family.has(net.addr());
        for subnet in config.pod_subnets.iter().filter(of_family) {
            let inside = config.cluster_subnets.iter().chain(&config.translated_subnets).chain([&multicast]);
            for net in inside.filter(of_family) {
                let within = family.rule().source_in(*subnet, true).destination_in(*net, true);
                batch.add_rule(chain, within.verdict(&Verdict::Return));
            }
            let outside = family.rule().source_in(*subnet, true).output_is(bridge, false);
            batch.add_rule(chain, outside.masquerade().comment("sandboxes to the outside"));
        }
    }
}
