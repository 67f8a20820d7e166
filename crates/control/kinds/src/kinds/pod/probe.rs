//! Validation of probes and lifecycle hooks.

use crate::{
    check::{Errors, number},
    tree,
};
use pintle_types::field::Path;
use serde_json::Value;

/// All probes and hooks of a container that may have them.
pub(super) fn validate_all(errors: &mut Errors, path: &Path, container: &Value) {
    if tree::has(container, "lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            let value = &container["lifecycle"][hook];
            if !value.is_null() {
                handler(errors, &path.child(hook), value, true);
            }
        }
    }
    for (field, kind) in
        [("livenessProbe", Kind::Liveness), ("readinessProbe", Kind::Readiness), ("startupProbe", Kind::Startup)]
    {
        if tree::has(container, field) {
            probe(errors, &path.child(field), &container[field], kind);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Liveness,
    Readiness,
    Startup,
}

fn probe(errors: &mut Errors, path: &Path, probe: &Value, kind: Kind) {
    const TIMES: &[&str] =
        &["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    handler(errors, path, probe, false);
    number::fields_not_negative(errors, path, probe, TIMES);
    let grace = probe.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if kind == Kind::Readiness {
        if let Some(seconds) = grace {
            errors.invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                "must not be set for readinessProbes",
            );
        }
        return;
    }
    if let Some(seconds) = grace.filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
    let successes = tree::int(probe, "successThreshold");
    if successes != 1 {
        errors.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
}

fn handler(errors: &mut Errors, path: &Path, handler: &Value, hook: bool) {
    let kinds: &[&str] =
        if hook { &["exec", "httpGet", "tcpSocket", "sleep"] } else { &["exec", "httpGet", "tcpSocket", "grpc"] };
    let mut found = 0;
    for kind in kinds.iter().filter(|kind| tree::has(handler, kind)) {
        let at = path.child(kind);
        found += 1;
        if found > 1 {
            errors.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        action(errors, &at, kind, &handler[*kind]);
    }
    if found == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn action(errors: &mut Errors, path: &Path, kind: &str, action: &Value) {
    match kind {
        "exec" if tree::list(action, "command").is_empty() => errors.required(&path.child("command"), ""),
        "httpGet" => http_get(errors, path, action),
        "tcpSocket" => number::port_or_name(errors, &path.child("port"), &action["port"]),
        "grpc" => number::port(errors, &path.child("port"), tree::int(action, "port")),
        "sleep" if tree::int(action, "seconds") < 0 => {
            errors.invalid(&path.child("seconds"), tree::int(action, "seconds"), "must be greater than or equal to 0");
        }
        _ => {}
    }
}

fn http_get(errors: &mut Errors, path: &Path, get: &Value) {
    errors.needs(&path.child("path"), tree::text(get, "path"), "");
    number::port_or_name(errors, &path.child("port"), &get["port"]);
    errors.one_of(&path.child("scheme"), tree::text(get, "scheme"), &["HTTP", "HTTPS"]);
    for (i, header) in tree::list(get, "httpHeaders").iter().enumerate() {
        let name = tree::text(header, "name");
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            let words = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used \
                         for validation is '[-A-Za-z0-9]+')";
            errors.invalid(&path.child("httpHeaders").index(i).child("name"), name, words);
        }
    }
}
