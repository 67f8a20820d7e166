//! What a connection's own options say: the name of its interface, settings of the kernel for it, further addresses.

use super::links::set_kernel;
use crate::error::{DockerError, Result};
use crate::model::EndpointSettings;
use ipnet::IpNet;
use std::net::IpAddr;

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// The longest name of an interface (IFNAMSIZ).
const MAX_INTERFACE: usize = 15;

fn option<'a>(settings: &'a EndpointSettings, name: &str) -> Option<&'a str> {
    settings.driver_opts.as_ref()?.get(name).map(String::as_str)
}

/// All that is wrong with them, in the words of the Engine.
pub(super) fn mistakes(settings: &EndpointSettings) -> Vec<String> {
    let mut errors = Vec::new();
    for sysctl in sysctls(settings) {
        let parts: Vec<&str> = sysctl.splitn(5, '.').collect();
        let right = matches!(parts.as_slice(), ["net", "ipv4" | "ipv6" | "mpls", _, "IFNAME" | "ifname", rest]
            if rest.contains('=') && !sysctl.contains('/'));
        if !right {
            errors.push(format!(
                "unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' as \
                 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            ));
        }
    }
    if let Some(name) = interface(settings) {
        let plain = name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':'));
        if name.is_empty() || name.len() > MAX_INTERFACE || !plain || matches!(name, "." | ".." | "lo") {
            errors.push(format!("invalid interface name '{name}'"));
        }
    }
    for text in settings.ipam_config.iter().flat_map(|ipam| &ipam.link_local_ips) {
        if text.parse::<IpAddr>().is_err() {
            errors.push(format!("invalid link-local IP address: {text}"));
        }
    }
    errors
}

/// The name that its interface shall have in the container.
pub(super) fn interface(settings: &EndpointSettings) -> Option<&str> {
    option(settings, INTERFACE)
}

/// Settings as `net.ipv4.conf.IFNAME.forwarding=1`.
pub(super) fn sysctls(settings: &EndpointSettings) -> Vec<String> {
    let text = option(settings, SYSCTLS).unwrap_or_default();
    text.split(',').filter(|sysctl| !sysctl.is_empty()).map(str::to_owned).collect()
}

/// Addresses that it has besides those of the network, each in the whole range of such addresses.
pub(super) fn link_local(settings: &EndpointSettings) -> Vec<IpNet> {
    let given = settings.ipam_config.iter().flat_map(|ipam| &ipam.link_local_ips);
    let address = |text: &String| {
        let address: IpAddr = text.parse().ok()?;
        IpNet::new(address, if address.is_ipv4() { 16 } else { 64 }).ok()
    };
    given.filter_map(address).collect()
}

/// Makes such settings in the network namespace that the thread is in.
pub(super) fn apply(interface: &str, sysctls: &[String]) -> Result<()> {
    for sysctl in sysctls {
        let Some((name, value)) = sysctl.split_once('=') else { continue };
        let [_, family, kind, _, key] = name.split('.').collect::<Vec<_>>()[..] else {
            return Err(DockerError::internal(format!("expected sysctl '{sysctl}' to have format net.X.Y.IFNAME.Z")));
        };
        set_kernel(&format!("{family}/{kind}/{interface}/{key}"), value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> EndpointSettings {
        let options = [(name.to_owned(), value.to_owned())];
        EndpointSettings { driver_opts: Some(options.into()), ..EndpointSettings::default() }
    }

    #[test]
    fn only_settings_of_the_connections_own_interface_are_taken() {
        let good = with(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.forwarding=1");
        assert_eq!((mistakes(&good), sysctls(&good).len()), (Vec::new(), 2));
        for bad in
            ["net.ipv4.conf.eth0.forwarding=1", "kernel.x=1", "net.ipv4.conf.IFNAME.../x=1", "net.ipv4.ip_forward=1"]
        {
            assert_eq!(mistakes(&with(SYSCTLS, bad)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn names_of_interfaces_are_those_of_the_kernel() {
        assert!(mistakes(&with(INTERFACE, "front0")).is_empty());
        for bad in ["", "lo", "a/b", "a name", "abcdefghijklmnop"] {
            assert_eq!(mistakes(&with(INTERFACE, bad)).len(), 1, "{bad}");
        }
    }
}
