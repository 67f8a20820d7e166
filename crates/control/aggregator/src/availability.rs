//! Whether an APIService is available: what its service and its endpoints say, in upstream's words.
//!
//! Source: kube-aggregator's `remote_available_controller.go`.

use crate::spec::ServiceRef;
use serde_json::{Value, json};

/// What is said of an APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn passed() -> Self {
        Self { available: true, reason: "Passed", message: "all checks passed".into() }
    }

    pub(crate) fn failed(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }

    /// The discovery of the server could not be read.
    pub fn failed_check(url: &str, why: &str) -> Self {
        Self::failed("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
    }

    /// As it is stored; the caller adds the time.
    pub fn to_value(&self) -> Value {
        let status = if self.available { "True" } else { "False" };
        json!({"type": "Available", "status": status, "reason": self.reason, "message": self.message})
    }
}

/// What can be said without asking the server: its service (if there is one) and the slices of its endpoints.
/// Nothing when all is well so far.
pub fn judge(wanted: &ServiceRef, service: Option<&Value>, slices: &[Value]) -> Option<Condition> {
    let ServiceRef { namespace, name, port } = wanted;
    let at = format!("service/{name} in {namespace:?}");
    let Some(service) = service else {
        return Some(Condition::failed("ServiceNotFound", format!("{at} is not present")));
    };
    // Other types have no endpoints of their own that could be looked at.
    if service["spec"]["type"].as_str().is_some_and(|kind| kind != "ClusterIP") {
        return None;
    }
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.into_iter().find(|p| p["port"].as_u64() == Some(u64::from(*port))) else {
        return Some(Condition::failed("ServicePortError", format!("{at} is not listening on port {port}")));
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for {at}");
        return Some(Condition::failed("EndpointsNotFound", message));
    }
    let port_name = found["name"].as_str().unwrap_or_default();
    if slices.iter().any(|slice| has_ready(slice, port_name)) {
        return None;
    }
    let message = format!("endpointslices for {at} have no addresses with port name {port_name:?}");
    Some(Condition::failed("MissingEndpoints", message))
}

fn has_ready(slice: &Value, port_name: &str) -> bool {
    let has_port = slice["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|port| port["name"].as_str().unwrap_or_default() == port_name);
    has_port && slice["endpoints"].as_array().into_iter().flatten().any(is_ready)
}

/// An endpoint that says nothing is ready.
pub(crate) fn is_ready(endpoint: &Value) -> bool {
    endpoint["conditions"]["ready"] != false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_and_its_endpoints_are_looked_at_first() {
        let wanted = ServiceRef { namespace: "n".into(), name: "s".into(), port: 443 };
        let service = json!({"spec": {"type": "ClusterIP", "ports": [{"name": "web", "port": 443}]}});
        let slice = |ready: bool, name: &str| {
            json!({"ports": [{"name": name, "port": 6443}],
                   "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]})
        };
        let other = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}});
        let external = json!({"spec": {"type": "ExternalName"}});
        let cases: [(Option<&Value>, Vec<Value>, &str); 7] = [
            (None, vec![], "ServiceNotFound: service/s in \"n\" is not present"),
            (Some(&other), vec![], "ServicePortError: service/s in \"n\" is not listening on port 443"),
            (Some(&service), vec![], "EndpointsNotFound: cannot find endpointslices for service/s in \"n\""),
            (
                Some(&service),
                vec![slice(false, "web")],
                "MissingEndpoints: endpointslices for service/s in \"n\" have no addresses with port name \"web\"",
            ),
            (
                Some(&service),
                vec![slice(true, "x")],
                "MissingEndpoints: endpointslices for service/s in \"n\" have no addresses with port name \"web\"",
            ),
            (Some(&service), vec![slice(true, "web")], ""),
            (Some(&external), vec![], ""),
        ];
        for (service, slices, expected) in cases {
            let found = judge(&wanted, service, &slices);
            let shown = found.map(|c| format!("{}: {}", c.reason, c.message)).unwrap_or_default();
            assert_eq!(shown, expected);
        }
    }
}
