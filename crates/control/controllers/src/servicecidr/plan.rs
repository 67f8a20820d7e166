//! Which addresses keep a range, and what its condition says.

use ipnet::IpNet;
use pintle_types::Time;
use pintle_types::k8s::api::networking::v1::{IPAddress, ServiceCIDR};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::Condition;
use std::net::IpAddr;

pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// Whether any of the addresses is one of the range and of none of the `others`.
pub fn is_used<'a>(
    range: &ServiceCIDR,
    others: impl Iterator<Item = &'a ServiceCIDR>,
    mut addresses: impl Iterator<Item = String>,
) -> bool {
    let (nets, others): (Vec<IpNet>, Vec<IpNet>) = (nets(range).collect(), others.flat_map(nets).collect());
    let within = |nets: &[IpNet], address: &IpAddr| nets.iter().any(|net| net.contains(address));
    addresses.any(|name| name.parse().is_ok_and(|address| within(&nets, &address) && !within(&others, &address)))
}

fn nets(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> + '_ {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|net| net.parse().ok())
}

/// The condition that a range should have.
pub fn condition(deleting: bool, now: Time) -> Condition {
    let (status, reason, message) = match deleting {
        false => ("True", "", "Kubernetes Service CIDR is ready"),
        true => (
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
        ),
    };
    Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: now,
        observed_generation: None,
    }
}

/// Whether a range has that condition already, whenever it came.
pub fn has(range: &ServiceCIDR, wanted: &Condition) -> bool {
    let mut conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|it| it.type_ == wanted.type_ && it.status == wanted.status && it.reason == wanted.reason)
}

/// The address that an IPAddress is.
pub fn name(address: &IPAddress) -> String {
    address.metadata.name.clone().unwrap_or_default()
}
