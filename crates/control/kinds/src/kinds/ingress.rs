//! Ingresses and their classes.

use super::workload;
use crate::{
    check::{Errors, name, net, number},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

pub struct Ingress;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Class",
        "string",
        "",
        0,
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    Column::new("Hosts", "string", "", 0, "Hosts that incoming requests are matched against before the ingress rule"),
    Column::new("Address", "string", "", 0, "Address is a list containing ingress points for the load-balancer"),
    Column::new("Ports", "string", "", 0, "Ports of TLS configurations that open"),
    column::AGE,
];

/// How classes were named before there was a field for them.
const CLASS: &str = "kubernetes.io/ingress.class";

impl Strategy for Ingress {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"]))
    }

    /// The older way to name a class may not say otherwise.
    fn validate_request(&self, _api_version: &str, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let annotated = object["metadata"]["annotations"].get(CLASS).and_then(Value::as_str);
            let class = object["spec"].get("ingressClassName").and_then(Value::as_str);
            if let (Some(annotated), Some(class)) = (annotated, class)
                && annotated != class
            {
                let words = "must match `ingressClassName` when both are specified";
                errors.invalid(&Path::new("annotations").child(CLASS), annotated, words);
            }
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| {
            let path = Path::new("status.loadBalancer.ingress");
            for (i, point) in tree::list(&new["status"]["loadBalancer"], "ingress").iter().enumerate() {
                validate_point(errors, &path.index(i), point);
            }
        })
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let annotated =
            new["metadata"]["annotations"].get(CLASS).is_some() && !tree::has(&new["spec"], "ingressClassName");
        let words = format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
        if annotated && old.is_none() { vec![words] } else { Vec::new() }
    }

    fn subresource_warnings(&self, _subresource: &str, new: &Value) -> Vec<String> {
        net::balancer_warnings(new)
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let class = tree::text(spec, "ingressClassName");
        let ports = if tree::list(spec, "tls").is_empty() { "80" } else { "80, 443" };
        vec![
            workload::name(object),
            if class.is_empty() { "<none>".into() } else { class.into() },
            hosts_text(spec).into(),
            addresses_text(&object["status"]).into(),
            ports.into(),
            column::age(object, now),
        ]
    }
}

fn hosts_text(spec: &Value) -> String {
    let hosts: Vec<&str> =
        tree::list(spec, "rules").iter().map(|rule| tree::text(rule, "host")).filter(|host| !host.is_empty()).collect();
    match hosts.len() {
        0 => "*".into(),
        count if count > 3 => format!("{} + {} more...", hosts[..3].join(","), count - 3),
        _ => hosts.join(","),
    }
}

fn addresses_text(status: &Value) -> String {
    let ingress = tree::list(&status["loadBalancer"], "ingress").iter().map(|one| {
        let ip = tree::text(one, "ip");
        if ip.is_empty() { tree::text(one, "hostname") } else { ip }
    });
    ingress.filter(|it| !it.is_empty()).collect::<Vec<_>>().join(",")
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    if tree::list(spec, "rules").is_empty() && !tree::has(spec, "defaultBackend") {
        let rules = spec.get("rules").cloned().unwrap_or(Value::Null);
        errors.invalid(path, rules, "either `defaultBackend` or `rules` must be specified");
    }
    if tree::has(spec, "defaultBackend") {
        backend(errors, &path.child("defaultBackend"), &spec["defaultBackend"]);
    }
    for (i, rule) in tree::list(spec, "rules").iter().enumerate() {
        validate_rule(errors, &path.child("rules").index(i), rule);
    }
    for (i, tls) in tree::list(spec, "tls").iter().enumerate() {
        let at = path.child("tls").index(i);
        for (j, host) in tree::list(tls, "hosts").iter().enumerate() {
            let host = host.as_str().unwrap_or("");
            errors.invalid_for(&at.child("hosts").index(j), host, host_errors(host));
        }
        let secret = tree::text(tls, "secretName");
        if !secret.is_empty() {
            errors.invalid_for(&at.child("secretName"), secret, names::dns1123_subdomain_errors(secret));
        }
    }
    if let Some(class) = spec.get("ingressClassName").and_then(Value::as_str) {
        errors.invalid_for(&path.child("ingressClassName"), class, names::dns1123_subdomain_errors(class));
    }
}

/// Where a load balancer takes requests.
fn validate_point(errors: &mut Errors, at: &Path, point: &Value) {
    let ip = tree::text(point, "ip");
    if !ip.is_empty() {
        net::ip(errors, &at.child("ip"), ip);
    }
    net::host_of_balancer(errors, &at.child("hostname"), tree::text(point, "hostname"));
}

fn host_errors(host: &str) -> Vec<String> {
    if host.contains('*') { name::wildcard_subdomain(host) } else { names::dns1123_subdomain_errors(host) }
}

fn validate_rule(errors: &mut Errors, at: &Path, rule: &Value) {
    let host = tree::text(rule, "host");
    if !host.is_empty() {
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(&at.child("host"), host, "must be a DNS name, not an IP address");
        }
        errors.invalid_for(&at.child("host"), host, host_errors(host));
    }
    if !tree::has(rule, "http") {
        return;
    }
    let at = at.child("http").child("paths");
    let paths = tree::list(&rule["http"], "paths");
    if paths.is_empty() {
        errors.required(&at, "");
    }
    for (i, path) in paths.iter().enumerate() {
        validate_path(errors, &at.index(i), path);
    }
}

fn validate_path(errors: &mut Errors, at: &Path, path: &Value) {
    const TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
    const INSIDE: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
    let (text, field) = (tree::text(path, "path"), at.child("path"));
    match path.get("pathType").and_then(Value::as_str) {
        None => return errors.required(&at.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !text.starts_with('/') {
                errors.invalid(&field, text, "must be an absolute path");
            }
            for part in INSIDE.iter().filter(|part| text.contains(**part)) {
                errors.invalid(&field, text, &format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| text.ends_with(**end)) {
                errors.invalid(&field, text, &format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&field, text, "must be an absolute path");
            }
        }
        Some(other) => errors.unsupported(&at.child("pathType"), other, TYPES),
    }
    backend(errors, &at.child("backend"), &path["backend"]);
}

fn backend(errors: &mut Errors, at: &Path, backend: &Value) {
    match (tree::has(backend, "service"), tree::has(backend, "resource")) {
        (true, true) => errors.invalid(at, "", "cannot set both resource and service backends"),
        (false, true) => resource(errors, &at.child("resource"), &backend["resource"]),
        (true, false) => service(errors, at, &backend["service"]),
        (false, false) => errors.invalid(at, "", "resource or service backend is required"),
    }
}

fn resource(errors: &mut Errors, at: &Path, reference: &Value) {
    if let Some(group) = reference.get("apiGroup").and_then(Value::as_str) {
        errors.invalid_for(&at.child("apiGroup"), group, names::dns1123_subdomain_errors(group));
    }
    for field in ["kind", "name"] {
        let text = tree::text(reference, field);
        if errors.needs(&at.child(field), text, "") {
            errors.invalid_for(&at.child(field), text, names::path_segment_errors(text, false));
        }
    }
}

fn service(errors: &mut Errors, at: &Path, service: &Value) {
    let (name, path) = (tree::text(service, "name"), at.child("service"));
    if errors.needs(&path.child("name"), name, "") {
        errors.invalid_for(&path.child("name"), name, names::dns1123_label_errors(name));
    }
    let (port, number) = (tree::text(&service["port"], "name"), tree::int(&service["port"], "number"));
    if !port.is_empty() && number != 0 {
        errors.invalid(at, "", "cannot set both port name & port number");
    } else if !port.is_empty() {
        errors.invalid_for(&path.child("port").child("name"), port, number::port_name(port));
    } else if number != 0 {
        number::port(errors, &path.child("port").child("number"), number);
    } else {
        errors.required(at, "port name or number is required");
    }
}

pub struct IngressClass;

static CLASS_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Controller", "string", "", 0, "Controller that is responsible for handling this class"),
    Column::new("Parameters", "string", "", 0, "A reference to a resource with additional parameters"),
    column::AGE,
];

impl Strategy for IngressClass {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(spec) = tree::existing(object, "spec")
            && let Some(parameters) = tree::existing(spec, "parameters")
        {
            tree::default_to(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            let controller = tree::text(spec, "controller");
            if controller.len() > 250 {
                errors.too_long(&path.child("controller"), 250);
            }
            name::domain_prefixed_path(errors, &path.child("controller"), controller);
            if tree::has(spec, "parameters") {
                parameters(errors, &path.child("parameters"), &spec["parameters"]);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = Errors::of(|errors| {
            let at = Path::new("spec.controller");
            errors.immutable(&at, &new["spec"]["controller"], &old["spec"]["controller"]);
        });
        found.extend(self.validate(new));
        found
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        CLASS_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let parameters = &object["spec"]["parameters"];
        let text = match parameters.is_null() {
            true => "<none>".to_owned(),
            false => {
                let (kind, group) = (tree::text(parameters, "kind"), tree::text(parameters, "apiGroup"));
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", tree::text(parameters, "name"))
            }
        };
        let controller = tree::text(&object["spec"], "controller");
        vec![workload::name(object), controller.into(), text.into(), column::age(object, now)]
    }
}

fn parameters(errors: &mut Errors, at: &Path, parameters: &Value) {
    resource(errors, at, parameters);
    let scope = parameters.get("scope").and_then(Value::as_str);
    match scope {
        None => return errors.required(&at.child("scope"), ""),
        Some(scope) => errors.one_of(&at.child("scope"), scope, &["Cluster", "Namespace"]),
    }
    let path = at.child("namespace");
    match (scope, parameters.get("namespace").and_then(Value::as_str)) {
        (Some("Namespace"), None) => errors.required(&path, "`parameters.scope` is set to 'Namespace'"),
        (Some("Namespace"), Some(namespace)) => {
            errors.invalid_for(&path, namespace, names::dns1123_label_errors(namespace));
        }
        (Some("Cluster"), Some(_)) => errors.forbidden(&path, "`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong() {
        let service = json!({"service": {"name": "s", "port": {"number": 80}}});
        let rule = |path: Value| json!({"rules": [{"http": {"paths": [path]}}]});
        let cases = [
            (json!({"defaultBackend": service}), vec![]),
            (json!({}), vec!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]),
            (rule(json!({"path": "/", "pathType": "Prefix", "backend": service})), vec![]),
            (
                rule(json!({"path": "a", "pathType": "Exact", "backend": service})),
                vec!["spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"],
            ),
            (
                rule(json!({"path": "/", "pathType": "Prefix", "backend": {}})),
                vec![
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let found: Vec<_> = Ingress.validate(&json!({"spec": spec})).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn classes_are_of_a_controller() {
        for (controller, errors) in [("example.com/c", 0), ("", 1), ("c", 1)] {
            assert_eq!(
                IngressClass.validate(&json!({"spec": {"controller": controller}})).len(),
                errors,
                "{controller}"
            );
        }
    }
}
