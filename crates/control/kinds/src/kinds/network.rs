//! Network policies, and the addresses of services as objects.

use super::workload;
use crate::{
    check::{Errors, net, number, selector},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

pub struct NetworkPolicy;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Pod-Selector",
        "string",
        "",
        0,
        "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied \
         to any pods selected by this field. An empty selector matches all pods in the policy's namespace. \
         Multiple network policies can select the same set of pods. In this case, the ingress rules for each are \
         combined additively. This field is optional. If it is not specified, it defaults to an empty selector.",
    ),
    column::AGE,
];

impl Strategy for NetworkPolicy {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        for side in ["ingress", "egress"] {
            for rule in tree::items_mut(spec, side) {
                tree::items_mut(rule, "ports").for_each(|port| tree::default_to(port, "protocol", "TCP"));
            }
        }
        if tree::list(spec, "policyTypes").is_empty() {
            let both = !tree::list(spec, "egress").is_empty();
            tree::set(spec, "policyTypes", if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_policy(errors, &Path::new("spec"), &object["spec"]))
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut found = Vec::new();
        for (side, peers) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in tree::list(&new["spec"], side).iter().enumerate() {
                for (j, peer) in tree::list(rule, peers).iter().enumerate() {
                    let at = Path::new("spec").child(side).index(i).child(peers).index(j).child("ipBlock");
                    found.extend(net::cidr_warning(&at.child("cidr"), tree::text(&peer["ipBlock"], "cidr")));
                    for (k, inner) in tree::list(&peer["ipBlock"], "except").iter().enumerate() {
                        let at = at.child("except").index(k);
                        found.extend(net::cidr_warning(&at, inner.as_str().unwrap_or("")));
                    }
                }
            }
        }
        found
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let selector = workload::selector_text(&object["spec"]["podSelector"]);
        vec![workload::name(object), selector.into(), column::age(object, now)]
    }
}

fn validate_policy(errors: &mut Errors, path: &Path, spec: &Value) {
    selector::labels(errors, &path.child("podSelector"), &spec["podSelector"]);
    for (side, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in tree::list(spec, side).iter().enumerate() {
            let at = path.child(side).index(i);
            for (j, port) in tree::list(rule, "ports").iter().enumerate() {
                validate_port(errors, &at.child("ports").index(j), port);
            }
            for (j, peer) in tree::list(rule, peers).iter().enumerate() {
                validate_peer(errors, &at.child(peers).index(j), peer);
            }
        }
    }
    let types = tree::list(spec, "policyTypes");
    let at = path.child("policyTypes");
    if types.len() > 2 {
        return errors.invalid(&at, types.to_vec(), "may not specify more than two policyTypes");
    }
    for (i, kind) in types.iter().enumerate() {
        errors.one_of(&at.index(i), kind.as_str().unwrap_or(""), &["Ingress", "Egress"]);
    }
}

fn validate_port(errors: &mut Errors, at: &Path, port: &Value) {
    if let Some(protocol) = port.get("protocol").and_then(Value::as_str) {
        errors.one_of(&at.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let end = port.get("endPort").and_then(Value::as_i64);
    let at_end = at.child("endPort");
    match &port["port"] {
        Value::Null => {
            if let Some(end) = end {
                errors.invalid(&at_end, end, "may not be specified when `port` is not specified");
            }
        }
        value @ Value::String(_) => {
            if let Some(end) = end {
                errors.invalid(&at_end, end, "may not be specified when `port` is non-numeric");
            }
            number::port_or_name(errors, &at.child("port"), value);
        }
        value => {
            let start = value.as_i64().unwrap_or(0);
            number::port(errors, &at.child("port"), start);
            if let Some(end) = end {
                if end < start {
                    errors.invalid(&at_end, start, "must be greater than or equal to `port`");
                }
                number::port(errors, &at_end, end);
            }
        }
    }
}

fn validate_peer(errors: &mut Errors, at: &Path, peer: &Value) {
    let selectors: Vec<_> = ["podSelector", "namespaceSelector"].into_iter().filter(|it| tree::has(peer, it)).collect();
    for one in &selectors {
        selector::labels(errors, &at.child(one), &peer[*one]);
    }
    let block = &peer["ipBlock"];
    match (block.is_null(), selectors.is_empty()) {
        (true, true) => errors.required(at, "must specify a peer"),
        (true, false) => {}
        (false, alone) => {
            validate_block(errors, &at.child("ipBlock"), block);
            if !alone {
                errors.forbidden(at, "may not specify both ipBlock and another peer");
            }
        }
    }
}

fn validate_block(errors: &mut Errors, at: &Path, block: &Value) {
    let cidr = tree::text(block, "cidr");
    if !errors.needs(&at.child("cidr"), cidr, "") || !net::cidr(errors, &at.child("cidr"), cidr) {
        return;
    }
    let Ok(outer) = cidr.parse::<ipnet::IpNet>() else { return };
    for (i, inner) in tree::list(block, "except").iter().enumerate() {
        let at = at.child("except").index(i);
        let inner = inner.as_str().unwrap_or("");
        if !net::cidr(errors, &at, inner) {
            continue;
        }
        let fits = inner
            .parse::<ipnet::IpNet>()
            .is_ok_and(|inner| outer.contains(&inner) && inner.prefix_len() > outer.prefix_len());
        if !fits {
            errors.invalid(&at, inner, "must be a strict subset of `cidr`");
        }
    }
}

pub struct IPAddress;

static ADDRESS_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "ParentRef",
        "string",
        "",
        0,
        "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a \
         parent object.",
    ),
];

fn address_name(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        Ok(ip) if ip.to_string() != name => vec![format!("must be in canonical form ({:?})", ip.to_string())],
        Ok(_) => Vec::new(),
    }
}

impl Strategy for IPAddress {
    fn name_rule(&self) -> NameRule {
        NameRule::Custom(address_name)
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let path = Path::new("spec.parentRef");
            let parent = &object["spec"]["parentRef"];
            if parent.is_null() {
                return errors.required(&path, "");
            }
            for field in ["resource", "name"] {
                let text = tree::text(parent, field);
                if errors.needs(&path.child(field), text, "") {
                    let wrong = pintle_types::names::path_segment_errors(text, false);
                    errors.invalid_for(&path.child(field), text, wrong);
                }
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let (new, old) = (&new["spec"]["parentRef"], &old["spec"]["parentRef"]);
        if new == old {
            return ErrorList::new();
        }
        let text = |field: &str| Value::from(tree::text(new, field));
        let shown = format!(
            "{{\"Group\":{},\"Resource\":{},\"Namespace\":{},\"Name\":{}}}",
            text("group"),
            text("resource"),
            text("namespace"),
            text("name")
        );
        Errors::of(|errors| errors.invalid_shown(&Path::new("spec.parentRef"), &shown, crate::check::IMMUTABLE))
    }

    fn columns(&self) -> &[Column] {
        ADDRESS_COLUMNS
    }

    /// As upstream's, the row has one cell more than there are columns.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let parent = &object["spec"]["parentRef"];
        let parts = ["group", "resource", "namespace", "name"].map(|key| tree::text(parent, key));
        let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        vec![workload::name(object), text.into(), column::age(object, now)]
    }
}

pub struct ServiceCIDR;

static RANGE_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "CIDRs",
        "string",
        "",
        0,
        "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign \
         service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is immutable.",
    ),
    column::AGE,
];

impl Strategy for ServiceCIDR {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let path = Path::new("spec.cidrs");
            let ranges = tree::list(&object["spec"], "cidrs");
            if ranges.is_empty() {
                return errors.required(&path, "at least one CIDR required");
            }
            if ranges.len() > 2 {
                return errors.invalid(&path, ranges.to_vec(), "may only hold up to 2 values");
            }
            let texts: Vec<&str> = ranges.iter().filter_map(Value::as_str).collect();
            let six = texts.iter().filter(|text| text.contains(':')).count();
            if texts.len() == 2 && six != 1 {
                let words = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                errors.invalid(&path, ranges.to_vec(), words);
            }
            for (i, text) in texts.iter().enumerate() {
                net::canonical_cidr(errors, &path.index(i), text);
            }
        })
    }

    /// A second range may be added, nothing else changes.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec.cidrs");
        let (now, before) = (tree::list(&new["spec"], "cidrs"), tree::list(&old["spec"], "cidrs"));
        let mut found = Errors::of(|errors| {
            let added = before.len() == 1 && now.len() == 2;
            if now.len() != before.len() && !added {
                return errors.invalid(&path, now.to_vec(), crate::check::IMMUTABLE);
            }
            for (i, (now, before)) in now.iter().zip(before).enumerate() {
                errors.immutable(&path.index(i), now, before);
            }
        });
        if now.len() > before.len() && before.len() == 1 {
            found.extend(self.validate(new));
        }
        found
    }

    fn columns(&self) -> &[Column] {
        RANGE_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ranges: Vec<&str> = tree::list(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
        vec![workload::name(object), ranges.join(",").into(), column::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_rules() {
        for (spec, expected) in [
            (json!({}), json!(["Ingress"])),
            (json!({"egress": [{}]}), json!(["Ingress", "Egress"])),
            (json!({"policyTypes": ["Egress"]}), json!(["Egress"])),
        ] {
            let mut object = json!({"spec": spec});
            NetworkPolicy.default("networking.k8s.io/v1", &mut object);
            assert_eq!(object["spec"]["policyTypes"], expected);
        }
    }

    #[test]
    fn peers_and_blocks() {
        let peer = |peer: Value| {
            let found = NetworkPolicy.validate(&json!({"spec": {"ingress": [{"from": [peer]}]}}));
            found.iter().map(|error| error.body.clone()).collect::<Vec<_>>()
        };
        assert_eq!(peer(json!({})), ["Required value: must specify a peer"]);
        assert!(peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})).is_empty());
        assert_eq!(
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
            ["Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"]
        );
    }

    #[test]
    fn addresses_are_named_canonically() {
        for (name, errors) in [("10.0.0.1", 0), ("10.0.0.01", 1), ("fd00::1", 0), ("FD00::1", 1), ("x", 1)] {
            assert_eq!(address_name(name).len(), errors, "{name}");
        }
    }
}
