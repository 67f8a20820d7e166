//! The addresses of Services with their families: what is wrong with them, and how they may change.

use crate::check::{Errors, Seen, net};
use crate::tree;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;
use std::net::IpAddr;

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const ONCE: &str = "may not change once set";

/// What is wrong with `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` of a spec. Addresses are only given
/// out when nothing is.
pub fn errors_of(spec: &Value) -> ErrorList {
    if tree::text(spec, "type") == "ExternalName" {
        return ErrorList::new();
    }
    Errors::of(|errors| {
        let path = Path::new("spec");
        let (at, all) = (path.child("clusterIPs"), tree::list(spec, "clusterIPs"));
        first_is_single(errors, &at, tree::text(spec, "clusterIP"), all);
        families_and_policy(errors, &path, spec);
        if are_addresses(errors, &at, all) {
            if all.len() > 1 && !has_both_families(all) {
                errors.invalid(&at, all.to_vec(), "may specify no more than one IP for each IP family");
            }
            match_families(errors, &at, all, tree::list(spec, "ipFamilies"));
        }
    })
}

fn first_is_single(errors: &mut Errors, at: &Path, single: &str, all: &[Value]) {
    match (single.is_empty(), all.first()) {
        (false, None) => errors.required(at, ""),
        (false, Some(first)) if first != single => {
            errors.invalid(at, all.to_vec(), "first value must match `clusterIP`");
        }
        (true, Some(_)) => errors.invalid(at, all.to_vec(), "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
}

fn families_and_policy(errors: &mut Errors, path: &Path, spec: &Value) {
    let (at, mut seen) = (path.child("ipFamilies"), Seen::default());
    for (i, family) in tree::list(spec, "ipFamilies").iter().enumerate() {
        let family = family.as_str().unwrap_or("");
        errors.one_of(&at.index(i), family, FAMILIES);
        if !seen.first(family) {
            errors.duplicate(&at.index(i), family);
        }
    }
    if let Some(policy) = spec.get("ipFamilyPolicy").and_then(Value::as_str) {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.one_of(&path.child("ipFamilyPolicy"), policy, &known);
    }
}

fn are_addresses(errors: &mut Errors, at: &Path, all: &[Value]) -> bool {
    let before = errors.0.len();
    for (i, ip) in all.iter().enumerate() {
        match ip.as_str().unwrap_or("") {
            "None" if i == 0 && all.len() > 1 => {
                errors.invalid(at, all.to_vec(), "'None' must be the first and only value");
            }
            "None" if i == 0 => {}
            ip => net::ip(errors, &at.index(i), ip),
        }
    }
    let fine = errors.0.len() == before;
    if all.len() > 2 {
        errors.invalid(at, all.to_vec(), "may only hold up to 2 values");
    }
    fine
}

fn family_of(ip: &Value) -> Option<&'static str> {
    let address: IpAddr = ip.as_str()?.parse().ok()?;
    Some(if address.is_ipv4() { "IPv4" } else { "IPv6" })
}

fn has_both_families(all: &[Value]) -> bool {
    FAMILIES.iter().all(|family| all.iter().any(|ip| family_of(ip) == Some(*family)))
}

fn match_families(errors: &mut Errors, at: &Path, all: &[Value], families: &[Value]) {
    for (i, (ip, family)) in all.iter().zip(families).enumerate() {
        let wanted = family.as_str().filter(|family| FAMILIES.contains(family));
        if let (Some(found), Some(wanted)) = (family_of(ip), wanted)
            && found != wanted
        {
            let words = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&at.index(i), ip.clone(), &words);
        }
    }
}

/// The second address and family may come and go, the first stays.
pub(super) fn validate_change(errors: &mut Errors, new: &Value, old: &Value) {
    if [new, old].iter().any(|spec| tree::text(spec, "type") == "ExternalName") {
        return;
    }
    let path = Path::new("spec");
    let headless = |spec: &Value| matches!(tree::list(spec, "clusterIPs"), [only] if only == "None");
    if !(headless(new) && headless(old)) {
        addresses_kept(errors, &path, new, old);
    }
    if !headless(new) && !headless(old) {
        families_kept(errors, &path, new, old);
    }
}

fn addresses_kept(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let at = path.child("clusterIPs");
    let (now, before) = (tree::list(new, "clusterIPs"), tree::list(old, "clusterIPs"));
    if now.len() == before.len() {
        for (i, _) in now.iter().zip(before).enumerate().filter(|(_, (now, before))| now != before) {
            errors.invalid(&at.index(i), now.to_vec(), ONCE);
        }
        return;
    }
    if now.is_empty() {
        errors.invalid(&at.index(0), Value::Null, "primary clusterIP can not be unset");
    } else if before.first().is_some_and(|first| *first != now[0]) {
        errors.invalid(&at.index(0), now.to_vec(), ONCE);
    }
    second_released(errors, path, new, now.len() == 1 && before.len() > 1, "clusterIP");
}

fn families_kept(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let at = path.child("ipFamilies").index(0);
    let (now, before) = (tree::list(new, "ipFamilies"), tree::list(old, "ipFamilies"));
    let addresses = tree::list(new, "clusterIPs");
    if now.len() == before.len() {
        for _ in now.iter().zip(before).filter(|(now, before)| now != before) {
            errors.invalid(&at, now.to_vec(), ONCE);
        }
        return;
    }
    if now.len() < before.len() && addresses.is_empty() {
        errors.invalid(&at, now.to_vec(), "primary ipFamily can not be unset");
    }
    if now.first().zip(before.first()).is_some_and(|(now, before)| now != before) {
        errors.invalid(&at, addresses.to_vec(), ONCE);
    }
    second_released(errors, path, new, now.len() == 1 && before.len() > 1, "ipFamily");
}

fn second_released(errors: &mut Errors, path: &Path, new: &Value, released: bool, what: &str) {
    if released && tree::text(new, "ipFamilyPolicy") != "SingleStack" {
        let words = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.invalid(&path.child("ipFamilyPolicy"), new["ipFamilyPolicy"].clone(), &words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_and_families_fit() {
        for (spec, expected) in [
            (json!({}), vec![]),
            (json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}), vec![]),
            (json!({"clusterIP": "10.0.0.1"}), vec!["spec.clusterIPs: Required value"]),
            (
                json!({"clusterIPs": ["10.0.0.1"]}),
                vec!["spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: must be empty when `clusterIP` is not specified"],
            ),
            (
                json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]}),
                vec!["spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: first value must match `clusterIP`"],
            ),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None", "fd00::1"]}),
                vec!["spec.clusterIPs: Invalid value: [\"None\",\"fd00::1\"]: 'None' must be the first and only value"],
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
                vec![
                    "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for \
                     each IP family",
                ],
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
                vec![
                    "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by \
                     `ipFamilies[0]`",
                ],
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": "Both"}),
                vec![
                    "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
                    "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \
                     \"RequireDualStack\", \"SingleStack\"",
                ],
            ),
        ] {
            assert_eq!(texts(&errors_of(&spec)), expected, "{spec}");
        }
    }

    #[test]
    fn the_second_comes_and_goes() {
        let spec = |ips: &[&str], policy: &str| {
            let families: Vec<_> = ips.iter().filter_map(|ip| family_of(&json!(ip))).collect();
            json!({"clusterIP": ips.first(), "clusterIPs": ips, "ipFamilies": families, "ipFamilyPolicy": policy})
        };
        let (one, both) = (["10.0.0.1"].as_slice(), ["10.0.0.1", "fd00::1"].as_slice());
        for (new, old, expected) in [
            (spec(both, "RequireDualStack"), spec(one, "SingleStack"), vec![]),
            (spec(one, "SingleStack"), spec(both, "RequireDualStack"), vec![]),
            (
                spec(one, "PreferDualStack"),
                spec(both, "PreferDualStack"),
                vec![
                    "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when \
                     releasing the secondary clusterIP",
                    "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when \
                     releasing the secondary ipFamily",
                ],
            ),
            (
                spec(&["10.0.0.2"], "SingleStack"),
                spec(one, "SingleStack"),
                vec!["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
            ),
        ] {
            assert_eq!(texts(&Errors::of(|errors| validate_change(errors, &new, &old))), expected);
        }
    }
}
