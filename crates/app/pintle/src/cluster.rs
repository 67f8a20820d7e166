//! What a server works with, from its settings: addresses parsed and derived, directories laid out.

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use pintle_cli::{Configured, Settings};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};

/// The shortest and longest prefixes of ranges of pods and of Services: a node's share is a /24 or a /64, of which a
/// range has at most 65536.
const POD_PREFIXES: Prefixes = Prefixes { v4: (8, 24), v6: (48, 64) };
const SERVICE_PREFIXES: Prefixes = Prefixes { v4: (8, 24), v6: (64, 120) };

struct Prefixes {
    v4: (u8, u8),
    v6: (u8, u8),
}

/// The settings, checked and completed.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) node_name: String,
    /// The node's primary address.
    pub(crate) node_ip: IpAddr,
    /// That, and one of the other family where there is one.
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) node_labels: BTreeMap<String, String>,
    /// The ranges of pods' addresses: one, or one of each family with the primary one first.
    pub(crate) pod_ranges: Vec<IpNet>,
    /// The ranges of Services' addresses, in the same order.
    pub(crate) service_ranges: Vec<IpNet>,
    /// The address of the service `kubernetes`.
    pub(crate) kubernetes_ip: IpAddr,
    pub(crate) dns_ip: IpAddr,
    pub(crate) dns_upstreams: Option<Vec<IpAddr>>,
    /// How registries are asked, by pods and by `docker`.
    pub(crate) registries: pintle_distribution::Options,
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
        let pod_ranges = ranges("cluster-cidr", &settings.pod_cidr(), &POD_PREFIXES)?;
        let service_ranges = ranges("service-cidr", &settings.service_cidr(), &SERVICE_PREFIXES)?;
        for (pods, services) in pod_ranges.iter().flat_map(|pods| service_ranges.iter().map(move |other| (pods, other)))
        {
            let overlap = pods.contains(services) || services.contains(pods);
            ensure!(!overlap, "--cluster-cidr {pods} and --service-cidr {services} overlap");
        }
        let (first_pods, first_services) = (pod_ranges[0], service_ranges[0]);
        ensure!(
            first_pods.addr().is_ipv4() == first_services.addr().is_ipv4(),
            "--cluster-cidr and --service-cidr begin with ranges of different families: the first one of both is the \
             cluster's primary family"
        );
        let node_ips = match &settings.node_ip {
            Some(text) => node_addresses(text)?,
            None => own_addresses(&pod_ranges)?,
        };
        let mut settings = settings;
        if node_ips[0].is_ipv6() && settings.bind_address.is_none() {
            settings.bind_address = Some(Ipv6Addr::UNSPECIFIED.into());
        }
        let node_name = settings.node_name.clone().unwrap_or_else(host_name).to_lowercase();
        let named = pintle_types::names::check_dns1123_subdomain(&node_name);
        named.map_err(|why| anyhow::anyhow!("--node-name {node_name:?}: {why}"))?;
        Ok(Self {
            node_ip: node_ips[0],
            node_ips,
            node_labels: labels(settings.node_labels.as_deref().unwrap_or_default())?,
            node_name,
            pod_ranges,
            service_ranges,
            kubernetes_ip: nth(first_services, 1),
            dns_ip: settings.cluster_dns.unwrap_or(nth(first_services, 10)),
            dns_upstreams: settings.dns_upstreams.as_deref().map(addresses).transpose()?,
            registries: crate::registries::options(&settings)?,
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

    /// When nodes count as silent, and how fast pods leave them.
    pub(crate) fn nodes(&self) -> Result<pintle_controllers::NodeSettings> {
        let settings = &self.settings;
        let rate = |flag: &str, text: String| number(flag, &text, f64::MAX, "nodes per second, such as 0.1");
        let unhealthy = settings.unhealthy_zone_threshold();
        Ok(pintle_controllers::NodeSettings {
            grace: duration("node-monitor-grace-period", &settings.node_monitor_grace_period())?,
            period: duration("node-monitor-period", &settings.node_monitor_period())?,
            rate: rate("node-eviction-rate", settings.node_eviction_rate())?,
            reduced_rate: rate("secondary-node-eviction-rate", settings.secondary_node_eviction_rate())?,
            large: settings.large_cluster_size_threshold() as usize,
            unhealthy: number("unhealthy-zone-threshold", &unhealthy, 1.0, "a share between 0 and 1, such as 0.55")?,
        })
    }

    /// How autoscalers work that say nothing else.
    pub(crate) fn autoscaling(&self) -> Result<pintle_controllers::AutoscalerSettings> {
        let of = |name: &str, text: String| duration(&format!("horizontal-pod-autoscaler-{name}"), &text);
        let settings = &self.settings;
        let period = of("sync-period", settings.horizontal_pod_autoscaler_sync_period())?;
        let down = of("downscale-stabilization", settings.horizontal_pod_autoscaler_downscale_stabilization())?;
        let cpu = of("cpu-initialization-period", settings.horizontal_pod_autoscaler_cpu_initialization_period())?;
        let ready = of("initial-readiness-delay", settings.horizontal_pod_autoscaler_initial_readiness_delay())?;
        ensure!(!period.is_zero(), "--horizontal-pod-autoscaler-sync-period must be more than nothing, such as 15s");
        let text = settings.horizontal_pod_autoscaler_tolerance();
        let form = "a share between 0 and 1, such as 0.1";
        let tolerance = number("horizontal-pod-autoscaler-tolerance", &text, 1.0, form)?;
        Ok(pintle_controllers::AutoscalerSettings {
            period,
            tolerance,
            down_window: i32::try_from(down.as_secs()).unwrap_or(i32::MAX),
            youth: pintle_controllers::AutoscalerYouth {
                cpu_ms: i64::try_from(cpu.as_millis()).unwrap_or(i64::MAX / 2),
                readiness_ms: i64::try_from(ready.as_millis()).unwrap_or(i64::MAX / 2),
            },
        })
    }

    /// The URL of this server as programs on this machine reach it.
    pub(crate) fn local_url(&self) -> String {
        let bind = self.settings.bind_address();
        let host = if bind.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { bind };
        format!("https://{host}:{}", self.settings.https_port())
    }
}

/// A flag's duration, written as in Go.
pub(crate) fn duration(flag: &str, text: &str) -> Result<std::time::Duration> {
    pintle_auth::configuration::duration(text).map_err(|why| anyhow::anyhow!("--{flag}: {why}"))
}

/// A flag's number, which is not below nothing.
fn number(flag: &str, text: &str, most: f64, form: &str) -> Result<f64> {
    let number: Option<f64> = text.parse().ok().filter(|number| (0.0..=most).contains(number));
    number.with_context(|| format!("--{flag} {text:?} must be {form}"))
}

/// One range, or one of each family with a comma between them; not empty.
fn ranges(flag: &str, text: &str, prefixes: &Prefixes) -> Result<Vec<IpNet>> {
    let one = |text: &str| -> Result<IpNet> {
        let text = text.trim();
        let net: IpNet = text.parse().with_context(|| {
            format!("--{flag}: {text:?} is no range of addresses like 10.42.0.0/16 or fd00:42::/56")
        })?;
        let (least, most) = if net.addr().is_ipv4() { prefixes.v4 } else { prefixes.v6 };
        ensure!(net.prefix_len() <= most, "--{flag} {text} is too small: use /{most} or larger");
        ensure!(net.prefix_len() >= least, "--{flag} {text} is too large: use /{least} or smaller");
        Ok(net.trunc())
    };
    let found = text.split(',').map(one).collect::<Result<Vec<_>>>()?;
    let fits = match found.as_slice() {
        [_] => true,
        [a, b] => a.addr().is_ipv4() != b.addr().is_ipv4(),
        _ => false,
    };
    ensure!(fits, "--{flag} {text}: give one range, or one of IPv4 and one of IPv6");
    Ok(found)
}

/// The address at this place of a range.
fn nth(range: IpNet, n: u8) -> IpAddr {
    match range.network() {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + u32::from(n)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + u128::from(n)).into(),
    }
}

/// `--node-ip`: one address, or one of each family; not empty.
fn node_addresses(text: &str) -> Result<Vec<IpAddr>> {
    let one = |text: &str| {
        let text = text.trim();
        text.parse::<IpAddr>().with_context(|| format!("--node-ip: {text:?} is no address"))
    };
    let found = text.split(',').map(one).collect::<Result<Vec<_>>>()?;
    let fits = matches!(found.as_slice(), [_]) || matches!(found.as_slice(), [a, b] if a.is_ipv4() != b.is_ipv4());
    ensure!(fits, "--node-ip {text}: give one address, or one of IPv4 and one of IPv6");
    Ok(found)
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

/// This machine's address of each family that pods have. Only the primary one must be there: pods have both anyway.
fn own_addresses(pods: &[IpNet]) -> Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for (n, range) in pods.iter().enumerate() {
        match own_address(range.addr().is_ipv4())? {
            Some(address) => found.push(address),
            None if range.addr().is_ipv4() && n == 0 => found.push(Ipv4Addr::LOCALHOST.into()),
            None => {}
        }
    }
    ensure!(
        found.first().is_some_and(|address| address.is_ipv4() == pods[0].addr().is_ipv4()),
        "this machine has no address of the first family of --cluster-cidr: name one with --node-ip"
    );
    Ok(found)
}

/// The address that packets to the outside would come from. Nothing is sent to find it. A machine without a default
/// route is its own whole world: then it is that of the first interface.
fn own_address(is_v4: bool) -> Result<Option<IpAddr>> {
    // Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket only looks up the route.
    let (any, far) = if is_v4 { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let routed = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(far)?;
        socket.local_addr()
    });
    let usable = |ip: &IpAddr| {
        let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        ip.is_ipv4() == is_v4 && !ip.is_loopback() && !ip.is_unspecified() && !link_local
    };
    if let Some(address) = routed.ok().map(|address| address.ip()).filter(usable) {
        return Ok(Some(address));
    }
    let mut netlink = pintle_netlink::Netlink::open().context("find this machine's address; name it with --node-ip")?;
    let found = netlink.addresses().context("find this machine's address; name it with --node-ip")?;
    Ok(found.into_iter().map(|a| a.address.addr()).find(usable))
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
        let mut settings = Settings { node_ip: Some("10.1.1.1".into()), ..Settings::default() };
        change(&mut settings);
        Cluster::new(settings)
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_follow_from_the_ranges() {
        let made = cluster(|s| s.service_cidr = Some("10.99.0.0/16".into())).unwrap();
        assert_eq!(made.kubernetes_ip, IpAddr::from([10, 99, 0, 1]));
        assert_eq!(made.dns_ip, IpAddr::from([10, 99, 0, 10]));
        assert_eq!((made.pod_ranges, made.node_ips), (nets(&["10.42.0.0/16"]), vec![[10, 1, 1, 1].into()]));
        let dual = cluster(|s| {
            s.pod_cidr = Some("10.42.0.0/16,fd00:42::/56".into());
            s.service_cidr = Some("10.99.0.0/16, fd00:43::1/112".into());
            s.node_ip = Some("10.1.1.1,fd00::1".into());
        });
        let dual = dual.unwrap();
        assert_eq!(dual.pod_ranges, nets(&["10.42.0.0/16", "fd00:42::/56"]));
        assert_eq!(dual.service_ranges, nets(&["10.99.0.0/16", "fd00:43::/112"]));
        assert_eq!((dual.node_ip, dual.node_ips.len()), ([10, 1, 1, 1].into(), 2));
        let six = cluster(|s| {
            s.pod_cidr = Some("fd00:42::/56".into());
            s.service_cidr = Some("fd00:43::/112".into());
            s.node_ip = Some("fd00::1".into());
        });
        let six = six.unwrap();
        assert_eq!(six.dns_ip, "fd00:43::a".parse::<IpAddr>().unwrap());
        assert!(six.settings.bind_address().is_ipv6(), "or nobody could reach the node's only address");
    }

    #[test]
    fn senseless_settings_are_named() {
        let message = |change: fn(&mut Settings)| cluster(change).unwrap_err().to_string();
        assert!(message(|s| s.pod_cidr = Some("10.42.0.0/30".into())).contains("--cluster-cidr"));
        assert!(message(|s| s.pod_cidr = Some("10.42.0.0/16,fd00::/32".into())).contains("too large"));
        assert!(message(|s| s.pod_cidr = Some("10.42.0.0/16,fd00::/80".into())).contains("too small"));
        assert!(message(|s| s.service_cidr = Some("10.42.0.0/16".into())).contains("overlap"));
        assert!(message(|s| s.service_cidr = Some("10.99.0.0/16,10.98.0.0/16".into())).contains("one of IPv6"));
        assert!(message(|s| s.service_cidr = Some("fd00:43::/112".into())).contains("different families"));
        assert!(message(|s| s.node_ip = Some("10.1.1.1,10.1.1.2".into())).contains("--node-ip"));
        assert!(message(|s| s.node_ip = Some("here".into())).contains("--node-ip"));
        assert!(message(|s| s.node_name = Some("a_b".into())).contains("--node-name"));
        assert!(message(|s| s.node_labels = Some("x".into())).contains("--node-labels"));
        assert!(message(|s| s.dns_upstreams = Some("8.8.8.8,x".into())).contains("--dns-upstreams"));
    }
}
