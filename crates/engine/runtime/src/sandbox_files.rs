//! Writes the files that a sandbox gives its containers: host name, hosts, resolver configuration.

use pintle_cri::DnsConfig;
use std::fs;
use std::io;
use std::path::Path;

pub const HOSTNAME: &str = "hostname";
pub const HOSTS: &str = "hosts";
pub const RESOLV_CONF: &str = "resolv.conf";

/// Each file and where containers see it.
pub const TARGETS: [(&str, &str); 3] =
    [(HOSTNAME, "/etc/hostname"), (HOSTS, "/etc/hosts"), (RESOLV_CONF, "/etc/resolv.conf")];

/// Writes all of them into the sandbox's folder. Without any DNS setting the machine's resolver configuration is
/// copied.
pub fn write(folder: &Path, hostname: &str, dns: &DnsConfig) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(HOSTNAME), format!("{hostname}\n"))?;
    fs::write(folder.join(HOSTS), hosts(hostname))?;
    let resolver = match resolv_conf(dns) {
        text if text.is_empty() => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        text => text,
    };
    fs::write(folder.join(RESOLV_CONF), resolver)
}

fn hosts(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n")
}

/// In the order that containerd writes: search, nameservers, options (resolv.conf(5)).
fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_configuration_has_what_was_asked() {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        let dns = DnsConfig {
            servers: list(&["10.43.0.10", "10.43.0.11"]),
            searches: list(&["a.svc.cluster.local", "cluster.local"]),
            options: list(&["ndots:5"]),
        };
        let expected = "search a.svc.cluster.local cluster.local\nnameserver 10.43.0.10\nnameserver 10.43.0.11\n\
                        options ndots:5\n";
        assert_eq!(resolv_conf(&dns), expected);
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
