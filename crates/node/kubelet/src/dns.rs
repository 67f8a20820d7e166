//! Decides a pod's resolver configuration from its `dnsPolicy` and `dnsConfig`.
//!
//! Source: `pkg/kubelet/network/dns`.

use crate::host::Settings;
use crate::reference::spec;
use pintle_cri::DnsConfig;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;

/// Limits of the C library's resolver, which upstream keeps to.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// More lines of the machine's resolver configuration are not read.
const MAX_LINES: usize = 1000;

/// The configuration of a pod. `machine` is the text of the machine's resolver configuration.
pub fn config(pod: &Pod, settings: &Settings, machine: &str) -> DnsConfig {
    let spec = spec(pod);
    let mut dns = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        "Default" => parse(machine),
        "ClusterFirst" if spec.host_network == Some(true) => parse(machine),
        _ if settings.cluster_dns.is_empty() => parse(machine),
        _ => cluster_first(pod, settings, machine),
    };
    if let Some(own) = &spec.dns_config {
        append(&mut dns.servers, own.nameservers.iter().flatten().cloned());
        append(&mut dns.searches, own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options.retain(|o| o.split(':').next() != Some(&name));
            dns.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    limited(dns)
}

fn cluster_first(pod: &Pod, settings: &Settings, machine: &str) -> DnsConfig {
    let domain = &settings.cluster_domain;
    let mut searches = vec![];
    if !domain.is_empty() {
        searches = vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.clone()];
    }
    append(&mut searches, parse(machine).searches);
    DnsConfig {
        servers: settings.cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn append(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn limited(mut dns: DnsConfig) -> DnsConfig {
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    while dns.searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_CHARACTERS {
        dns.searches.pop();
    }
    dns
}

/// Reads the form of resolv.conf(5); what is not understood is skipped.
pub fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines().take(MAX_LINES) {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        let Some(keyword) = words.next() else { continue };
        match keyword {
            "nameserver" => append(&mut dns.servers, words.next().map(str::to_owned)),
            "search" | "domain" => {
                dns.searches = words.filter(|w| *w != ".").map(|w| w.trim_end_matches('.').to_owned()).collect();
            }
            "options" => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::json;

    const MACHINE: &str = "# made\nnameserver 9.9.9.9\nsearch example.org.\noptions edns0\n";

    fn check(spec: serde_json::Value, servers: &[&str], searches: &[&str], options: &[&str]) {
        let settings = crate::fake::host::settings(std::path::Path::new("/nowhere"));
        let mut spec = spec;
        spec["containers"] = json!([]);
        let got = config(&pod(spec), &settings, MACHINE);
        assert_eq!((got.servers, got.searches, got.options), {
            let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            (own(servers), own(searches), own(options))
        });
    }

    #[test]
    fn policies_choose_servers_and_searches() {
        let cluster = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"];
        check(json!({}), &["10.43.0.10"], &cluster, &["ndots:5"]);
        check(json!({"hostNetwork": true}), &["9.9.9.9"], &["example.org"], &["edns0"]);
        check(
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            &["10.43.0.10"],
            &cluster,
            &["ndots:5"],
        );
        check(json!({"dnsPolicy": "Default"}), &["9.9.9.9"], &["example.org"], &["edns0"]);
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}),
            &["1.1.1.1"],
            &["a"],
            &["ndots:2", "rotate"],
        );
        check(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            &["10.43.0.10"],
            &cluster,
            &["ndots:1"],
        );
    }
}
