//! The baseline level: no known ways to more privileges.

use super::containers::{all, names, of, quoted, setters, unique};
use super::{Violation, violation};
use serde_json::Value;

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Harmless settings of the kernel, with the version from which they count as such.
const SYSCTLS: [(&str, u32); 10] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
];

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// In upstream's order. Under `restricted` some rules give way to stricter ones.
pub(super) fn violations(metadata: &Value, spec: &Value, minor: u32, restricted: bool) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(app_armor(metadata, spec));
    if !restricted || minor < 22 {
        found.extend(capabilities(spec));
    }
    found.extend(host_namespaces(spec));
    if !restricted {
        found.extend(host_path(spec));
    }
    found.extend(host_ports(spec));
    if minor >= 34 {
        found.extend(host_probes(spec));
    }
    found.extend(privileged(spec));
    found.extend(proc_mount(spec, minor));
    found.extend(selinux(spec, minor));
    if !restricted {
        found.extend(seccomp(spec));
    }
    found.extend(sysctls(spec, minor));
    found.extend(host_process(spec));
    found
}

fn app_armor(metadata: &Value, spec: &Value) -> Option<Violation> {
    let unconfined = |holder: &Value| holder["securityContext"]["appArmorProfile"]["type"] == "Unconfined";
    let annotated = metadata["annotations"].as_object().into_iter().flatten().filter(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        let fine = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !fine
    });
    let annotations: Vec<String> = annotated.map(|(k, v)| format!("{k}={v}")).collect();
    let bad = names(spec, unconfined);
    let mut details = Vec::new();
    if unconfined(spec) || !bad.is_empty() {
        details
            .push(format!("{} must not set AppArmor profile type to \"Unconfined\"", setters(unconfined(spec), &bad)));
    }
    details.extend((!annotations.is_empty()).then(|| annotations.join(", ")));
    let several = bad.len() + annotations.len() + usize::from(unconfined(spec)) > 1;
    let reason = if several { "forbidden AppArmor profiles" } else { "forbidden AppArmor profile" };
    (!details.is_empty()).then(|| violation(reason, details.join(", ")))
}

fn capabilities(spec: &Value) -> Option<Violation> {
    let added = |container: &Value| -> Vec<String> {
        let list = items(&container["securityContext"]["capabilities"], "add");
        let texts = list.iter().filter_map(Value::as_str).filter(|c| !CAPABILITIES.contains(c));
        texts.map(str::to_owned).collect()
    };
    let bad = names(spec, |container| !added(container).is_empty());
    let which = unique(all(spec).flat_map(added).collect());
    let detail = || format!("{} must not include {} in securityContext.capabilities.add", of(&bad), quoted(&which));
    (!bad.is_empty()).then(|| violation("non-default capabilities", detail()))
}

fn host_namespaces(spec: &Value) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| violation("host namespaces", shared.join(", ")))
}

fn host_path(spec: &Value) -> Option<Violation> {
    let volumes = items(spec, "volumes").iter().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.filter_map(|volume| volume["name"].as_str()).collect();
    let word = if names.len() == 1 { "volume" } else { "volumes" };
    (!names.is_empty()).then(|| violation("hostPath volumes", format!("{word} {}", quoted(&names))))
}

fn host_ports(spec: &Value) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<u64> {
        items(container, "ports")
            .iter()
            .filter_map(|port| port["hostPort"].as_u64())
            .filter(|port| *port != 0)
            .collect()
    };
    let bad = names(spec, |container| !ports(container).is_empty());
    let which = unique(all(spec).flat_map(ports).map(|port| port.to_string()).collect());
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let word = if which.len() == 1 { "hostPort" } else { "hostPorts" };
    (!bad.is_empty()).then(|| violation("hostPort", format!("{} {uses} {word} {}", of(&bad), which.join(", "))))
}

fn host_probes(spec: &Value) -> Option<Violation> {
    let hosts = |container: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].into_iter().map(|hook| &container["lifecycle"][hook]);
        let named = probes.chain(hooks).flat_map(|h| [&h["httpGet"]["host"], &h["tcpSocket"]["host"]]);
        let texts = named.filter_map(Value::as_str).filter(|h| !matches!(*h, "" | "127.0.0.1" | "::1" | "localhost"));
        texts.map(str::to_owned).collect()
    };
    let bad = names(spec, |container| !hosts(container).is_empty());
    let which = unique(all(spec).flat_map(hosts).collect());
    let (uses, word) = (if bad.len() == 1 { "uses" } else { "use" }, if which.len() == 1 { "host" } else { "hosts" });
    let detail = || format!("{} {uses} probe or lifecycle {word} {}", of(&bad), quoted(&which));
    (!bad.is_empty()).then(|| violation("probe or lifecycle host", detail()))
}

fn privileged(spec: &Value) -> Option<Violation> {
    let bad = names(spec, |container| container["securityContext"]["privileged"] == true);
    let detail = || format!("{} must not set securityContext.privileged=true", of(&bad));
    (!bad.is_empty()).then(|| violation("privileged", detail()))
}

fn proc_mount(spec: &Value, minor: u32) -> Option<Violation> {
    if minor >= 35 && spec["hostUsers"] == false {
        return None;
    }
    let mount = |container: &Value| {
        let kind = container["securityContext"]["procMount"].as_str();
        kind.filter(|kind| *kind != "Default").map(str::to_owned)
    };
    let bad = names(spec, |container| mount(container).is_some());
    let which = unique(all(spec).filter_map(mount).collect());
    let detail = || format!("{} must not set securityContext.procMount to {}", of(&bad), quoted(&which));
    (!bad.is_empty()).then(|| violation("procMount", detail()))
}

fn selinux(spec: &Value, minor: u32) -> Option<Violation> {
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (minor >= 31 && kind == "container_engine_t")
    };
    let options = |holder: &Value| holder["securityContext"]["seLinuxOptions"].clone();
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let is_bad = |holder: &Value| {
        let options = options(holder);
        !allowed(&text(&options, "type")) || !text(&options, "user").is_empty() || !text(&options, "role").is_empty()
    };
    let bad = names(spec, is_bad);
    let pod = is_bad(spec);
    if !pod && bad.is_empty() {
        return None;
    }
    let holders = || all(spec).chain(Some(spec)).map(options);
    let types = unique(holders().map(|o| text(&o, "type")).filter(|kind| !allowed(kind)).collect());
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", if types.len() == 1 { "type" } else { "types" }, quoted(&types)));
    }
    for field in ["user", "role"] {
        what.extend(holders().any(|o| !text(&o, field).is_empty()).then(|| format!("{field} may not be set")));
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions: {}", setters(pod, &bad), what.join("; "));
    Some(violation("seLinuxOptions", detail))
}

fn seccomp(spec: &Value) -> Option<Violation> {
    let unconfined = |holder: &Value| holder["securityContext"]["seccompProfile"]["type"] == "Unconfined";
    let bad = names(spec, unconfined);
    let who = setters(unconfined(spec), &bad);
    let detail = || format!("{who} must not set securityContext.seccompProfile.type to \"Unconfined\"");
    (!who.is_empty()).then(|| violation("seccompProfile", detail()))
}

fn sysctls(spec: &Value, minor: u32) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && minor >= *since);
    let set = items(&spec["securityContext"], "sysctls").iter().filter_map(|sysctl| sysctl["name"].as_str());
    let bad: Vec<&str> = set.filter(|name| !allowed(name)).collect();
    (!bad.is_empty()).then(|| violation("forbidden sysctls", bad.join(", ")))
}

fn host_process(spec: &Value) -> Option<Violation> {
    let is = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let bad = names(spec, is);
    let who = setters(is(spec), &bad);
    let detail = || format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    (!who.is_empty()).then(|| violation("hostProcess", detail()))
}
