//! Writes the `/etc/hosts` file that the containers of a pod share.

use crate::reference::spec;
use pintle_types::k8s::api::core::v1::Pod;
use std::fmt::Write;

/// The file of a pod with its own network. `hostname` is the sandbox's, `domain` that of the pod's subdomain.
pub fn content(pod: &Pod, ips: &[String], hostname: &str, domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let names = if domain.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domain}\t{hostname}") };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{ip}\t{names}");
    }
    text + &aliases(pod)
}

/// The file of a pod on the machine's network: the machine's own, with the pod's aliases.
pub fn content_on_host(pod: &Pod, machine: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{machine}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let list = spec(pod).host_aliases.as_deref().unwrap_or_default();
    if list.is_empty() {
        return String::new();
    }
    let lines = list.iter().map(|a| format!("{}\t{}\n", a.ip, a.hostnames.as_deref().unwrap_or_default().join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::json;

    #[test]
    fn a_pod_finds_itself_and_its_aliases() {
        let pod = pod(json!({"containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = content(&pod, &["10.42.0.5".into()], "p", "sub.default.svc.cluster.local");
        assert!(text.contains("\n10.42.0.5\tp.sub.default.svc.cluster.local\tp\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
        assert!(content_on_host(&pod, "127.0.0.1 localhost\n").contains("127.0.0.1 localhost\n"));
    }
}
