//! IP addresses and prefixes as texts: strict, with the errors of Go's `net/netip`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address without a zone that is not IPv4 in IPv6.
pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    let ip = address.parse::<IpAddr>().map_err(|_| {
        format!("IP Address {text:?} parse error during conversion from string: {}", why_no_address(text))
    })?;
    if address.len() < text.len() {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        ip => Ok(ip),
    }
}

fn why_no_address(text: &str) -> String {
    let why = match text.find(['.', ':', '%']).map(|at| text.as_bytes()[at]) {
        None => "unable to parse IP",
        Some(b'%') => "missing IPv6 address",
        Some(b'.') => why_no_v4(text),
        _ if text.matches("::").count() > 1 => "multiple :: in address",
        _ if text.split([':', '.']).any(|part| part.len() > 4) => "each group must have 4 or less digits",
        _ => "unexpected character, want colon",
    };
    format!("ParseAddr({text:?}): {why}")
}

fn why_no_v4(text: &str) -> &'static str {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.iter().any(|p| !p.bytes().all(|b| b.is_ascii_digit())) {
        "unexpected character"
    } else if parts.iter().any(|p| p.is_empty()) {
        "IPv4 field must have at least one digit"
    } else if parts.iter().any(|p| p.len() > 1 && p.starts_with('0')) {
        "IPv4 field has octet with leading zero"
    } else if parts.iter().any(|p| p.parse::<u8>().is_err()) {
        "IPv4 field has value >255"
    } else if parts.len() > 4 {
        "IPv4 address too long"
    } else {
        "IPv4 address too short"
    }
}

/// An address and how many of its leading bits count; the others may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub address: IpAddr,
    pub bits: u8,
}

impl Prefix {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}")
        };
        let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'"))?;
        if address.contains('%') {
            return Err(wrong("IPv6 zones cannot be present in a prefix"));
        }
        let address: IpAddr = address.parse().map_err(|_| wrong(&why_no_address(address)))?;
        let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
        let number = bits.parse::<u32>().ok().filter(|_| plain);
        let number = number.ok_or_else(|| wrong(&format!("bad bits after slash: {bits:?}")))?;
        if number > u32::from(width(address)) {
            return Err(wrong("prefix length out of range"));
        }
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
            }
            address => Ok(Self { address, bits: number as u8 }),
        }
    }

    pub fn masked(&self) -> Self {
        Self { address: mask(self.address, self.bits), bits: self.bits }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.address.is_ipv4() && mask(ip, self.bits) == mask(self.address, self.bits)
    }

    pub fn contains_prefix(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// Whether an address is for links only, and one receiver.
pub(crate) fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Whether an address is for links only, and many receivers.
pub(crate) fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// Whether an address is of one receiver, anywhere; private addresses are.
pub(crate) fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local_unicast(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["1.2.3.4", "::1", "2001:db8::1", "fe80::1"] {
            assert_eq!(parse_ip(good).unwrap().to_string(), good);
        }
        for bad in ["", "1.2.3", "01.2.3.4", "1.2.3.256", "::ffff:1.2.3.4", "fe80::1%eth0", "x", "1::2::3"] {
            assert!(parse_ip(bad).is_err(), "{bad}");
        }
        let error = parse_ip("1.2.3").unwrap_err();
        let words = "IP Address \"1.2.3\" parse error during conversion from string: \
                     ParseAddr(\"1.2.3\"): IPv4 address too short";
        assert_eq!(error, words);
    }

    #[test]
    fn prefixes() {
        let prefix = Prefix::parse("192.168.1.7/24").unwrap();
        assert_eq!(prefix.masked().to_string(), "192.168.1.0/24");
        assert!(prefix.contains("192.168.1.200".parse().unwrap()));
        assert!(!prefix.contains("::1".parse().unwrap()));
        assert!(prefix.contains_prefix(&Prefix::parse("192.168.1.128/25").unwrap()));
        assert!(!prefix.contains_prefix(&Prefix::parse("192.168.0.0/16").unwrap()));
        assert!(Prefix::parse("0.0.0.0/0").unwrap().contains("9.9.9.9".parse().unwrap()));
        for bad in ["1.2.3.4", "1.2.3.4/33", "1.2.3.4/01", "1.2.3.4/+1", "::ffff:1.2.3.4/96", "::1/129"] {
            assert!(Prefix::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_link_local_multicast(ip("224.0.0.1")) && is_link_local_multicast(ip("ff02::1")));
        assert!(is_link_local_unicast(ip("169.254.169.254")) && is_link_local_unicast(ip("fe80::1")));
        assert!(is_global_unicast(ip("192.168.0.1")) && !is_global_unicast(ip("255.255.255.255")));
    }
}
