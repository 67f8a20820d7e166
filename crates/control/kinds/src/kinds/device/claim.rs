//! What a claim may ask for: requests, constraints between them, and configuration for the drivers.

use super::{
    selectors,
    shared::{by_itself, by_name, configuration, fully_qualified_name, items, toleration},
};
use crate::{check::Errors, tree};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// As many requests, constraints and configurations one claim may have, and names of requests each of these.
const MOST: usize = 32;

/// The names of a claim's requests, those of alternatives behind the name of their request.
pub(super) fn request_names(devices: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for request in tree::list(devices, "requests") {
        let own = tree::text(request, "name");
        found.push(own.to_owned());
        let alternatives = tree::list(request, "firstAvailable").iter();
        found.extend(alternatives.map(|one| format!("{own}/{}", tree::text(one, "name"))));
    }
    found
}

pub(super) fn devices(errors: &mut Errors, path: &Path, devices: &Value) {
    let known = request_names(devices);
    items(errors, &path.child("requests"), tree::list(devices, "requests"), MOST, Some(by_name), request);
    items(errors, &path.child("constraints"), tree::list(devices, "constraints"), MOST, None, |errors, at, one| {
        references(errors, &at.child("requests"), tree::list(one, "requests"), &known);
        constraint(errors, at, one);
    });
    items(errors, &path.child("config"), tree::list(devices, "config"), MOST, None, |errors, at, one| {
        references(errors, &at.child("requests"), tree::list(one, "requests"), &known);
        configuration(errors, at, one);
    });
}

/// Names of requests of the claim, each once.
pub(super) fn references(errors: &mut Errors, path: &Path, names: &[Value], known: &[String]) {
    items(errors, path, names, MOST, Some(by_itself), |errors, at, name| {
        reference(errors, at, name.as_str().unwrap_or(""), known);
    });
}

/// The name of a request of the claim, or of an alternative behind that of its request.
pub(super) fn reference(errors: &mut Errors, at: &Path, name: &str, known: &[String]) {
    const WORDS: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    if name.split('/').count() > 2 {
        return errors.invalid(at, name, WORDS);
    }
    for part in name.split('/') {
        errors.invalid_for(at, part, names::dns1123_label_errors(part));
    }
    if !known.iter().any(|one| one == name) {
        errors.invalid(at, name, WORDS);
    }
}

fn constraint(errors: &mut Errors, at: &Path, constraint: &Value) {
    let given = ["matchAttribute", "distinctAttribute"].into_iter().find(|field| tree::has(constraint, field));
    match given {
        Some(field) => fully_qualified_name(errors, &at.child(field), tree::text(constraint, field)),
        None => {
            // Upstream's words are those for the opposite mistake.
            let words =
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.required(at, words);
        }
    }
}

fn request(errors: &mut Errors, at: &Path, request: &Value) {
    const MOST_ALTERNATIVES: usize = 8;
    let own = tree::text(request, "name");
    errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
    let alternatives = tree::list(request, "firstAvailable");
    match (tree::has(request, "exactly"), alternatives.is_empty()) {
        (true, true) => wanted(errors, &at.child("exactly"), &request["exactly"]),
        (false, false) => {
            let path = at.child("firstAvailable");
            items(errors, &path, alternatives, MOST_ALTERNATIVES, Some(by_name), |errors, at, one| {
                let own = tree::text(one, "name");
                errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
                wanted(errors, at, one);
            });
        }
        (false, true) => errors.required(at, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, false) => {
            let words = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(at, Value::Null, words);
        }
    }
}

fn wanted(errors: &mut Errors, at: &Path, request: &Value) {
    const MOST_TOLERATIONS: usize = 16;
    let class = tree::text(request, "deviceClassName");
    if errors.needs(&at.child("deviceClassName"), class, "") {
        errors.invalid_for(&at.child("deviceClassName"), class, names::dns1123_subdomain_errors(class));
    }
    selectors(errors, &at.child("selectors"), tree::list(request, "selectors"));
    let (mode, count) = (tree::text(request, "allocationMode"), tree::int(request, "count"));
    match mode {
        "All" if count != 0 => {
            errors.invalid(&at.child("count"), count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count <= 0 => errors.invalid(&at.child("count"), count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.unsupported(&at.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    let tolerations = tree::list(request, "tolerations");
    items(errors, &at.child("tolerations"), tolerations, MOST_TOLERATIONS, None, toleration);
}
