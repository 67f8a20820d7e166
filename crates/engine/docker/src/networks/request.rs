//! What may be asked of networks: a new one, and its address ranges, checked in the words of the Engine.

use crate::error::{DockerError, Result};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// More address ranges than this in one network are refused.
const MAX_RANGES: usize = 64;

/// One address range, as the client writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamRange {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "Option::is_none")]
    pub auxiliary: Option<BTreeMap<String, String>>,
}

/// How addresses are given away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Option<Vec<IpamRange>>,
}

/// A new network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateRequest {
    pub name: String,
    pub driver: String,
    pub scope: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    pub config_from: Option<ConfigFrom>,
    pub options: Option<BTreeMap<String, String>>,
    pub labels: Option<BTreeMap<String, String>>,
}

/// The network whose settings are taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigFrom {
    pub network: String,
}

/// An address range that has been understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub subnet: IpNet,
    /// The part of the subnet from which addresses are given; the whole without it.
    pub part: Option<IpNet>,
    pub gateway: Option<IpAddr>,
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// Several complaints as one: a list only when there is more than one.
pub(crate) fn joined(errors: &[String]) -> String {
    match errors {
        [only] => only.clone(),
        several => format!("* {}", several.join("\n* ")),
    }
}

impl Ipam {
    /// The ranges of the families that are enabled.
    ///
    /// # Errors
    /// 400 with everything that is wrong.
    pub(crate) fn ranges(&self, ipv6: bool) -> Result<Vec<Range>> {
        let given = self.config.as_deref().unwrap_or_default();
        if given.len() > MAX_RANGES {
            return Err(DockerError::invalid(format!("invalid network config:\nmore than {MAX_RANGES} subnets")));
        }
        let (mut errors, mut ranges) = (Vec::new(), Vec::new());
        for one in given {
            // Without a subnet the daemon chooses one; what else is said would have nothing to belong to.
            if one.subnet.is_empty() && *one == IpamRange::default() {
                continue;
            }
            if let Some(range) = parse(one, &mut errors)
                && (ipv6 || range.subnet.addr().is_ipv4())
            {
                ranges.push(range);
            }
        }
        if errors.is_empty() {
            return Ok(ranges);
        }
        Err(DockerError::invalid(format!("invalid network config:\n{}", joined(&errors))))
    }
}

fn parse(given: &IpamRange, errors: &mut Vec<String>) -> Option<Range> {
    let text = &given.subnet;
    let Ok(subnet) = text.parse::<IpNet>() else {
        errors.push(format!("invalid subnet {text}: invalid CIDR block notation"));
        return None;
    };
    let before = errors.len();
    if subnet != subnet.trunc() {
        errors.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    let part = part_of(&given.ip_range, subnet, errors);
    let gateway = address_in("gateway", &given.gateway, &given.gateway, subnet, errors);
    let mut auxiliary = BTreeMap::new();
    for (name, address) in given.auxiliary.iter().flatten() {
        if let Some(address) = address_in("auxiliary address", name, address, subnet, errors) {
            auxiliary.insert(name.clone(), address);
        }
    }
    (errors.len() == before).then_some(Range { subnet, part, gateway, auxiliary })
}

fn part_of(text: &str, subnet: IpNet, errors: &mut Vec<String>) -> Option<IpNet> {
    if text.is_empty() {
        return None;
    }
    let Ok(part) = text.parse::<IpNet>() else {
        errors.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
        return None;
    };
    if part.addr().is_ipv4() != subnet.addr().is_ipv4() {
        errors.push(format!("invalid ip-range {part}: parent subnet is an {} block", family(subnet)));
        return None;
    }
    let before = errors.len();
    if part.prefix_len() < subnet.prefix_len() {
        errors.push(format!("invalid ip-range {part}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if part != part.trunc() {
        errors.push(format!("invalid ip-range {part}: it should be {}", part.trunc()));
    }
    if !subnet.trunc().contains(&part.addr()) {
        errors.push(format!("invalid ip-range {part}: parent subnet {subnet} doesn't contain ip-range"));
    }
    (errors.len() == before).then_some(part)
}

fn address_in(what: &str, name: &str, text: &str, subnet: IpNet, errors: &mut Vec<String>) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    let mut bad = |why: String| {
        errors.push(format!("invalid {what} {name}: {why}"));
        None
    };
    match text.parse::<IpAddr>() {
        Err(_) => bad("invalid address".to_owned()),
        Ok(address) if address.is_ipv4() != subnet.addr().is_ipv4() => {
            bad(format!("parent subnet is an {} block", family(subnet)))
        }
        Ok(address) if !subnet.trunc().contains(&address) => {
            bad(format!("parent subnet {subnet} doesn't contain this address"))
        }
        Ok(address) => Some(address),
    }
}

fn family(net: IpNet) -> &'static str {
    if net.addr().is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Bridge options of a new network, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BridgeOptions {
    pub name: Option<String>,
    pub mtu: Option<u32>,
    pub binding: Option<IpAddr>,
}

/// Reads `com.docker.network.…` options and refuses those that make no sense.
///
/// # Errors
/// 400 with the option that is wrong.
pub(crate) fn bridge_options(options: &BTreeMap<String, String>) -> Result<BridgeOptions> {
    let mut read = BridgeOptions::default();
    for (key, value) in options {
        let bad =
            |kind: &str| Err(DockerError::invalid(format!("failed to parse {key} value: \"{value}\" is not {kind}")));
        match key.as_str() {
            "com.docker.network.bridge.name" => match value.as_str() {
                "" => {}
                name if name.len() > 15 || name.contains(['/', ':', ' ']) || name.starts_with('.') => {
                    return bad("a name of an interface (at most 15 characters)");
                }
                name => read.name = Some(name.to_owned()),
            },
            "com.docker.network.driver.mtu" => match value.parse::<u32>() {
                Ok(mtu) if (68..=65_535).contains(&mtu) => read.mtu = Some(mtu),
                _ => return bad("a size of packets from 68 to 65535"),
            },
            "com.docker.network.bridge.host_binding_ipv4" => match value.parse::<IpAddr>() {
                Ok(address) if address.is_ipv4() => read.binding = Some(address),
                _ => return bad("an IPv4 address"),
            },
            "com.docker.network.bridge.enable_icc" | "com.docker.network.bridge.enable_ip_masquerade"
                if flag(value).is_none() =>
            {
                return bad("a boolean");
            }
            _ => {}
        }
    }
    Ok(read)
}

/// As the Engine reads a boolean.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(subnet: &str, part: &str, gateway: &str) -> Ipam {
        let range = IpamRange {
            subnet: subnet.into(),
            ip_range: part.into(),
            gateway: gateway.into(),
            auxiliary: Some(BTreeMap::from([("a".to_owned(), gateway.to_owned())]).into_iter().collect()),
        };
        Ipam { config: Some(vec![range]), ..Ipam::default() }
    }

    #[test]
    fn ranges_are_checked_in_the_engines_words() {
        for (subnet, part, gateway, said) in [
            ("bad", "", "", "invalid network config:\ninvalid subnet bad: invalid CIDR block notation"),
            ("10.0.0.1/8", "", "", "invalid network config:\ninvalid subnet 10.0.0.1/8: it should be 10.0.0.0/8"),
            (
                "10.0.0.0/24",
                "10.0.0.0/16",
                "",
                "invalid network config:\ninvalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet \
                 10.0.0.0/24",
            ),
            (
                "10.0.0.0/24",
                "10.1.0.0/25",
                "",
                "invalid network config:\ninvalid ip-range 10.1.0.0/25: parent subnet 10.0.0.0/24 doesn't contain \
                 ip-range",
            ),
            (
                "10.0.0.0/24",
                "",
                "10.1.0.1",
                "invalid network config:\n* invalid gateway 10.1.0.1: parent subnet 10.0.0.0/24 doesn't contain this \
                 address\n* invalid auxiliary address a: parent subnet 10.0.0.0/24 doesn't contain this address",
            ),
        ] {
            assert_eq!(ipam(subnet, part, gateway).ranges(false).unwrap_err().message, said);
        }
        let good = ipam("10.0.0.0/24", "10.0.0.128/25", "10.0.0.1").ranges(false).unwrap();
        assert_eq!(good[0].part.unwrap().to_string(), "10.0.0.128/25");
        assert_eq!(ipam("fd00::/64", "", "").ranges(false).unwrap(), []);
        assert_eq!(ipam("fd00::/64", "", "").ranges(true).unwrap().len(), 1);
    }

    #[test]
    fn options_of_bridges_are_checked() {
        let with = |key: &str, value: &str| {
            bridge_options(&BTreeMap::from([(format!("com.docker.network.{key}"), value.to_owned())]))
        };
        assert_eq!(with("bridge.name", "br9").unwrap().name.unwrap(), "br9");
        assert_eq!(with("driver.mtu", "1400").unwrap().mtu, Some(1400));
        for (key, value) in [
            ("bridge.name", "a-name-that-is-too-long"),
            ("driver.mtu", "1"),
            ("driver.mtu", "x"),
            ("bridge.host_binding_ipv4", "::1"),
            ("bridge.enable_icc", "maybe"),
        ] {
            assert_eq!(with(key, value).unwrap_err().status, 400, "{key}={value}");
        }
    }

    #[test]
    fn broken_ranges_break_nothing() {
        pintle_noise::feed_text(&["10.0.0.0/24", "fd00::/64", "1.2.3.4"], 500, |text| {
            // Whatever is taken keeps what belongs together.
            if let Ok(ranges) = ipam(text, text, "").ranges(true) {
                assert!(ranges.iter().all(|r| r.part.is_none_or(|p| r.subnet.contains(&p))), "{text:?}");
            }
        });
    }
}
