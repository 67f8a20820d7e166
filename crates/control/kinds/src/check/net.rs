//! Addresses, networks and URLs.

use super::Errors;
use crate::tree;
use ipnet::IpNet;
use pintle_types::{field::Path, names};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NETWORK: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address; strictly one, without leading zeros or IPv4 in IPv6.
pub(crate) fn ip(errors: &mut Errors, path: &Path, text: &str) {
    match text.parse::<IpAddr>() {
        Err(_) if without_zeros(text).is_some() => errors.invalid(path, text, "must not have leading 0s"),
        Err(_) => errors.invalid(path, text, ADDRESS),
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            errors.invalid(path, text, "must not be an IPv4-mapped IPv6 address");
        }
        Ok(_) => {}
    }
}

/// An IPv4 address whose numbers begin with zeros, as it is without them.
fn without_zeros(text: &str) -> Option<IpAddr> {
    let part = |part: &str| {
        let plain = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        plain.then(|| {
            if part.trim_start_matches('0').is_empty() { "0" } else { part.trim_start_matches('0') }.to_owned()
        })
    };
    let parts: Vec<String> = text.split('.').map(part).collect::<Option<_>>()?;
    parts.join(".").parse().ok()
}

/// A network: `10.0.0.0/8`, strictly: no zeros before numbers and no bits after the prefix. Answers whether it is one.
pub(crate) fn cidr(errors: &mut Errors, path: &Path, text: &str) -> bool {
    let wrong = match text.parse::<IpNet>() {
        Err(_) if has_zeros(text) => "must not have leading 0s in IP or prefix length",
        Err(_) => NETWORK,
        Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => "must not have an IPv4-mapped IPv6 address",
        Ok(net) if net.addr() != net.network() => "must not have bits set beyond the prefix length",
        Ok(_) if has_zeros(text) => "must not have leading 0s in IP or prefix length",
        Ok(_) => return true,
    };
    errors.invalid(path, text, wrong);
    false
}

/// A network in its usual form.
pub(crate) fn canonical_cidr(errors: &mut Errors, path: &Path, text: &str) {
    if !cidr(errors, path, text) {
        return;
    }
    if let Some(usual) = text.parse::<IpNet>().ok().map(|net| net.to_string()).filter(|usual| usual != text) {
        errors.invalid(path, text, &format!("must be in canonical form ({usual:?})"));
    }
}

/// Whether a network would be one but for zeros before its numbers.
fn has_zeros(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let bits = length.trim_start_matches('0');
    let zeros = length.len() > 1 && length.starts_with('0');
    let known = address.parse::<IpAddr>().ok();
    let usable = known.or_else(|| without_zeros(address)).is_some();
    let most = if address.contains(':') { 128 } else { 32 };
    let fits = length.chars().all(|c| c.is_ascii_digit())
        && (bits.is_empty() || bits.parse::<u32>().is_ok_and(|it| it <= most));
    usable && !length.is_empty() && fits && (zeros || known.is_none())
}

/// What is told of an address that is not written in its usual form.
pub(crate) fn ip_warning(path: &Path, text: &str) -> Option<String> {
    let usual = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => address.to_string(),
        _ => return None,
    };
    let told = format!("{}: IPv6 address {text:?} should be in RFC 5952 canonical format ({usual:?})", path.as_str());
    (usual != text).then_some(told)
}

/// The same of the addresses that a balancer has, as the status of a kind tells them. Upstream names their places without
/// the field.
pub(crate) fn balancer_warnings(object: &Value) -> Vec<String> {
    let at = Path::new("status.loadBalancer.ingress");
    let points = tree::list(&object["status"]["loadBalancer"], "ingress").iter().enumerate();
    points.filter_map(|(i, point)| ip_warning(&at.index(i), tree::text(point, "ip"))).collect()
}

/// The same of a network.
pub(crate) fn cidr_warning(path: &Path, text: &str) -> Option<String> {
    let usual = match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) => net.to_string(),
        _ => return None,
    };
    let told =
        format!("{}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({usual:?})", path.as_str());
    (usual != text).then_some(told)
}

/// An address that endpoints may have: no unspecified, loopback or link-local one.
pub(crate) fn endpoint_ip(errors: &mut Errors, path: &Path, text: &str) {
    let Ok(address) = text.parse::<IpAddr>() else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
    let (unspecified, loopback, link_local, link_multicast) = match address {
        IpAddr::V4(v4) => {
            (v4 == Ipv4Addr::UNSPECIFIED, v4.is_loopback(), v4.is_link_local(), v4.octets()[..3] == [224, 0, 0])
        }
        IpAddr::V6(v6) => (
            v6 == Ipv6Addr::UNSPECIFIED,
            v6.is_loopback(),
            v6.segments()[0] & 0xffc0 == 0xfe80,
            v6.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    let checks = [
        (unspecified, "may not be unspecified", if address.is_ipv4() { " (0.0.0.0)" } else { " (::)" }),
        (loopback, "may not be in the loopback range", " (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range", " (169.254.0.0/16, fe80::/10)"),
        (link_multicast, "may not be in the link-local multicast range", " (224.0.0.0/24, ff02::/10)"),
    ];
    for (wrong, words, range) in checks {
        if wrong {
            errors.invalid(path, text, &format!("{words}{range}"));
        }
    }
}

/// The name under which a load balancer is reached; it has none when the text is empty.
pub(crate) fn host_of_balancer(errors: &mut Errors, path: &Path, host: &str) {
    if host.is_empty() {
        return;
    }
    errors.invalid_for(path, host, names::dns1123_subdomain_errors(host));
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
    }
}

/// The URL of a webhook.
pub(crate) fn webhook_url(errors: &mut Errors, path: &Path, text: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if text.contains(' ') || (scheme.is_empty() && text.contains(':')) {
        return errors.required(path, &format!("url must be a valid URL: parse {text:?}{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or("");
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        errors.invalid(path, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if scheme.is_empty() || host.is_empty() {
        errors.invalid(path, if scheme.is_empty() { "" } else { host }, &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_strict() {
        let told = |check: fn(&mut Errors, &Path, &str), text: &str| {
            Errors::of(|errors| check(errors, &Path::new("f"), text))
                .iter()
                .map(|it| it.body.clone())
                .collect::<Vec<_>>()
        };
        let network = |errors: &mut Errors, path: &Path, text: &str| {
            cidr(errors, path, text);
        };
        for (text, words) in [
            ("10.0.0.0/8", None),
            ("10.0.0.1/8", Some("must not have bits set beyond the prefix length")),
            ("10.0.0.0/08", Some("must not have leading 0s in IP or prefix length")),
            ("010.0.0.0/8", Some("must not have leading 0s in IP or prefix length")),
            ("::ffff:10.0.0.0/104", Some("must not have an IPv4-mapped IPv6 address")),
            ("10.0.0.0/33", Some(NETWORK)),
            ("x", Some(NETWORK)),
        ] {
            let expected: Vec<_> = words.iter().map(|words| format!("Invalid value: {text:?}: {words}")).collect();
            assert_eq!(told(network, text), expected);
        }
        assert_eq!(told(ip, "10.0.0.01"), ["Invalid value: \"10.0.0.01\": must not have leading 0s"]);
        assert_eq!(told(ip, "10.0.0.1"), [""; 0]);
    }

    #[test]
    fn unusual_forms_are_told() {
        let words = "f: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")";
        assert_eq!(ip_warning(&Path::new("f"), "FD00::1").as_deref(), Some(words));
        assert_eq!(ip_warning(&Path::new("f"), "10.0.0.1"), None);
        assert!(cidr_warning(&Path::new("f"), "FD00::/8").is_some());
    }
}
