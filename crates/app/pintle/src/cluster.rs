//! What a server works with, from its settings: addresses parsed and derived, directories laid out.

use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv4Net};
use pintle_cli::{Configured, Settings};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

/// Bits of a node's share of the pods' addresses.
const NODE_PREFIX: u8 = 24;

/// The settings, checked and completed.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) node_labels: BTreeMap<String, String>,
    pub(crate) pod_cidr: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
    /// The ranges of Services' addresses: `service_cidr`, and one of IPv6 where there is one.
    pub(crate) service_ranges: Vec<IpNet>,
    /// The address of the service `kubernetes`.
    pub(crate) kubernetes_ip: Ipv4Addr,
    pub(crate) dns_ip: IpAddr,
    pub(crate) dns_upstreams: Option<Vec<IpAddr>>,
}

/// What `init` and `join` write down for the starts that follow, in the data directory.
pub(crate) const SAVED: &str = "settings.yaml";

/// Flags over the configuration file over what `init` or `join` wrote down.
pub(crate) fn settings(configured: Configured) -> Result<Settings> {
    let settings = configured.settings()?;
    let saved = settings.data_dir().join(SAVED);
    Ok(settings.over_saved(&saved)?)
}

impl Cluster {
    /// # Errors
    /// When a setting makes no sense; the message names the flag.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let cidr = |flag: &str, text: &str| -> Result<Ipv4Net> {
            let net: Ipv4Net =
                text.parse().with_context(|| format!("--{flag} {text:?} is no IPv4 range like 10.42.0.0/16"))?;
            ensure!(net.prefix_len() <= NODE_PREFIX, "--{flag} {text} is too small: use /{NODE_PREFIX} or larger");
            Ok(net.trunc())
        };
        let pod_cidr = cidr("pod-cidr", &settings.pod_cidr())?;
        let service_text = settings.service_cidr();
        let (first, second) = match service_text.split_once(',') {
            Some((first, second)) => (first.trim(), Some(second.trim())),
            None => (service_text.trim(), None),
        };
        let service_cidr = cidr("service-cidr", first)?;
        let second = second.map(second_service_range).transpose()?;
        let service_ranges = std::iter::once(service_cidr.into()).chain(second).collect();
        let overlap = pod_cidr.contains(&service_cidr) || service_cidr.contains(&pod_cidr);
        ensure!(!overlap, "--pod-cidr {pod_cidr} and --service-cidr {service_cidr} overlap");
        let nth = |n: u32| Ipv4Addr::from(u32::from(service_cidr.network()) + n);
        let node_name = settings.node_name.clone().unwrap_or_else(host_name).to_lowercase();
        let named = pintle_types::names::check_dns1123_subdomain(&node_name);
        named.map_err(|why| anyhow::anyhow!("--node-name {node_name:?}: {why}"))?;
        Ok(Self {
            node_ip: settings.node_ip.map_or_else(own_address, Ok)?,
            node_labels: labels(settings.node_labels.as_deref().unwrap_or_default())?,
            node_name,
            pod_cidr,
            service_cidr,
            service_ranges,
            kubernetes_ip: nth(1),
            dns_ip: settings.cluster_dns.unwrap_or(nth(10).into()),
            dns_upstreams: settings.dns_upstreams.as_deref().map(addresses).transpose()?,
            settings,
        })
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.settings.data_dir().join(name)
    }

    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.settings.run_dir().join(name)
    }

    /// The URL of this server as other machines reach it.
    pub(crate) fn public_url(&self) -> String {
        let address = std::net::SocketAddr::new(self.node_ip, self.settings.https_port());
        format!("https://{address}")
    }

    /// How long a node may give no sign of life.
    pub(crate) fn node_grace(&self) -> Result<std::time::Duration> {
        let text = self.settings.node_monitor_grace_period();
        pintle_auth::configuration::duration(&text).map_err(|why| anyhow::anyhow!("--node-monitor-grace-period: {why}"))
    }

    /// The URL of this server as programs on this machine reach it.
    pub(crate) fn local_url(&self) -> String {
        let bind = self.settings.bind_address();
        let host = if bind.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { bind };
        format!("https://{host}:{}", self.settings.https_port())
    }
}

/// The range after the comma: what gives Services an address of the other family.
fn second_service_range(text: &str) -> Result<IpNet> {
    let net: ipnet::Ipv6Net =
        text.parse().with_context(|| format!("--service-cidr: {text:?} is no IPv6 range like fd00:43::/112"))?;
    ensure!(net.prefix_len() <= 120, "--service-cidr {text} is too small: use /120 or larger");
    Ok(net.trunc().into())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn labels(text: &str) -> Result<BTreeMap<String, String>> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) =
                pair.split_once('=').with_context(|| format!("--node-labels: {pair:?} is not key=value"))?;
            pintle_types::names::check_label_key(key).map_err(|why| anyhow::anyhow!("--node-labels {key:?}: {why}"))?;
            pintle_types::names::check_label_value(value)
                .map_err(|why| anyhow::anyhow!("--node-labels {value:?}: {why}"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part.parse().with_context(|| format!("--dns-upstreams: {part:?} is no address"))).collect()
}

/// The address that packets to the outside would come from. Nothing is sent to find it. A machine without a default
/// route is its own whole world: then it is that of the first interface, or loopback.
fn own_address() -> Result<IpAddr> {
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // A documentation address (RFC 5737): connecting a UDP socket only looks up the route.
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    if let Ok(address) = routed
        && !address.ip().is_unspecified()
    {
        return Ok(address.ip());
    }
    let mut netlink = pintle_netlink::Netlink::open().context("find this machine's address; name it with --node-ip")?;
    let found = netlink.addresses().context("find this machine's address; name it with --node-ip")?;
    let usable = |ip: &IpAddr| ip.is_ipv4() && !ip.is_loopback();
    Ok(found.into_iter().map(|a| a.address.addr()).find(usable).unwrap_or(IpAddr::from([127, 0, 0, 1])))
}

/// Makes a directory that only root may look into.
pub(crate) fn private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("create the directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(change: impl FnOnce(&mut Settings)) -> Result<Cluster> {
        let mut settings = Settings { node_ip: Some([10, 1, 1, 1].into()), ..Settings::default() };
        change(&mut settings);
        Cluster::new(settings)
    }

    #[test]
    fn addresses_follow_from_the_ranges() {
        let made = cluster(|s| s.service_cidr = Some("10.99.0.0/16".into())).unwrap();
        assert_eq!(made.kubernetes_ip, Ipv4Addr::new(10, 99, 0, 1));
        assert_eq!(made.dns_ip, IpAddr::from([10, 99, 0, 10]));
        let dual = cluster(|s| s.service_cidr = Some("10.99.0.0/16, fd00:43::1/112".into())).unwrap();
        assert_eq!(dual.service_ranges, ["10.99.0.0/16", "fd00:43::/112"].map(|net| net.parse::<IpNet>().unwrap()));
    }

    #[test]
    fn senseless_settings_are_named() {
        let message = |change: fn(&mut Settings)| cluster(change).unwrap_err().to_string();
        assert!(message(|s| s.pod_cidr = Some("10.42.0.0/30".into())).contains("--pod-cidr"));
        assert!(message(|s| s.service_cidr = Some("10.42.0.0/16".into())).contains("overlap"));
        assert!(message(|s| s.service_cidr = Some("10.99.0.0/16,10.98.0.0/16".into())).contains("no IPv6 range"));
        assert!(message(|s| s.node_name = Some("a_b".into())).contains("--node-name"));
        assert!(message(|s| s.node_labels = Some("x".into())).contains("--node-labels"));
        assert!(message(|s| s.dns_upstreams = Some("8.8.8.8,x".into())).contains("--dns-upstreams"));
    }
}
