//! Describes a pod's sandbox to the runtime.

use crate::dns;
use crate::host::Settings;
use crate::reference::{lasting_containers, log_dir_name, spec};
use crate::{labels, resources, security};
use pintle_cri::{IdMappings, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{ContainerPort, Pod};

/// The longest host name that the kernel takes.
const MAX_HOSTNAME: usize = 63;

/// A pod's host name, and the domain that its subdomain gives it.
pub fn names(pod: &Pod, settings: &Settings) -> (String, String) {
    let spec = spec(pod);
    if let Some(all) = spec.hostname_override.as_deref() {
        return (shortened(all), String::new());
    }
    let own = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| pod.name());
    let domain = match spec.subdomain.as_deref() {
        None | Some("") => String::new(),
        Some(sub) => format!("{sub}.{}.svc.{}", pod.namespace(), settings.cluster_domain),
    };
    (shortened(own), domain)
}

fn shortened(name: &str) -> String {
    let host: String = name.chars().take(MAX_HOSTNAME).collect();
    host.trim_end_matches(['-', '.']).to_owned()
}

/// The sandbox's configuration. `machine_resolv_conf` is the text of the machine's resolver configuration.
pub fn config(
    pod: &Pod,
    attempt: u32,
    settings: &Settings,
    cgroup_parent: &str,
    machine_resolv_conf: &str,
    id_mappings: IdMappings,
) -> Result<PodSandboxConfig, String> {
    let spec = spec(pod);
    let security = spec.security_context.clone().unwrap_or_default();
    Ok(PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: pod.name().into(),
            uid: pod.uid().into(),
            namespace: pod.namespace().into(),
            attempt,
        },
        hostname: hostname(pod, settings)?,
        log_directory: settings.log_dir.join(log_dir_name(pod)).to_string_lossy().into_owned(),
        dns: dns::config(pod, settings, machine_resolv_conf),
        port_mappings: port_mappings(pod),
        labels: labels::of_sandbox(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: cgroup_parent.to_owned(),
        sysctls: security.sysctls.into_iter().flatten().map(|s| (s.name, s.value)).collect(),
        namespaces: security::namespaces(pod),
        privileged: security::is_privileged(pod),
        id_mappings,
        overhead: Some(resources::of_pod(pod)),
    })
}

/// What `hostname` prints in the pod. None on the machine's network, where the pod has the machine's name: runtimes
/// refuse to set it.
fn hostname(pod: &Pod, settings: &Settings) -> Result<String, String> {
    if spec(pod).host_network == Some(true) {
        return Ok(String::new());
    }
    let (host, domain) = names(pod, settings);
    if spec(pod).set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(host);
    }
    let full = format!("{host}.{domain}");
    if full.len() > MAX_HOSTNAME + 1 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({} characters is the max, {} characters requested)",
            MAX_HOSTNAME + 1,
            full.len()
        ));
    }
    Ok(full)
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if spec(pod).host_network == Some(true) {
        return vec![];
    }
    lasting_containers(pod).flat_map(|(_, c)| c.ports.iter().flatten()).filter_map(mapping).collect()
}

fn mapping(port: &ContainerPort) -> Option<PortMapping> {
    let host_port = u16::try_from(port.host_port.unwrap_or(0)).ok().filter(|p| *p != 0)?;
    Some(PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        container_port: u16::try_from(port.container_port).ok()?,
        host_port,
        host_ip: port.host_ip.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::json;

    fn made(spec: serde_json::Value) -> PodSandboxConfig {
        let settings = crate::fake::host::settings(std::path::Path::new("/r"));
        config(&pod(spec), 2, &settings, "/kubepods/podu1", "", IdMappings::default()).unwrap()
    }

    #[test]
    fn a_sandbox_is_named_labelled_and_mapped() {
        let got = made(json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true, "containers": [
            {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}));
        assert_eq!(got.hostname, "h.s.default.svc.cluster.local");
        assert_eq!(got.log_directory, "/r/logs/default_p_u1");
        assert_eq!(got.port_mappings.len(), 1);
        assert_eq!(got.labels[labels::POD_UID], "u1");
        assert_eq!(got.metadata.attempt, 2);
    }

    #[test]
    fn a_host_name_may_be_put_in_the_place_of_all_others() {
        let got = made(json!({"hostnameOverride": "all.of.it", "hostname": "h", "subdomain": "s", "containers": []}));
        assert_eq!(got.hostname, "all.of.it");
    }

    #[test]
    fn the_host_network_names_and_maps_nothing() {
        let got = made(json!({"hostNetwork": true, "containers": [
            {"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}));
        assert_eq!((got.hostname.as_str(), got.port_mappings.len()), ("", 0));
    }
}
