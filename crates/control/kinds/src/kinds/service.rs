//! Services: ports, types and traffic policies; addresses are given out by the registry.

use super::{pod, workload};
use crate::{
    check::{Errors, Seen, name, net, number},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

mod addresses;
mod warnings;

pub use addresses::errors_of as address_errors;

pub struct Service;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Type",
        "string",
        "",
        0,
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, \
         ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for \
         load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by \
         manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no \
         virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \
         \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints \
         as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if \
         supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" \
         aliases this service to the specified externalName. Several other fields do not apply to ExternalName \
         services. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
    ),
    Column::new(
        "Cluster-IP",
        "string",
        "",
        0,
        "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified \
         manually, is in-range (as per system configuration), and is not in use, it will be allocated to the \
         service; otherwise creation of the service will fail. This field may not be changed through updates \
         unless the type field is also being changed to ExternalName (which requires this field to be blank) or \
         the type field is being changed from ExternalName (in which case this field may optionally be \
         specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. \
         Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct \
         endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, \
         NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, \
         creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    Column::new(
        "External-IP",
        "string",
        "",
        0,
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this \
         service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic \
         arrives at a node with this IP.  A common example is external load-balancers that are not part of the \
         Kubernetes system.",
    ),
    Column::new(
        "Port(s)",
        "string",
        "",
        0,
        "The list of ports that are exposed by this service. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    column::AGE,
    Column::new(
        "Selector",
        "string",
        "",
        1,
        "Route service traffic to pods with label keys and values matching this selector. If empty or not \
         present, the service is assumed to have an external process managing its endpoints, which Kubernetes \
         will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is \
         ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
    ),
];

impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn default(&self, _api_version: &str, object: &mut Value) {
        default_balancer(object);
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_empty(spec, "sessionAffinity", "None");
        default_affinity(spec);
        tree::default_empty(spec, "type", "ClusterIP");
        for port in tree::items_mut(spec, "ports") {
            tree::default_empty(port, "protocol", "TCP");
            let number = port["port"].clone();
            tree::default_empty(port, "targetPort", number);
        }
        if is_external(spec) {
            tree::default_empty(spec, "externalTrafficPolicy", "Cluster");
        }
        if tree::text(spec, "type") != "ExternalName" {
            tree::default_to(spec, "internalTrafficPolicy", "Cluster");
        }
        if tree::text(spec, "type") == "LoadBalancer" {
            tree::default_to(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    /// Addresses and ports are given out, and kept, where services are stored; here only what the type decides.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(spec) = tree::child(new, "spec") {
            drop_what_the_type_lacks(spec, &old["spec"]);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            topology_annotations(errors, &object["metadata"]["annotations"]);
            validate_spec(errors, &Path::new("spec"), &object["spec"]);
            annotated_ranges(errors, object);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = Errors::of(|errors| {
            addresses::validate_change(errors, &new["spec"], &old["spec"]);
            class_unchanged(errors, &new["spec"], &old["spec"]);
        });
        found.extend(self.validate(new));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| balancer_status(errors, &Path::new("status.loadBalancer.ingress"), new))
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of(new)
    }

    fn subresource_warnings(&self, _subresource: &str, new: &Value) -> Vec<String> {
        net::balancer_warnings(new)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let ip = tree::text(spec, "clusterIP");
        vec![
            workload::name(object),
            tree::text(spec, "type").into(),
            if ip.is_empty() { "<none>".into() } else { ip.into() },
            external_addresses(object).into(),
            ports_text(spec).into(),
            column::age(object, now),
            pod::labels_text(&spec["selector"]).into(),
        ]
    }
}

/// Packets to an address of a load balancer keep it as their destination, unless its status says otherwise.
fn default_balancer(object: &mut Value) {
    if tree::text(&object["spec"], "type") != "LoadBalancer" {
        return;
    }
    if let Some(status) = tree::existing(object, "status")
        && let Some(balancer) = tree::existing(status, "loadBalancer")
    {
        let points = tree::items_mut(balancer, "ingress").filter(|point| !tree::text(point, "ip").is_empty());
        points.for_each(|point| tree::default_to(point, "ipMode", "VIP"));
    }
}

/// The older annotation may not say otherwise than the newer one.
fn topology_annotations(errors: &mut Errors, annotations: &Value) {
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let text = |key: &str| annotations.get(key).and_then(Value::as_str);
    if let (Some(mode), Some(hints)) = (text(MODE), text(HINTS))
        && mode != hints
    {
        let words = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(&Path::new("metadata.annotations").key(MODE), mode, &words);
    }
}

/// The networks that may use a load balancer, as they were named before there was a field for them.
fn annotated_ranges(errors: &mut Errors, object: &Value) {
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let Some(ranges) = object["metadata"]["annotations"].get(RANGES).and_then(Value::as_str) else { return };
    let spec = &object["spec"];
    if !tree::list(spec, "loadBalancerSourceRanges").is_empty() {
        return;
    }
    let at = Path::new("metadata.annotations").key(RANGES);
    if tree::text(spec, "type") != "LoadBalancer" {
        errors.forbidden(&at, "may only be used when `type` is 'LoadBalancer'");
    }
    if !ranges.trim().is_empty() {
        ranges.split(',').for_each(|range| {
            net::cidr(errors, &at, range.trim());
        });
    }
}

fn balancer_status(errors: &mut Errors, path: &Path, service: &Value) {
    let points = tree::list(&service["status"]["loadBalancer"], "ingress");
    if !points.is_empty() && tree::text(&service["spec"], "type") != "LoadBalancer" {
        return errors.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (i, point) in points.iter().enumerate() {
        let (at, ip) = (path.index(i), tree::text(point, "ip"));
        if !ip.is_empty() {
            net::ip(errors, &at.child("ip"), ip);
        }
        let mode_at = at.child("ipMode");
        match point.get("ipMode").and_then(Value::as_str) {
            None if !ip.is_empty() => errors.required(&mode_at, "must be specified when `ip` is set"),
            Some(_) if ip.is_empty() => errors.forbidden(&mode_at, "may not be specified when `ip` is not set"),
            Some(mode) => errors.one_of(&mode_at, mode, &["Proxy", "VIP"]),
            None => {}
        }
        net::host_of_balancer(errors, &at.child("hostname"), tree::text(point, "hostname"));
    }
}

fn default_affinity(spec: &mut Value) {
    if tree::text(spec, "sessionAffinity") == "None" {
        tree::remove(spec, "sessionAffinityConfig");
    } else if tree::text(spec, "sessionAffinity") == "ClientIP"
        && let Some(config) = tree::child(spec, "sessionAffinityConfig")
        && let Some(client) = tree::child(config, "clientIP")
    {
        tree::default_to(client, "timeoutSeconds", 10_800);
    }
}

/// Whether traffic from outside the cluster reaches the service.
fn is_external(spec: &Value) -> bool {
    match tree::text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !tree::list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

fn needs_address(spec: &Value) -> bool {
    matches!(tree::text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// A change of the type takes away what only the old type had, unless the client set it anew.
fn drop_what_the_type_lacks(spec: &mut Value, old: &Value) {
    let drop_same = |spec: &mut Value, fields: &[&str]| {
        for field in fields {
            if spec.get(field) == old.get(field) {
                tree::remove(spec, field);
            }
        }
    };
    if needs_address(old) && !needs_address(spec) {
        drop_same(spec, &["internalTrafficPolicy"]);
    }
    if is_external(old) && !is_external(spec) {
        drop_same(spec, &["externalTrafficPolicy", "healthCheckNodePort"]);
    }
    if tree::text(old, "type") == "LoadBalancer" && tree::text(spec, "type") != "LoadBalancer" {
        drop_same(spec, &["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"]);
    }
    if tree::text(old, "type") == "ExternalName" && tree::text(spec, "type") != "ExternalName" {
        drop_same(spec, &["externalName"]);
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let kind = tree::text(spec, "type");
    let headless = tree::text(spec, "clusterIP") == "None";
    let ports = tree::list(spec, "ports");
    let at = path.child("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required(&at, "");
    }
    of_type(errors, path, spec);
    let mut seen = Seen::default();
    for (i, port) in ports.iter().enumerate() {
        validate_port(errors, &at.index(i), port, ports.len() > 1, &mut seen);
    }
    name::labels(errors, &path.child("selector"), spec, "selector");
    affinity(errors, path, spec);
    errors.0.extend(addresses::errors_of(spec));
    for (i, ip) in tree::list(spec, "externalIPs").iter().enumerate() {
        net::endpoint_ip(errors, &path.child("externalIPs").index(i), ip.as_str().unwrap_or(""));
    }
    errors.needs_one_of(&path.child("type"), kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    distinct_ports(errors, &at, kind, ports);
    load_balancer(errors, path, spec);
    traffic(errors, path, spec);
}

fn of_type(errors: &mut Errors, path: &Path, spec: &Value) {
    match tree::text(spec, "type") {
        "LoadBalancer" => {
            for (i, port) in tree::list(spec, "ports").iter().enumerate() {
                if tree::int(port, "port") == 10250 {
                    let words = "may not expose port 10250 externally since it is used by kubelet";
                    errors.invalid(&path.child("ports").index(i), 10250, words);
                }
            }
            if tree::text(spec, "clusterIP") == "None" {
                let words = "may not be set to 'None' for LoadBalancer services";
                errors.invalid(&path.child("clusterIPs").index(0), "None", words);
            }
        }
        "NodePort" if tree::text(spec, "clusterIP") == "None" => {
            errors.invalid(
                &path.child("clusterIPs").index(0),
                "None",
                "may not be set to 'None' for NodePort services",
            );
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !tree::is_empty(&spec[field]) {
                    errors.forbidden(&path.child(field), "may not be set for ExternalName services");
                }
            }
            let host = tree::text(spec, "externalName").trim_end_matches('.');
            if errors.needs(&path.child("externalName"), host, "") {
                errors.invalid_for(&path.child("externalName"), host, names::dns1123_subdomain_errors(host));
            }
        }
        _ => {}
    }
}

fn validate_port(errors: &mut Errors, at: &Path, port: &Value, several: bool, seen: &mut Seen) {
    let own = tree::text(port, "name");
    if own.is_empty() && several {
        errors.required(&at.child("name"), "");
    } else if !own.is_empty() {
        errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
        if !seen.first(own) {
            errors.duplicate(&at.child("name"), own);
        }
    }
    number::port(errors, &at.child("port"), tree::int(port, "port"));
    errors.needs_one_of(&at.child("protocol"), tree::text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    number::port_or_name(errors, &at.child("targetPort"), &port["targetPort"]);
    if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
        errors.invalid_for(&at.child("appProtocol"), protocol, name::qualified(protocol));
    }
}

fn affinity(errors: &mut Errors, path: &Path, spec: &Value) {
    let kind = tree::text(spec, "sessionAffinity");
    errors.needs_one_of(&path.child("sessionAffinity"), kind, &["ClientIP", "None"]);
    let at = path.child("sessionAffinityConfig");
    match kind {
        "ClientIP" => {
            let seconds = tree::int(&spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds");
            if !(1..=86_400).contains(&seconds) {
                let words = "must be greater than 0 and less than 86400";
                errors.invalid(&at.child("clientIP").child("timeoutSeconds"), seconds, words);
            }
        }
        "None" if tree::has(spec, "sessionAffinityConfig") => {
            errors.forbidden(&at, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn distinct_ports(errors: &mut Errors, at: &Path, kind: &str, ports: &[Value]) {
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| tree::int(port, "nodePort") != 0) {
            errors.forbidden(&at.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut node_ports = Seen::default();
    for (i, port) in ports.iter().enumerate() {
        let number = tree::int(port, "nodePort");
        if number != 0 && !node_ports.first(format!("{}/{number}", tree::text(port, "protocol"))) {
            errors.duplicate(&at.index(i).child("nodePort"), number);
        }
    }
    let mut seen = Seen::default();
    for (i, port) in ports.iter().enumerate() {
        let (protocol, number) = (tree::text(port, "protocol"), tree::int(port, "port"));
        if !seen.first(format!("{protocol}/{number}")) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}",
                Value::from(protocol)
            );
            errors.duplicate_shown(&at.index(i), &shown);
        }
    }
}

fn load_balancer(errors: &mut Errors, path: &Path, spec: &Value) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = tree::text(spec, "type") == "LoadBalancer";
    let at = path.child("LoadBalancerSourceRanges");
    let ranges = tree::list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.forbidden(&at, ONLY);
    }
    for (i, range) in ranges.iter().enumerate() {
        net::cidr(errors, &at.index(i), range.as_str().unwrap_or("").trim());
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if tree::has(spec, field) && !balanced {
            errors.forbidden(&path.child(field), ONLY);
        }
    }
    if let Some(class) = spec.get("loadBalancerClass").and_then(Value::as_str).filter(|_| balanced) {
        errors.invalid_for(&path.child("loadBalancerClass"), class, name::qualified(class));
    }
}

fn class_unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    let balanced = |spec: &Value| tree::text(spec, "type") == "LoadBalancer";
    if balanced(new) && balanced(old) && new.get("loadBalancerClass") != old.get("loadBalancerClass") {
        let class = new["loadBalancerClass"].clone();
        errors.invalid(&Path::new("spec.loadBalancerClass"), class, "may not change once set");
    }
}

fn traffic(errors: &mut Errors, path: &Path, spec: &Value) {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    let at = path.child("externalTrafficPolicy");
    let policy = tree::text(spec, "externalTrafficPolicy");
    match (is_external(spec), policy.is_empty()) {
        (false, false) => errors.invalid(&at, policy, "may only be set for externally-accessible services"),
        (false, true) => {}
        (true, _) => errors.needs_one_of(&at, policy, POLICIES),
    }
    let health = tree::int(spec, "healthCheckNodePort");
    if health != 0 && !(tree::text(spec, "type") == "LoadBalancer" && policy == "Local") {
        let words = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path.child("healthCheckNodePort"), health, words);
    }
    match spec.get("internalTrafficPolicy").and_then(Value::as_str) {
        Some(policy) => errors.one_of(&path.child("internalTrafficPolicy"), policy, POLICIES),
        None if needs_address(spec) => errors.required(&path.child("internalTrafficPolicy"), ""),
        None => {}
    }
    if let Some(wanted) = spec.get("trafficDistribution").and_then(Value::as_str) {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        errors.one_of(&path.child("trafficDistribution"), wanted, &known);
    }
}

fn external_addresses(object: &Value) -> String {
    let spec = &object["spec"];
    let mut addresses: Vec<&str> = tree::list(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match tree::text(spec, "type") {
        "ExternalName" => return tree::text(spec, "externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = tree::list(&object["status"]["loadBalancer"], "ingress").iter().map(|one| {
                let ip = tree::text(one, "ip");
                if ip.is_empty() { tree::text(one, "hostname") } else { ip }
            });
            addresses = ingress.chain(addresses).collect();
            if addresses.is_empty() {
                return "<pending>".into();
            }
        }
        _ => {}
    }
    if addresses.is_empty() { "<none>".into() } else { addresses.join(",") }
}

fn ports_text(spec: &Value) -> String {
    let one = |port: &Value| {
        let (number, protocol) = (tree::int(port, "port"), tree::text(port, "protocol"));
        match tree::int(port, "nodePort") {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    };
    let ports: Vec<String> = tree::list(spec, "ports").iter().map(one).collect();
    if ports.is_empty() { "<none>".into() } else { ports.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
        Service.default("v1", &mut service);
        service
    }

    #[test]
    fn defaults_by_type() {
        let plain = service(json!({"ports": [{"port": 80}], "selector": {"a": "b"}}));
        assert_eq!(
            plain["spec"],
            json!({
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"a": "b"}, "type": "ClusterIP",
                "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            })
        );
        let balanced = service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
        assert_eq!(balanced["spec"]["allocateLoadBalancerNodePorts"], true);
        assert_eq!(balanced["spec"]["externalTrafficPolicy"], "Cluster");
        let sticky = service(json!({"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}));
        assert_eq!(sticky["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
        let name = service(json!({"type": "ExternalName", "externalName": "a.b"}));
        assert_eq!(name["spec"], json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}));
    }

    #[test]
    fn what_is_wrong() {
        let cases = [
            (json!({"ports": [{"port": 80}]}), vec![]),
            (json!({}), vec!["spec.ports: Required value"]),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), vec![]),
            (
                json!({"ports": [{"port": 0}]}),
                vec![
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}), vec!["spec.ports[0].name: Required value"]),
            (
                json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}),
                vec![
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
        ];
        for (spec, expected) in cases {
            let found: Vec<_> = Service.validate(&service(spec.clone())).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn a_new_type_drops_what_only_the_old_one_had() {
        let old = service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        Service.prepare_update(&mut new, &old);
        for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
            assert!(new["spec"].get(field).is_none(), "{field}");
        }
        assert_eq!(new["spec"]["internalTrafficPolicy"], "Cluster");
    }

    #[test]
    fn the_address_stays() {
        let with =
            |ip: &str| json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]});
        let (old, new) = (json!({"spec": with("10.43.0.7")}), json!({"spec": with("10.43.0.8")}));
        assert_eq!(
            Service.validate_update(&new, &old)[0].to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.43.0.8\"]: may not change once set"
        );
    }
}
