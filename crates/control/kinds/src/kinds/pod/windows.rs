//! What only pods of one operating system may say: options of Windows, and the settings that Windows lacks.

use crate::{check::Errors, tree};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// Who a container of Windows runs as.
pub(super) fn options(errors: &mut Errors, path: &Path, options: &Value) {
    const MOST_BYTES: usize = 64 * 1024;
    if let Some(name) = options.get("gmsaCredentialSpecName").and_then(Value::as_str) {
        errors.invalid_for(&path.child("gmsaCredentialSpecName"), name, names::dns1123_subdomain_errors(name));
    }
    if let Some(spec) = options.get("gmsaCredentialSpec").and_then(Value::as_str) {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > MOST_BYTES {
            errors.invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(user) = options.get("runAsUserName").and_then(Value::as_str) {
        let at = path.child("runAsUserName");
        user_errors(user).into_iter().for_each(|why| errors.invalid(&at, user, why));
    }
}

fn user_errors(text: &str) -> Vec<&'static str> {
    if text.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match text.split('\\').collect::<Vec<_>>().as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let checks = [
        (domain.is_some_and(|it| it.len() >= 256), "runAsUserName's Domain length must be under 256 characters"),
        (
            domain.is_some_and(|it| !is_net_bios(it) && !is_dns_domain(it)),
            "runAsUserName's Domain doesn't match the NetBios nor the DNS format",
        ),
        (user.is_empty(), "runAsUserName's User cannot be empty"),
        (user.len() > 104, "runAsUserName's User length must not be longer than 104 characters"),
        (
            !user.is_empty() && user.chars().all(|c| c == '.' || c == ' '),
            "runAsUserName's User cannot contain only periods or spaces",
        ),
        (
            user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)),
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
        ),
    ];
    checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, why)| why).collect()
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length) && !domain.starts_with('.') && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_dns_domain(domain: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    domain.split('.').all(|label| {
        let plain = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        label.len() <= 63 && plain && edge(label.chars().next()) && edge(label.chars().last())
    })
}

/// All containers of a pod with their paths, in upstream's order of visiting.
pub(super) fn containers<'a>(path: &Path, spec: &'a Value) -> Vec<(Path, &'a Value)> {
    let of = |field: &'static str| {
        let at = path.child(field);
        tree::list(spec, field).iter().enumerate().map(move |(i, container)| (at.index(i), container))
    };
    of("initContainers").chain(of("containers")).chain(of("ephemeralContainers")).collect()
}

/// Containers that are processes of a Windows host: all of a pod or none, and on the host's network.
pub(super) fn host_processes(errors: &mut Errors, path: &Path, spec: &Value) {
    let of = |owner: &Value| owner["securityContext"]["windowsOptions"].get("hostProcess").and_then(Value::as_bool);
    let pod = of(spec);
    let all = containers(path, spec);
    let mut count = 0;
    for (at, container) in &all {
        let own = of(container);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let at = at.child("securityContext").child("windowsOptions").child("hostProcess");
            let words = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&at, own, &words);
        }
        count += usize::from(own.or(pod) == Some(true));
    }
    if count == 0 {
        return;
    }
    if count != all.len() {
        let words = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", words);
    }
    if !tree::flag(spec, "hostNetwork") {
        let words = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, words);
    }
}

/// The system that a pod says it is for, and the fields that this system lacks.
pub(super) fn operating_system(errors: &mut Errors, path: &Path, spec: &Value) {
    let at = path.child("os");
    if spec["os"].is_null() {
        return;
    }
    match tree::text(&spec["os"], "name") {
        "" => errors.required(&at.child("name"), "cannot be empty"),
        "linux" => linux(errors, path, spec),
        "windows" => windows(errors, path, spec),
        other => errors.unsupported(&at, other, &["linux", "windows"]),
    }
}

fn linux(errors: &mut Errors, path: &Path, spec: &Value) {
    let pod = std::iter::once((path.clone(), spec));
    for (at, owner) in pod.chain(containers(path, spec)) {
        if tree::has(&owner["securityContext"], "windowsOptions") {
            let at = at.child("securityContext").child("windowsOptions");
            errors.forbidden(&at, "windows options cannot be set for a linux pod");
        }
    }
}

/// What a pod of Windows may not say, in upstream's order; the flag tells fields of the security context.
const OF_PODS: &[(&str, bool)] = &[
    ("appArmorProfile", true),
    ("seLinuxOptions", true),
    ("hostUsers", false),
    ("hostPID", false),
    ("hostIPC", false),
    ("seccompProfile", true),
    ("fsGroup", true),
    ("fsGroupChangePolicy", true),
    ("sysctls", true),
    ("shareProcessNamespace", false),
    ("runAsUser", true),
    ("runAsGroup", true),
    ("supplementalGroups", true),
    ("supplementalGroupsPolicy", true),
    ("seLinuxChangePolicy", true),
];

/// The same of the contexts of containers.
const OF_CONTAINERS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn windows(errors: &mut Errors, path: &Path, spec: &Value) {
    const WORDS: &str = "cannot be set for a windows pod";
    for (field, in_context) in OF_PODS {
        let (owner, at) = match in_context {
            true => (&spec["securityContext"], path.child("securityContext")),
            false => (spec, path.clone()),
        };
        let absent = match *field {
            "hostPID" | "hostIPC" | "sysctls" => tree::is_empty(tree::at(owner, field)),
            _ => !tree::has(owner, field),
        };
        if !absent {
            errors.forbidden(&at.child(field), WORDS);
        }
    }
    for (at, container) in containers(path, spec) {
        let at = at.child("securityContext");
        for field in OF_CONTAINERS.iter().filter(|field| tree::has(&container["securityContext"], field)) {
            errors.forbidden(&at.child(field), WORDS);
        }
    }
}
