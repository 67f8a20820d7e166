//! Addresses, networks and URLs.

use super::Errors;
use pintle_types::field::Path;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NETWORK: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address; strictly one, without leading zeros or IPv4 in IPv6.
pub(crate) fn ip(errors: &mut Errors, path: &Path, text: &str) {
    match text.parse::<IpAddr>() {
        Err(_) => errors.invalid(path, text, ADDRESS),
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            errors.invalid(path, text, "must not be an IPv4-mapped IPv6 address");
        }
        Ok(_) => {}
    }
}

/// A network: `10.0.0.0/8`. Answers whether it is one.
pub(crate) fn cidr(errors: &mut Errors, path: &Path, text: &str) -> bool {
    let ok = text.parse::<ipnet::IpNet>().is_ok();
    if !ok {
        errors.invalid(path, text, NETWORK);
    }
    ok
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
