//! Validation of the security contexts of pods and containers.

use crate::{
    check::{Errors, Seen, number},
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
    sysctls(errors, &path.child("sysctls"), tree::list(context, "sysctls"));
    for (field, known) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        if let Some(policy) = context.get(field).and_then(Value::as_str) {
            errors.one_of(&path.child(field), policy, &known);
        }
    }
    seccomp(errors, &path.child("seccompProfile"), &context["seccompProfile"]);
    app_armor(errors, &path.child("appArmorProfile"), &context["appArmorProfile"]);
}

/// The security context of a container.
pub(super) fn container(errors: &mut Errors, path: &Path, context: &Value) {
    ids(errors, path, context, &["runAsUser", "runAsGroup"]);
    if let Some(mount) = context.get("procMount").and_then(Value::as_str) {
        errors.one_of(&path.child("procMount"), mount, &["Default", "Unmasked"]);
    }
    seccomp(errors, &path.child("seccompProfile"), &context["seccompProfile"]);
    app_armor(errors, &path.child("appArmorProfile"), &context["appArmorProfile"]);
    if context["allowPrivilegeEscalation"] != false {
        return;
    }
    if tree::flag(context, "privileged") {
        let words = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(path, context.clone(), words);
    }
    if tree::list(&context["capabilities"], "add").iter().any(|one| one == "CAP_SYS_ADMIN") {
        let words = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(path, context.clone(), words);
    }
}

fn ids(errors: &mut Errors, path: &Path, context: &Value, fields: &[&str]) {
    for field in fields {
        if let Some(id) = context.get(field).and_then(Value::as_i64) {
            number::id(errors, &path.child(field), id);
        }
    }
}

fn seccomp(errors: &mut Errors, path: &Path, profile: &Value) {
    const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
    if profile.is_null() {
        return;
    }
    let kind = tree::text(profile, "type");
    let file = profile.get("localhostProfile").and_then(Value::as_str);
    if kind == "Localhost" {
        match file {
            None | Some("") => {
                errors.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost")
            }
            Some(file) => crate::check::name::local_path(errors, &path.child("localhostProfile"), file),
        }
    } else if let Some(file) = file {
        errors.invalid(&path.child("localhostProfile"), file, "can only be set when seccomp type is Localhost");
    }
    errors.needs_one_of(&path.child("type"), kind, TYPES);
}

fn app_armor(errors: &mut Errors, path: &Path, profile: &Value) {
    if profile.is_null() {
        return;
    }
    let kind = tree::text(profile, "type");
    let local = profile.get("localhostProfile").and_then(Value::as_str);
    match (kind, local) {
        ("Localhost", None | Some("")) => {
            errors.required(&path.child("localhostProfile"), "must be set when AppArmor type is Localhost");
        }
        ("Localhost", _) | (_, None) => {}
        (_, Some(local)) => {
            errors.invalid(&path.child("localhostProfile"), local, "can only be set when AppArmor type is Localhost");
        }
    }
    match kind {
        "" => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        _ => errors.one_of(&path.child("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

fn sysctls(errors: &mut Errors, path: &Path, sysctls: &[Value]) {
    const WORDS: &str = "must have at most 253 characters and match regex \
                         ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut seen = Seen::default();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = path.index(i).child("name");
        let name = tree::text(sysctl, "name");
        if name.is_empty() {
            errors.required(&at, "");
        } else if name.len() > 253 || !is_sysctl(name) {
            errors.invalid(&at, name, WORDS);
        } else if !seen.first(name) {
            errors.duplicate(&at, name);
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let low = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split(['.', '/']).all(|part| {
        part.starts_with(low) && part.ends_with(low) && part.chars().all(|c| low(c) || c == '-' || c == '_')
    })
}
