//! `ip(…)`: addresses.

use super::argument::*;
use super::net_text;
use crate::{Function, Library, Overload, Type, Value};
use std::net::IpAddr;

pub(super) const NAME: &str = "net.IP";

/// An address as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ip(pub IpAddr);

opaque_value!(Ip, NAME);

pub(super) fn library() -> Library {
    let ip = || Type::opaque(NAME);
    let parsing = |overload: Overload| overload.cost(first_traversed).estimate(estimate_traversed);
    let test =
        |name: &str, id, call: crate::CallFn| Function::new(name, [Overload::member(id, [ip()], Type::Bool, call)]);
    let canonical = Overload::global("ip_is_canonical", [Type::String], Type::Bool, |_, a| {
        let text = text(a, 0)?;
        Ok((net_text::parse_ip(text).map_err(failed)?.to_string() == text).into())
    });
    let functions = vec![
        Function::new(
            "ip",
            [parsing(Overload::global("string_to_ip", [Type::String], ip(), |_, a| {
                net_text::parse_ip(text(a, 0)?).map(|ip| Value::opaque(Ip(ip))).map_err(failed)
            }))],
        ),
        Function::new(
            "isIP",
            [parsing(Overload::global("is_ip", [Type::String], Type::Bool, |_, a| {
                Ok(net_text::parse_ip(text(a, 0)?).is_ok().into())
            }))],
        ),
        Function::new(
            "ip.isCanonical",
            [canonical
                .cost(first_traversed_twice)
                .estimate(|a| estimate(first_size(a).cost(2.0 * crate::cost::STRING_TRAVERSAL_FACTOR)))],
        ),
        Function::new(
            "family",
            [Overload::member("ip_family", [ip()], Type::Int, |_, a| {
                Ok(Value::Int(if opaque::<Ip>(a, 0)?.0.is_ipv4() { 4 } else { 6 }))
            })],
        ),
        test("isUnspecified", "ip_is_unspecified", |_, a| Ok(opaque::<Ip>(a, 0)?.0.is_unspecified().into())),
        test("isLoopback", "ip_is_loopback", |_, a| Ok(opaque::<Ip>(a, 0)?.0.is_loopback().into())),
        test("isLinkLocalMulticast", "ip_is_link_local_multicast", |_, a| {
            Ok(net_text::is_link_local_multicast(opaque::<Ip>(a, 0)?.0).into())
        }),
        test("isLinkLocalUnicast", "ip_is_link_local_unicast", |_, a| {
            Ok(net_text::is_link_local_unicast(opaque::<Ip>(a, 0)?.0).into())
        }),
        test("isGlobalUnicast", "ip_is_global_unicast", |_, a| {
            Ok(net_text::is_global_unicast(opaque::<Ip>(a, 0)?.0).into())
        }),
        Function::new(
            "string",
            [Overload::global("ip_to_string", [ip()], Type::String, |_, a| {
                Ok(opaque::<Ip>(a, 0)?.0.to_string().into())
            })],
        ),
    ];
    Library { functions, types: vec![ip()], ..Library::default() }
}
