//! Endpoints and endpoint slices.

use super::workload;
use crate::{
    check::{Errors, IMMUTABLE, Seen, name, net, number},
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

pub struct Endpoints;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Endpoints",
        "string",
        "",
        0,
        "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to \
         the IPs they share. A single address with multiple ports, some of which are ready and some of which are \
         not (because they come from different containers) will result in the address being displayed in \
         different subsets for the different ports. No address will appear in both Addresses and \
         NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
    ),
    column::AGE,
];

impl Strategy for Endpoints {
    fn default(&self, _api_version: &str, object: &mut Value) {
        for subset in tree::items_mut(object, "subsets") {
            tree::items_mut(subset, "ports").for_each(|port| tree::default_empty(port, "protocol", "TCP"));
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            for (i, subset) in tree::list(object, "subsets").iter().enumerate() {
                validate_subset(errors, &Path::new("subsets").index(i), subset);
            }
        })
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), addresses_text(object).into(), column::age(object, now)]
    }
}

fn validate_subset(errors: &mut Errors, at: &Path, subset: &Value) {
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|field| tree::list(subset, field).is_empty()) {
        errors.required(at, "must specify `addresses` or `notReadyAddresses`");
    }
    for field in lists {
        for (i, address) in tree::list(subset, field).iter().enumerate() {
            validate_address(errors, &at.child(field).index(i), address);
        }
    }
    let ports = tree::list(subset, "ports");
    for (i, port) in ports.iter().enumerate() {
        let at = at.child("ports").index(i);
        let own = tree::text(port, "name");
        if own.is_empty() && ports.len() > 1 {
            errors.required(&at.child("name"), "");
        } else if !own.is_empty() {
            errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
        }
        number::port(errors, &at.child("port"), tree::int(port, "port"));
        errors.needs_one_of(&at.child("protocol"), tree::text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
        app_protocol(errors, &at, port);
    }
}

fn app_protocol(errors: &mut Errors, at: &Path, port: &Value) {
    if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
        errors.invalid_for(&at.child("appProtocol"), protocol, name::qualified(protocol));
    }
}

fn validate_address(errors: &mut Errors, at: &Path, address: &Value) {
    let text = |key| tree::text(address, key);
    net::ip(errors, &at.child("ip"), text("ip"));
    if !text("hostname").is_empty() {
        errors.invalid_for(&at.child("hostname"), text("hostname"), names::dns1123_label_errors(text("hostname")));
    }
    if !text("nodeName").is_empty() {
        errors.invalid_for(&at.child("nodeName"), text("nodeName"), names::dns1123_subdomain_errors(text("nodeName")));
    }
    net::endpoint_ip(errors, &at.child("ip"), text("ip"));
}

/// At most three addresses with their ports, and how many more there are.
fn addresses_text(object: &Value) -> String {
    const SHOWN: usize = 3;
    let (mut shown, mut total) = (Vec::new(), 0);
    for subset in tree::list(object, "subsets") {
        let ports = tree::list(subset, "ports");
        for address in tree::list(subset, "addresses") {
            let ip = tree::text(address, "ip");
            if ports.is_empty() {
                total += 1;
                shown.push(ip.to_owned());
            }
            for port in ports {
                total += 1;
                shown.push(host_and_port(ip, tree::int(port, "port")));
            }
        }
    }
    shown.truncate(SHOWN);
    match total {
        0 => "<none>".into(),
        _ if total > SHOWN => format!("{} + {} more...", shown.join(","), total - SHOWN),
        _ => shown.join(","),
    }
}

fn host_and_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub struct EndpointSlice;

static SLICE_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "AddressType",
        "string",
        "",
        0,
        "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice \
         must be the same type. This field is immutable after creation. The following address types are \
         currently supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: \
         Represents a Fully Qualified Domain Name. (Deprecated) The EndpointSlice controller only generates, and \
         kube-proxy only processes, slices of addressType \"IPv4\" and \"IPv6\". No semantics are defined for \
         the \"FQDN\" type.",
    ),
    Column::new(
        "Ports",
        "string",
        "",
        0,
        "ports specifies the list of network ports exposed by each endpoint in this slice. Each port must have a \
         unique name. Each slice may include a maximum of 100 ports. Services always have at least 1 port, so \
         EndpointSlices generated by the EndpointSlice controller will likewise always have at least 1 port. \
         EndpointSlices used for other purposes may have an empty ports list.",
    ),
    Column::new(
        "Endpoints",
        "string",
        "",
        0,
        "endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 \
         endpoints.",
    ),
    column::AGE,
];

impl Strategy for EndpointSlice {
    fn default(&self, _api_version: &str, object: &mut Value) {
        for port in tree::items_mut(object, "ports") {
            tree::default_to(port, "name", "");
            tree::default_empty(port, "protocol", "TCP");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_topology(object, &Value::Null);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if new["endpoints"] != old["endpoints"] {
            drop_topology(new, old);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_slice(errors, object))
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut found = Vec::new();
        if old.is_none() && tree::text(new, "addressType") == "FQDN" {
            found.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        // The controllers' own slices have addresses in their usual form.
        if MAKERS.contains(&tree::text(&new["metadata"]["labels"], "endpointslice.kubernetes.io/managed-by")) {
            return found;
        }
        for (i, endpoint) in tree::list(new, "endpoints").iter().enumerate() {
            for (j, address) in tree::list(endpoint, "addresses").iter().enumerate() {
                let at = Path::new("endpoints").index(i).child("addresses").index(j);
                found.extend(net::ip_warning(&at, address.as_str().unwrap_or("")));
            }
        }
        found
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| {
            if new["addressType"] != old["addressType"] {
                errors.invalid(&Path::new("addressType"), new["addressType"].clone(), IMMUTABLE);
            }
        }));
        found
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["endpoints", "ports", "addressType", "metadata.labels"]
    }

    fn columns(&self) -> &[Column] {
        SLICE_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let unset = |texts: Vec<String>, more: &str| match texts.as_slice() {
            [] => "<unset>".to_owned(),
            _ => format!("{}{more}", texts.join(",")),
        };
        let ports = tree::list(object, "ports");
        let port_texts = ports.iter().take(3).map(|port| match port.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None => "*".to_owned(),
        });
        let addresses: Vec<&str> = tree::list(object, "endpoints")
            .iter()
            .flat_map(|endpoint| tree::list(endpoint, "addresses"))
            .filter_map(Value::as_str)
            .collect();
        let more = |total: usize| if total > 3 { format!(" + {} more...", total - 3) } else { String::new() };
        vec![
            workload::name(object),
            tree::text(object, "addressType").into(),
            unset(port_texts.collect(), &more(ports.len())).into(),
            unset(addresses.iter().take(3).map(|it| (*it).to_owned()).collect(), &more(addresses.len())).into(),
            column::age(object, now),
        ]
    }
}

const MAKERS: &[&str] = &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

/// The older place of an endpoint can't be written any more. Where it named a node before, that node is kept.
fn drop_topology(new: &mut Value, old: &Value) {
    const HOST: &str = "kubernetes.io/hostname";
    let host = |endpoint: &Value| tree::text(&endpoint["deprecatedTopology"], HOST).to_owned();
    let known: Vec<String> = tree::list(old, "endpoints").iter().map(host).filter(|name| !name.is_empty()).collect();
    for endpoint in tree::items_mut(new, "endpoints") {
        let name = host(endpoint);
        let valid = names::dns1123_subdomain_errors(&name).is_empty();
        if !tree::has(endpoint, "nodeName") && valid && known.contains(&name) {
            tree::set(endpoint, "nodeName", name);
        }
        tree::remove(endpoint, "deprecatedTopology");
    }
}

fn validate_slice(errors: &mut Errors, object: &Value) {
    const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
    const MAX_ENDPOINTS: usize = 1000;
    const MAX_PORTS: usize = 20_000;
    let kind = tree::text(object, "addressType");
    errors.needs_one_of(&Path::new("addressType"), kind, TYPES);
    let (path, endpoints) = (Path::new("endpoints"), tree::list(object, "endpoints"));
    if endpoints.len() > MAX_ENDPOINTS {
        return errors.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(errors, &path.index(i), endpoint, kind);
    }
    let ports = tree::list(object, "ports");
    if ports.len() > MAX_PORTS {
        return errors.too_many(&Path::new("ports"), ports.len(), MAX_PORTS);
    }
    let mut seen = Seen::default();
    for (i, port) in tree::list(object, "ports").iter().enumerate() {
        let at = Path::new("ports").index(i);
        let own = tree::text(port, "name");
        if !own.is_empty() {
            errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
        }
        if !seen.first(own) {
            errors.duplicate(&at.child("name"), own);
        }
        errors.needs_one_of(&at.child("protocol"), tree::text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
        app_protocol(errors, &at, port);
    }
}

fn validate_endpoint(errors: &mut Errors, at: &Path, endpoint: &Value, kind: &str) {
    const MAX_ADDRESSES: usize = 100;
    let addresses = tree::list(endpoint, "addresses");
    if addresses.is_empty() {
        errors.required(&at.child("addresses"), "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        return errors.too_many(&at.child("addresses"), addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in addresses.iter().enumerate() {
        let at = at.child("addresses").index(i);
        let address = address.as_str().unwrap_or("");
        match kind {
            "IPv4" | "IPv6" => slice_address(errors, &at, address, kind),
            "FQDN" => errors.invalid_for(&at, address, name::fully_qualified_domain(address)),
            _ => {}
        }
    }
    for (field, rule) in [
        ("nodeName", names::dns1123_subdomain_errors as fn(&str) -> Vec<String>),
        ("hostname", names::dns1123_label_errors),
    ] {
        if let Some(text) = endpoint.get(field).and_then(Value::as_str) {
            errors.invalid_for(&at.child(field), text, rule(text));
        }
    }
    topology(errors, &at.child("deprecatedTopology"), endpoint);
    hints(errors, &at.child("hints").child("forZones"), &endpoint["hints"], "forZones", name::label_value);
    let node_name = names::dns1123_subdomain_errors as fn(&str) -> Vec<String>;
    hints(errors, &at.child("hints").child("forNodes"), &endpoint["hints"], "forNodes", node_name);
}

/// Where an endpoint is, as it was told before there were fields for that.
fn topology(errors: &mut Errors, at: &Path, endpoint: &Value) {
    const MOST: usize = 16;
    let labels = tree::entries(endpoint, "deprecatedTopology");
    name::labels(errors, at, endpoint, "deprecatedTopology");
    if labels.len() > MOST {
        errors.too_many(at, labels.len(), MOST);
    }
}

/// The zones or nodes for which an endpoint is meant.
fn hints(errors: &mut Errors, path: &Path, hints: &Value, field: &str, rule: fn(&str) -> Vec<String>) {
    const MOST: usize = 8;
    let places = tree::list(hints, field);
    if places.len() > MOST {
        return errors.too_many(path, places.len(), MOST);
    }
    let mut seen = Seen::default();
    for (i, place) in places.iter().enumerate() {
        let (at, own) = (path.index(i).child("name"), tree::text(place, "name"));
        if !seen.first(own) {
            errors.duplicate(&at, own);
        }
        errors.invalid_for(&at, own, rule(own));
    }
}

fn slice_address(errors: &mut Errors, at: &Path, address: &str, kind: &str) {
    net::ip(errors, at, address);
    let Ok(ip) = address.parse::<std::net::IpAddr>() else { return };
    if ip.is_ipv4() != (kind == "IPv4") {
        let words = if kind == "IPv4" { "must be an IPv4 address" } else { "must be an IPv6 address" };
        errors.invalid(at, address, words);
    }
    net::endpoint_ip(errors, at, address);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_show_three_addresses() {
        let object = json!({"metadata": {"name": "e"}, "subsets": [{
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}, {"ip": "10.0.0.4"}],
            "ports": [{"port": 80}],
        }]});
        assert_eq!(addresses_text(&object), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...");
    }

    #[test]
    fn slices() {
        let cases = [
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"protocol": "TCP"}]}),
                vec![],
            ),
            (json!({"endpoints": []}), vec!["addressType: Required value"]),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]}),
                vec!["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]}),
                vec![
                    "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range \
                     (127.0.0.0/8, ::1/128)",
                ],
            ),
        ];
        for (object, expected) in cases {
            let found: Vec<_> = EndpointSlice.validate(&object).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{object}");
        }
    }
}
