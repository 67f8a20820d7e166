//! The same services programmed by our proxy and in kube-proxy's layout, each in a network of its own: no server, only
//! what the kernel is told. The layout (a chain for each service and one for each endpoint, maps from addresses to
//! chains) is that of kube-proxy's nftables mode, which hands it to `nft -f -` as well.

use crate::connect::{Endpoints, in_turns, shown};
use crate::services::{CHANGES, ENDPOINTS, PORT, changed, endpoint};
use anyhow::{Context, Result, ensure};
use pintle_e2e::figures::{milliseconds, quantile, ratio, tell};
use pintle_e2e::{Host, run_command};
use pintle_netlink::namespace;
use pintle_proxy::{Config, Kernel, Objects, Proxy};
use pintle_types::ObjectKey;
use pintle_types::k8s::api::core::v1::Service;
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use serde_json::json;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

const APPLIED: usize = 5;
const TABLE: &str = "add table ip kube-proxy\ndelete table ip kube-proxy\n";

fn cluster_ip(service: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 43, (service / 250) as u8, (service % 250 + 1) as u8)
}

/// What one of both ways needs.
struct Figures {
    whole: Duration,
    change: Duration,
    slab: u64,
}

/// A host with all endpoints and the rules of one of those who are compared.
struct Side {
    host: Host,
    endpoints: Endpoints,
}

impl Side {
    fn new() -> Result<Self> {
        let host = Host::new()?;
        let endpoints = Endpoints::of(&host)?;
        Ok(Self { host, endpoints })
    }

    fn new_proxy(&self) -> Result<Proxy> {
        namespace::enter(self.endpoints.space.as_fd(), new_proxy)?
    }

    fn nft(&self, rules: &str) -> Result<Duration> {
        let mut command = self.host.command("nft");
        command.args(["-f", "-"]);
        let begun = Instant::now();
        run_command(command, rules)?.ok()?;
        Ok(begun.elapsed())
    }
}

pub fn measure(count: usize) -> Result<()> {
    let sides = [Side::new()?, Side::new()?, Side::new()?];
    let [our, their, _] = &sides;
    our.new_proxy()?.update([key(0)], &Given::new(1)?)?;
    their.nft(&whole(1)?)?;
    tell_connections("1 service", &sides)?;
    let (ours, mut proxy) = ours(our, count)?;
    let theirs = theirs(their, count)?;
    let name = |what: &str| format!("{count} services of {ENDPOINTS} endpoints: {what}");
    tell_connections(&format!("{count} services"), &sides)?;
    for (what, our, their) in [
        ("all rules at once, p50", ours.whole, theirs.whole),
        ("one endpoint changed, p50", ours.change, theirs.change),
    ] {
        let shown = format!("{} {}, ours to theirs {:.3}", milliseconds(our), milliseconds(their), ratio(our, their));
        tell(&name(&format!("{what}, ours and kube-proxy's way")), shown);
    }
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    tell(
        "kernel memory (slabs of the whole machine), ours and theirs",
        mebibytes(ours.slab) + " " + &mebibytes(theirs.slab),
    );
    Ok(proxy.remove_all()?)
}

fn tell_connections(through: &str, [our, their, bare]: &[Side; 3]) -> Result<()> {
    let service = SocketAddr::new(IpAddr::V4(cluster_ip(0)), 80);
    let endpoint = SocketAddr::new(IpAddr::V4(endpoint(0)), PORT);
    let sides = [(&our.endpoints, service), (&their.endpoints, service), (&bare.endpoints, endpoint)];
    let [ours, theirs, direct] = in_turns(sides)?;
    let both = ratio(quantile(&ours, 0.5), quantile(&theirs, 0.5));
    tell(
        &format!("new connection through {through}, p50 and p99: ours, kube-proxy's way"),
        format!("{}, {}, ours to theirs {both:.3}", shown(&ours), shown(&theirs)),
    );
    tell("the same to an endpoint itself, without any rules", shown(&direct));
    Ok(())
}

/// What our proxy reads, instead of informers.
struct Given {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Given {
    fn new(count: usize) -> Result<Self> {
        let service = |n: usize| {
            let spec = json!({"type": "ClusterIP", "clusterIP": cluster_ip(n), "clusterIPs": [cluster_ip(n)],
                "ipFamilies": ["IPv4"], "ports": [{"port": 80, "targetPort": PORT, "protocol": "TCP"}]});
            let object = json!({"metadata": {"namespace": "bench", "name": format!("s{n}")}, "spec": spec});
            Ok(Arc::new(serde_json::from_value(object)?))
        };
        let slices = (0..count).map(|n| slice(n, &addresses(n)));
        Ok(Self { services: (0..count).map(service).collect::<Result<_>>()?, slices: slices.collect::<Result<_>>()? })
    }

    fn keys(&self) -> Vec<ObjectKey> {
        (0..self.services.len()).map(key).collect()
    }
}

fn addresses(service: usize) -> Vec<Ipv4Addr> {
    (0..ENDPOINTS).map(|n| endpoint(service * ENDPOINTS + n)).collect()
}

/// Of the first service, after a change: its last endpoint is another one.
fn after_change(number: usize) -> Vec<Ipv4Addr> {
    let mut all = addresses(0);
    all.pop();
    all.push(changed(number));
    all
}

fn slice(number: usize, addresses: &[Ipv4Addr]) -> Result<Arc<EndpointSlice>> {
    let endpoints: Vec<_> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let name = format!("s{number}");
    let labels = json!({"kubernetes.io/service-name": name});
    Ok(Arc::new(serde_json::from_value(json!({
        "metadata": {"namespace": "bench", "name": name, "labels": labels}, "addressType": "IPv4",
        "ports": [{"name": "", "port": PORT, "protocol": "TCP"}], "endpoints": endpoints,
    }))?))
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new("bench", format!("s{number}"))
}

impl Objects for Given {
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.get(place(key)?).cloned()
    }

    fn slices(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        place(key).and_then(|at| self.slices.get(at)).cloned().into_iter().collect()
    }
}

fn place(key: &ObjectKey) -> Option<usize> {
    key.name.strip_prefix('s')?.parse().ok()
}

fn new_proxy() -> Result<Proxy> {
    let config = Config {
        node_name: "node-1".into(),
        zone: None,
        pod_subnets: vec!["10.42.0.0/16".parse()?],
        service_subnets: vec!["10.43.0.0/16".parse()?],
    };
    Ok(Proxy::new(&config, Kernel::open()?))
}

fn ours(side: &Side, count: usize) -> Result<(Figures, Proxy)> {
    let before = slab()?;
    let mut given = Given::new(count)?;
    let (mut proxy, mut took, mut held) = (side.new_proxy()?, Vec::new(), 0);
    for turn in 0..APPLIED {
        // Each turn puts the whole table in the place of the one before.
        if turn > 0 {
            proxy = side.new_proxy()?;
        }
        let begun = Instant::now();
        proxy.update(given.keys(), &given)?;
        took.push(begun.elapsed());
        if turn == 0 {
            held = slab()?.saturating_sub(before);
        }
    }
    let mut changes = Vec::new();
    for n in 0..CHANGES {
        given.slices[0] = slice(0, &after_change(n))?;
        let begun = Instant::now();
        proxy.update([key(0)], &given)?;
        changes.push(begun.elapsed());
    }
    Ok((Figures { whole: quantile(&took, 0.5), change: quantile(&changes, 0.5), slab: held }, proxy))
}

fn theirs(side: &Side, count: usize) -> Result<Figures> {
    let before = slab()?;
    let rules = whole(count)?;
    let (mut took, mut held) = (Vec::new(), 0);
    for turn in 0..APPLIED {
        took.push(side.nft(&rules)?);
        if turn == 0 {
            held = slab()?.saturating_sub(before);
        }
    }
    let mut changes = Vec::new();
    for n in 0..CHANGES {
        let gone = if n == 0 { endpoint(ENDPOINTS - 1) } else { changed(n - 1) };
        changes.push(side.nft(&change(changed(n), gone, &after_change(n))?)?);
    }
    Ok(Figures { whole: quantile(&took, 0.5), change: quantile(&changes, 0.5), slab: held })
}

fn service_chain(service: usize) -> String {
    format!("service-{service:08}-bench/s{service}/tcp/")
}

fn endpoint_chain(service: usize, address: Ipv4Addr) -> String {
    format!("endpoint-{service:08}-bench/s{service}/tcp/__{address}/{PORT}")
}

/// The whole table.
fn whole(count: usize) -> Result<String> {
    let mut rules = format!("{TABLE}{}", FRAME.trim_start());
    for service in 0..count {
        let (chain, own) = (service_chain(service), addresses(service));
        writeln!(rules, "add chain ip kube-proxy {chain}")?;
        for address in &own {
            add_endpoint(&mut rules, service, *address)?;
        }
        fill_service(&mut rules, service, &own)?;
        let ip = cluster_ip(service);
        writeln!(rules, "add element ip kube-proxy cluster-ips {{ {ip} }}")?;
        writeln!(rules, "add element ip kube-proxy service-ips {{ {ip} . tcp . 80 : goto {chain} }}")?;
    }
    Ok(rules)
}

fn add_endpoint(rules: &mut String, service: usize, address: Ipv4Addr) -> Result<()> {
    let chain = endpoint_chain(service, address);
    writeln!(rules, "add chain ip kube-proxy {chain}")?;
    writeln!(rules, "add rule ip kube-proxy {chain} ip saddr {address} jump mark-for-masquerade")?;
    Ok(writeln!(rules, "add rule ip kube-proxy {chain} meta l4proto tcp dnat to {address}:{PORT}")?)
}

fn fill_service(rules: &mut String, service: usize, endpoints: &[Ipv4Addr]) -> Result<()> {
    let (chain, ip) = (service_chain(service), cluster_ip(service));
    let outside = format!("ip daddr {ip} tcp dport 80 ip saddr != 10.42.0.0/16 jump mark-for-masquerade");
    writeln!(rules, "add rule ip kube-proxy {chain} {outside}")?;
    let choices: Vec<String> = (0..)
        .zip(endpoints)
        .map(|(n, address): (usize, _)| format!("{n} : goto {}", endpoint_chain(service, *address)))
        .collect();
    let (count, choices) = (choices.len(), choices.join(" , "));
    Ok(writeln!(rules, "add rule ip kube-proxy {chain} numgen random mod {count} vmap {{ {choices} }}")?)
}

/// What changes when the first service has another endpoint.
fn change(new: Ipv4Addr, gone: Ipv4Addr, all: &[Ipv4Addr]) -> Result<String> {
    let (chain, gone) = (service_chain(0), endpoint_chain(0, gone));
    let mut rules = String::new();
    add_endpoint(&mut rules, 0, new)?;
    writeln!(rules, "flush chain ip kube-proxy {chain}")?;
    fill_service(&mut rules, 0, all)?;
    writeln!(rules, "flush chain ip kube-proxy {gone}\ndelete chain ip kube-proxy {gone}")?;
    Ok(rules)
}

/// The kernel's memory that it cannot take back; source: proc_meminfo(5).
fn slab() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:")).context("SUnreclaim")?;
    let kibibytes: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).context("a number of KiB")?;
    ensure!(kibibytes > 0, "no slabs");
    Ok(kibibytes * 1024)
}

/// What does not belong to one service.
const FRAME: &str = "
add table ip kube-proxy
add set ip kube-proxy cluster-ips { type ipv4_addr ; }
add set ip kube-proxy nodeport-ips { type ipv4_addr ; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-nodeports { type inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-nodeports { type inet_proto . inet_service : verdict ; }
add map ip kube-proxy firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add chain ip kube-proxy mark-for-masquerade
add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000
add chain ip kube-proxy masquerading
add rule ip kube-proxy masquerading mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading mark set mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add chain ip kube-proxy services
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
add chain ip kube-proxy reject-chain
add rule ip kube-proxy reject-chain reject
add chain ip kube-proxy service-endpoints-check
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add chain ip kube-proxy nodeport-endpoints-check
add rule ip kube-proxy nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add chain ip kube-proxy firewall-check
add rule ip kube-proxy firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
add chain ip kube-proxy cluster-ips-check
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
add rule ip kube-proxy cluster-ips-check ip daddr 10.43.0.0/16 drop
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority dstnat ; }
add rule ip kube-proxy nat-prerouting jump services
add chain ip kube-proxy nat-output { type nat hook output priority -100 ; }
add rule ip kube-proxy nat-output jump services
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority srcnat ; }
add rule ip kube-proxy nat-postrouting jump masquerading
add chain ip kube-proxy filter-prerouting { type filter hook prerouting priority -110 ; }
add rule ip kube-proxy filter-prerouting ct state new jump firewall-check
add chain ip kube-proxy filter-output { type filter hook output priority -110 ; }
add rule ip kube-proxy filter-output ct state new jump firewall-check
add chain ip kube-proxy filter-output-post-dnat { type filter hook output priority -90 ; }
add rule ip kube-proxy filter-output-post-dnat ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output-post-dnat ct state new jump cluster-ips-check
add chain ip kube-proxy filter-forward { type filter hook forward priority -110 ; }
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
";
