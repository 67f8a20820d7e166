//! The amounts of a whole pod against those of its containers.

use crate::{
    check::{
        Errors,
        resource::{self, is_huge_page, quantity},
    },
    tree,
};
use pintle_types::{field::Path, quantity::Quantity};
use serde_json::Value;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

/// The resources that a pod asks for as a whole.
pub(super) fn validate(errors: &mut Errors, path: &Path, spec: &Value, claims: &[&str]) {
    let (at, own) = (path.child("resources"), &spec["resources"]);
    if own.is_null() {
        return;
    }
    if tree::text(&spec["os"], "name") == "windows" {
        return errors.forbidden(&at, "may not be set for a windows pod");
    }
    if tree::has(own, "claims") {
        errors.forbidden(&at.child("claims"), "claims may not be set for Resources at pod-level");
    }
    resource::requirements_of(errors, &at, own, claims, known_name);
    for (resource, sum) in sum_of(spec, "requests") {
        let Some(whole) = own["requests"].get(&resource).and_then(quantity) else { continue };
        if sum > whole {
            let words = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&at.child("requests").key(&resource), whole.to_string(), &words);
        }
    }
    for (resource, sum) in sum_of(spec, "limits").into_iter().filter(|(resource, _)| is_huge_page(resource)) {
        let Some(whole) = own["limits"].get(&resource).and_then(quantity) else { continue };
        if sum > whole {
            let words = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid(&at.child("limits").key(&resource), whole.to_string(), &words);
        }
    }
    each_limit_fits(errors, &at, spec);
}

fn known_name(errors: &mut Errors, path: &Path, resource: &str) {
    let before = errors.0.len();
    resource::standard_name(errors, path, resource);
    if errors.0.len() == before && !matches!(resource, "cpu" | "memory") && !is_huge_page(resource) {
        errors.unsupported(path, resource, &["cpu", "hugepages-", "memory"]);
    }
}

fn each_limit_fits(errors: &mut Errors, at: &Path, spec: &Value) {
    for (i, container) in tree::list(spec, "containers").iter().enumerate() {
        for (resource, limit) in tree::entries(&container["resources"], "limits") {
            let whole = spec["resources"]["limits"].get(resource).and_then(quantity);
            let (Some(limit), Some(whole)) = (quantity(limit), whole) else { continue };
            if limit > whole {
                let at = at.child("containers").index(i).key(resource).child("limits");
                let words = format!("must be less than or equal to pod limits of {whole}");
                errors.invalid(&at, limit.to_string(), &words);
            }
        }
    }
}

/// What all containers need at the same time: those that stay together, and the greatest need on the way there.
fn sum_of(spec: &Value, side: &str) -> Amounts {
    let of = |container: &Value| -> Amounts {
        let amounts = tree::entries(&container["resources"], side).into_iter();
        amounts.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect()
    };
    let add = |sum: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let before = sum.get(name).copied().unwrap_or(Quantity::ZERO);
            sum.insert(name.clone(), before + *amount);
        }
    };
    let most = |sum: &mut Amounts, other: &Amounts| {
        for (name, amount) in other {
            let before = sum.entry(name.clone()).or_insert(*amount);
            *before = (*before).max(*amount);
        }
    };
    let mut running = Amounts::new();
    tree::list(spec, "containers").iter().for_each(|container| add(&mut running, &of(container)));
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in tree::list(spec, "initContainers") {
        let mut own = of(container);
        if tree::text(container, "restartPolicy") == "Always" {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        most(&mut starting, &own);
    }
    most(&mut running, &starting);
    running
}

/// Names of the claims that a pod's containers may use.
pub(super) fn claim_names(spec: &Value) -> Vec<&str> {
    let mut found: Vec<&str> = tree::list(spec, "resourceClaims")
        .iter()
        .map(|claim| tree::text(claim, "name"))
        .filter(|name| !name.is_empty())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The overhead of a runtime is checked as limits are.
pub(super) fn overhead(errors: &mut Errors, path: &Path, amounts: &Value) {
    if !amounts.is_null() {
        let limits = serde_json::json!({ "limits": amounts });
        resource::requirements(errors, path, &limits, &[]);
    }
}

/// The claims of a pod: each by name or by template.
pub(super) fn resource_claims(errors: &mut Errors, path: &Path, claims: &[Value]) {
    use pintle_types::names::{dns1123_label_errors, dns1123_subdomain_errors};
    const SOURCES: [&str; 2] = ["resourceClaimName", "resourceClaimTemplateName"];
    let mut seen = crate::check::Seen::default();
    for (i, claim) in claims.iter().enumerate() {
        let (at, own) = (path.index(i), tree::text(claim, "name"));
        if errors.needs(&at.child("name"), own, "") {
            if seen.first(own) {
                errors.invalid_for(&at.child("name"), own, dns1123_label_errors(own));
            } else {
                errors.duplicate(&at.child("name"), own);
            }
        }
        let words = match SOURCES.map(|field| tree::has(claim, field)) {
            [true, true] => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            [false, false] => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => "",
        };
        if !words.is_empty() {
            let shown = format!(
                "{{\"Name\":{},\"ResourceClaimName\":{},\"ResourceClaimTemplateName\":{}}}",
                Value::from(own),
                claim["resourceClaimName"],
                claim["resourceClaimTemplateName"]
            );
            errors.invalid_shown(&at, &shown, words);
        }
        for field in SOURCES {
            if let Some(text) = claim.get(field).and_then(Value::as_str) {
                errors.invalid_for(&at.child(field), text, dns1123_subdomain_errors(text));
            }
        }
    }
}
