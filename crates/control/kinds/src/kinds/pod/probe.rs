//! Validation of probes, lifecycle hooks and the signals that stop containers.

use crate::{
    check::{Errors, number},
    tree,
};
use pintle_types::field::Path;
use pintle_types::signals;
use serde_json::Value;

/// All probes and hooks of a container that may have them, in a pod of this `spec`.
pub(super) fn validate_all(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if tree::has(container, "lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            let value = &container["lifecycle"][hook];
            if !value.is_null() {
                handler(errors, &path.child(hook), value, &["exec", "httpGet", "tcpSocket", "sleep"], grace);
            }
        }
        if let Some(signal) = container["lifecycle"].get("stopSignal").and_then(Value::as_str) {
            stop_signal(errors, &path.child("stopSignal"), signal, &spec["os"]);
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
    handler(errors, path, probe, &["exec", "httpGet", "tcpSocket", "grpc"], None);
    number::fields_not_negative(errors, path, probe, TIMES);
    let at = path.child("terminationGracePeriodSeconds");
    let grace = probe.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if let Some(seconds) = grace.filter(|seconds| *seconds <= 0) {
        errors.invalid(&at, seconds, "must be greater than 0");
    }
    if kind == Kind::Readiness {
        if let Some(seconds) = grace {
            errors.invalid(&at, seconds, "must not be set for readinessProbes");
        }
        return;
    }
    let successes = tree::int(probe, "successThreshold");
    if successes != 1 {
        errors.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
}

fn handler(errors: &mut Errors, path: &Path, handler: &Value, kinds: &[&str], grace: Option<i64>) {
    let mut found = 0;
    for kind in kinds.iter().filter(|kind| tree::has(handler, kind)) {
        let at = path.child(kind);
        found += 1;
        if found > 1 {
            errors.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        action(errors, &at, kind, &handler[*kind], grace);
    }
    if found == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn action(errors: &mut Errors, path: &Path, kind: &str, action: &Value, grace: Option<i64>) {
    match kind {
        "exec" if tree::list(action, "command").is_empty() => errors.required(&path.child("command"), ""),
        "httpGet" => http_get(errors, path, action),
        "tcpSocket" => number::port_or_name(errors, &path.child("port"), &action["port"]),
        "grpc" => number::port(errors, &path.child("port"), tree::int(action, "port")),
        "sleep" => {
            let seconds = tree::int(action, "seconds");
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                let words = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.invalid(path, seconds, &words);
            }
        }
        _ => {}
    }
}

fn http_get(errors: &mut Errors, path: &Path, get: &Value) {
    errors.needs(&path.child("path"), tree::text(get, "path"), "");
    number::port_or_name(errors, &path.child("port"), &get["port"]);
    errors.one_of(&path.child("scheme"), tree::text(get, "scheme"), &["HTTP", "HTTPS"]);
    for header in tree::list(get, "httpHeaders") {
        let name = tree::text(header, "name");
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            let words = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used \
                         for validation is '[-A-Za-z0-9]+')";
            errors.invalid(&path.child("httpHeaders"), name, words);
        }
    }
}

fn stop_signal(errors: &mut Errors, at: &Path, signal: &str, os: &Value) {
    match tree::text(os, "name") {
        _ if os.is_null() => errors.forbidden(at, "may not be set for containers with empty `spec.os.name`"),
        "windows" => errors.one_of(at, signal, &["SIGKILL", "SIGTERM"]),
        "linux" => {
            let mut known: Vec<String> = signals::names().collect();
            known.sort_unstable();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            errors.one_of(at, signal, &known);
        }
        _ => {}
    }
}
