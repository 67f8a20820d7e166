//! Validation of the security contexts of pods and containers.

use super::windows;
use crate::{
    check::{Errors, Seen, name, number},
    tree,
};
use pintle_types::field::Path;
use serde_json::Value;

/// The security context of a pod.
pub(super) fn pod(errors: &mut Errors, path: &Path, spec: &Value) {
    let context = &spec["securityContext"];
    ids(errors, path, context, &["fsGroup", "runAsUser", "runAsGroup"]);
    for (i, group) in tree::list(context, "supplementalGroups").iter().enumerate() {
        number::id(errors, &path.child("supplementalGroups").index(i), group.as_i64().unwrap_or(0));
    }
    if tree::flag(spec, "shareProcessNamespace") && tree::flag(spec, "hostPID") {
        let words = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, words);
    }
    sysctls(errors, &path.child("sysctls"), spec);
    policy(errors, path, context, "fsGroupChangePolicy", ["Always", "OnRootMismatch"]);
    seccomp(errors, &path.child("seccompProfile"), &context["seccompProfile"]);
    windows::options(errors, &path.child("windowsOptions"), &context["windowsOptions"]);
    app_armor(errors, &path.child("appArmorProfile"), &context["appArmorProfile"]);
    policy(errors, path, context, "supplementalGroupsPolicy", ["Merge", "Strict"]);
    policy(errors, path, context, "seLinuxChangePolicy", ["MountOption", "Recursive"]);
}

fn policy(errors: &mut Errors, path: &Path, context: &Value, field: &str, known: [&str; 2]) {
    if let Some(policy) = context.get(field).and_then(Value::as_str) {
        errors.one_of(&path.child(field), policy, &known);
    }
}

/// The security context of a container, whose pod may share the users of its host.
pub(super) fn container(errors: &mut Errors, path: &Path, context: &Value, host_users: bool) {
    if context.is_null() {
        return;
    }
    ids(errors, path, context, &["runAsUser", "runAsGroup"]);
    if let Some(mount) = context.get("procMount").and_then(Value::as_str) {
        let at = path.child("procMount");
        errors.one_of(&at, mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(errors, &path.child("seccompProfile"), &context["seccompProfile"]);
    if context["allowPrivilegeEscalation"] == false {
        if tree::flag(context, "privileged") {
            let words = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid_shown(path, &context_shown(context), words);
        }
        for _ in tree::list(&context["capabilities"], "add").iter().filter(|one| *one == "CAP_SYS_ADMIN") {
            let words = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid_shown(path, &context_shown(context), words);
        }
    }
    windows::options(errors, &path.child("windowsOptions"), &context["windowsOptions"]);
    app_armor(errors, &path.child("appArmorProfile"), &context["appArmorProfile"]);
}

/// A context as upstream prints its struct.
fn context_shown(context: &Value) -> String {
    let nested: &[(&str, &[&str])] = &[
        ("capabilities", &["add", "drop"]),
        ("privileged", &[]),
        ("seLinuxOptions", &["user", "role", "type", "level"]),
        ("windowsOptions", &["gmsaCredentialSpecName", "gmsaCredentialSpec", "runAsUserName", "hostProcess"]),
        ("runAsUser", &[]),
        ("runAsGroup", &[]),
        ("runAsNonRoot", &[]),
        ("readOnlyRootFilesystem", &[]),
        ("allowPrivilegeEscalation", &[]),
        ("procMount", &[]),
        ("seccompProfile", &["type", "localhostProfile"]),
        ("appArmorProfile", &["type", "localhostProfile"]),
    ];
    let fields = nested.iter().map(|(field, inner)| {
        let value = &context[*field];
        let shown = match inner.is_empty() || value.is_null() {
            true => value.to_string(),
            false => struct_shown(value, inner),
        };
        format!("\"{}\":{shown}", go_name(field))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// An object of these fields as upstream prints its struct.
fn struct_shown(value: &Value, fields: &[&str]) -> String {
    let shown = fields.iter().map(|field| format!("\"{}\":{}", go_name(field), value[*field]));
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}

fn go_name(field: &str) -> String {
    match field {
        "seLinuxOptions" => "SELinuxOptions".to_owned(),
        "gmsaCredentialSpecName" => "GMSACredentialSpecName".to_owned(),
        "gmsaCredentialSpec" => "GMSACredentialSpec".to_owned(),
        _ => field[..1].to_uppercase() + &field[1..],
    }
}

fn ids(errors: &mut Errors, path: &Path, context: &Value, fields: &[&str]) {
    for field in fields {
        if let Some(id) = context.get(field).and_then(Value::as_i64) {
            number::id(errors, &path.child(field), id);
        }
    }
}

const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(errors: &mut Errors, path: &Path, profile: &Value) {
    if profile.is_null() {
        return;
    }
    let (kind, at) = (tree::text(profile, "type"), path.child("localhostProfile"));
    if errors.needs(&path.child("type"), kind, "type is required when seccompProfile is set") {
        errors.one_of(&path.child("type"), kind, PROFILES);
    }
    match profile.get("localhostProfile").and_then(Value::as_str) {
        None if kind == "Localhost" => errors.required(&at, "must be set when seccomp type is Localhost"),
        Some(file) if kind == "Localhost" => name::local_path(errors, &at, file),
        Some(_) => {
            let shown = struct_shown(profile, &["type", "localhostProfile"]);
            errors.invalid_shown(&at, &shown, "can only be set when seccomp type is Localhost");
        }
        None => {}
    }
}

fn app_armor(errors: &mut Errors, path: &Path, profile: &Value) {
    const LONGEST: usize = 4095;
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    if profile.is_null() {
        return;
    }
    let (kind, at) = (tree::text(profile, "type"), path.child("localhostProfile"));
    let local = profile.get("localhostProfile").and_then(Value::as_str);
    match (kind, local) {
        ("Localhost", None) => errors.required(&at, NEEDED),
        ("Localhost", Some(local)) => {
            if local.trim() != local {
                errors.invalid(&at, local, "must not be padded with whitespace");
            } else if local.is_empty() {
                errors.required(&at, NEEDED);
            }
            if local.len() > LONGEST {
                errors.too_long(&at, LONGEST);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(local)) => {
            errors.invalid(&at, local, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        _ => errors.one_of(&path.child("type"), kind, PROFILES),
    }
}

fn sysctls(errors: &mut Errors, path: &Path, spec: &Value) {
    const WORDS: &str = "must have at most 253 characters and match regex \
                         ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut seen = Seen::default();
    for (i, sysctl) in tree::list(&spec["securityContext"], "sysctls").iter().enumerate() {
        let at = path.index(i).child("name");
        let name = tree::text(sysctl, "name");
        let new = seen.first(name);
        if name.is_empty() {
            errors.required(&at, "");
        } else if name.len() > 253 || !is_sysctl(name) {
            errors.invalid(&at, name, WORDS);
        } else if !new {
            errors.duplicate(&at, name);
        }
        for (flag, space) in [("hostNetwork", Namespace::Net), ("hostIPC", Namespace::Ipc)] {
            if tree::flag(spec, flag) && namespace_of(name) == Some(space) {
                errors.invalid(&at, name, &format!("may not be specified when '{flag}' is true"));
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

/// The kernel namespace that a sysctl belongs to, if there is one.
fn namespace_of(sysctl: &str) -> Option<Namespace> {
    // A slash before any dot separates, and the other one is a part of a name.
    let slashed = sysctl.find(['/', '.']).is_some_and(|at| sysctl[at..].starts_with('/'));
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    let name: String = if slashed { sysctl.chars().map(swap).collect() } else { sysctl.to_owned() };
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
    match (ipc || name == "kernel.sem", name.starts_with("net.")) {
        (true, _) => Some(Namespace::Ipc),
        (_, true) => Some(Namespace::Net),
        _ => None,
    }
}

fn is_sysctl(name: &str) -> bool {
    let low = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split(['.', '/']).all(|part| {
        part.starts_with(low) && part.ends_with(low) && part.chars().all(|c| low(c) || c == '-' || c == '_')
    })
}
