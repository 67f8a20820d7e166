//! What a driver may say of its devices in a slice.

use super::shared::{binding_conditions, by_name, items, pool_name, qualified_name, taint};
use crate::{
    check::{Errors, selector},
    kinds::pod,
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

pub(super) fn validate(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>) {
    pod::driver_name(errors, &path.child("driver"), tree::text(spec, "driver"));
    pool(errors, &path.child("pool"), &spec["pool"]);
    if let Some(old) = old {
        // Whose devices these are, and where, stays; what they are may change.
        let at = path.child("pool").child("name");
        errors.immutable(&at, &spec["pool"]["name"], &old["pool"]["name"]);
        for field in ["driver", "nodeName"] {
            errors.immutable(&path.child(field), &spec[field], &old[field]);
        }
    }
    nodes(errors, path, spec);
    if tree::has(spec, "sharedCounters") && tree::has(spec, "devices") {
        errors.invalid(path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    devices(errors, &path.child("devices"), spec, old);
    counters(errors, &path.child("sharedCounters"), tree::list(spec, "sharedCounters"));
}

fn pool(errors: &mut Errors, path: &Path, pool: &Value) {
    pool_name(errors, &path.child("name"), tree::text(pool, "name"));
    let (slices, generation) = (tree::int(pool, "resourceSliceCount"), tree::int(pool, "generation"));
    if slices <= 0 {
        errors.invalid(&path.child("resourceSliceCount"), slices, "must be greater than zero");
    }
    if generation < 0 {
        errors.invalid(&path.child("generation"), generation, "must be greater than or equal to zero");
    }
}

/// Checks where devices are, and answers which of the ways to say so are used.
fn places(errors: &mut Errors, path: &Path, owner: &Value, empty_name: &str) -> Vec<&'static str> {
    let mut used = Vec::new();
    let at = path.child("nodeName");
    match owner.get("nodeName").and_then(Value::as_str) {
        Some("") => errors.invalid(&at, "", empty_name),
        Some(node) => {
            used.push("`nodeName`");
            errors.invalid_for(&at, node, names::dns1123_subdomain_errors(node));
        }
        None => {}
    }
    if tree::has(owner, "nodeSelector") {
        used.push("`nodeSelector`");
        selector::nodes(errors, &path.child("nodeSelector"), &owner["nodeSelector"]);
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match owner.get(field).and_then(Value::as_bool) {
            Some(true) => used.push(shown),
            Some(false) => errors.invalid(&path.child(field), false, "must be either unset or set to true"),
            None => {}
        }
    }
    used
}

fn nodes(errors: &mut Errors, path: &Path, spec: &Value) {
    let used = places(errors, path, spec, "must be either unset or set to a non-empty string");
    let terms = tree::list(&spec["nodeSelector"], "nodeSelectorTerms");
    if tree::has(spec, "nodeSelector") && terms.len() != 1 {
        let at = path.child("nodeSelector").child("nodeSelectorTerms");
        let shown: Vec<String> = terms.iter().map(pod::node_term_shown).collect();
        let words = "must have exactly one node selector term";
        errors.invalid_shown(&at, &format!("[{}]", shown.join(",")), words);
    }
    let list = PLACES.map(|place| format!("`{place}`")).join(", ");
    match used.len() {
        0 => errors.required(path, &format!("exactly one of {list} is required")),
        1 => {}
        _ => {
            let words = format!("exactly one of {list} is required, but multiple fields are set");
            errors.invalid(path, format!("{{{}}}", used.join(", ")), &words);
        }
    }
}

fn devices(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>) {
    const MOST: usize = 128;
    const MOST_WITH_MORE: usize = 64;
    let all = tree::list(spec, "devices");
    let lists = |device: &Value| {
        let attributes = tree::entries(device, "attributes");
        attributes.iter().any(|(_, value)| LISTS.iter().any(|(list, _)| tree::has(value, list)))
    };
    let more = |device: &Value| {
        ["taints", "consumesCounters"].iter().any(|field| !tree::list(device, field).is_empty()) || lists(device)
    };
    let most = if all.iter().any(more) { MOST_WITH_MORE } else { MOST };
    let each_says_where = tree::flag(spec, "perDeviceNodeSelection");
    items(errors, path, all, most, Some(by_name), |errors, at, one| {
        let before = old.into_iter().flat_map(|old| tree::list(old, "devices")).find(|it| it["name"] == one["name"]);
        device(errors, at, one, before);
        own_place(errors, at, one, each_says_where);
        binding_conditions(errors, at, one);
    });
}

fn device(errors: &mut Errors, at: &Path, device: &Value, before: Option<&Value>) {
    const MOST: usize = 32;
    const MOST_TAINTS: usize = 16;
    const MOST_COUNTERS: usize = 2;
    let own = tree::text(device, "name");
    errors.invalid_for(&at.child("name"), own, names::dns1123_label_errors(own));
    let (attributes, capacity) = (tree::entries(device, "attributes"), tree::entries(device, "capacity"));
    let count = attributes.len() + capacity.len();
    if count > MOST {
        let words = format!("the total number of attributes and capacities must not exceed {MOST}");
        errors.invalid_shown(at, &count.to_string(), &words);
    }
    for (name, value) in attributes {
        let at = at.child("attributes").key(name);
        qualified_name(errors, &at, name);
        attribute(errors, &at, value);
    }
    let shared = tree::flag(device, "allowMultipleAllocations");
    for (name, value) in capacity {
        let at = at.child("capacity").key(name);
        qualified_name(errors, &at, name);
        if tree::has(value, "requestPolicy") && !shared {
            errors.forbidden(&at.child("requestPolicy"), "allowMultipleAllocations must be true");
        }
    }
    if before.is_none_or(|before| before["taints"] != device["taints"]) {
        items(errors, &at.child("taints"), tree::list(device, "taints"), MOST_TAINTS, None, |errors, at, one| {
            taint(errors, at, one, None);
        });
    }
    let (path, consumed) = (at.child("consumesCounters"), tree::list(device, "consumesCounters"));
    let key = |one: &Value| tree::text(one, "counterSet").into();
    items(errors, &path, consumed, MOST_COUNTERS, Some(key), |errors, at, one| {
        counter_set(errors, at, one, "counterSet")
    });
}

const LISTS: [(&str, &str); 4] = [("bools", "bool"), ("ints", "int"), ("strings", "string"), ("versions", "version")];

/// An attribute has one value, of one of four types, or a list of such.
fn attribute(errors: &mut Errors, at: &Path, attribute: &Value) {
    let (mut singles, mut lists) = (0, 0);
    for kind in ["bool", "int", "string", "version"].into_iter().filter(|kind| tree::has(attribute, kind)) {
        singles += 1;
        attribute_value(errors, &at.child(kind), kind, &attribute[kind]);
    }
    for (list, kind) in LISTS.into_iter().filter(|(list, _)| tree::has(attribute, list)) {
        lists += 1;
        if tree::list(attribute, list).is_empty() {
            errors.invalid(&at.child(list), attribute[list].clone(), "must not be empty if specified");
        }
        for (i, value) in tree::list(attribute, list).iter().enumerate() {
            attribute_value(errors, &at.child(list).index(i), kind, value);
        }
    }
    match singles + lists {
        0 => errors.invalid(at, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid_shown(at, &attribute_shown(attribute), "exactly one value must be specified"),
    }
}

fn attribute_shown(attribute: &Value) -> String {
    let field = |name: &str, key: &str| format!("\"{name}\":{}", attribute.get(key).unwrap_or(&Value::Null));
    let fields = [
        field("IntValue", "int"),
        field("BoolValue", "bool"),
        field("StringValue", "string"),
        field("VersionValue", "version"),
        field("IntValues", "ints"),
        field("BoolValues", "bools"),
        field("StringValues", "strings"),
        field("VersionValues", "versions"),
    ];
    format!("{{{}}}", fields.join(","))
}

fn attribute_value(errors: &mut Errors, at: &Path, kind: &str, value: &Value) {
    const LONGEST: usize = 64;
    let text = value.as_str().unwrap_or("");
    if kind == "version" && !is_semantic_version(text) {
        errors.invalid(at, text, "must be a string compatible with semver.org spec 2.0.0");
    }
    if text.len() > LONGEST {
        errors.too_long(at, LONGEST);
    }
}

/// `1.2.3-before.1+build`.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let number = |part: &str| digits(part) && (part.len() == 1 || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let numbers: Vec<&str> = core.split('.').collect();
    numbers.len() == 3
        && numbers.iter().all(|part| number(part))
        && before.is_none_or(|before| before.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn own_place(errors: &mut Errors, at: &Path, device: &Value, wanted: bool) {
    const FIELDS: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    const WORDS: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                         `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if !wanted {
        if FIELDS.iter().any(|field| tree::has(device, field)) {
            let words = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                         true in the ResourceSlice spec";
            errors.invalid(at, Value::Null, words);
        }
        return;
    }
    let used = places(errors, at, device, "must not be empty");
    match used.len() {
        0 => errors.required(at, WORDS),
        1 => {}
        _ => errors.invalid(at, format!("{{{}}}", used.join(", ")), WORDS),
    }
}

fn counters(errors: &mut Errors, path: &Path, sets: &[Value]) {
    const MOST: usize = 8;
    items(errors, path, sets, MOST, Some(by_name), |errors, at, one| counter_set(errors, at, one, "name"));
}

fn counter_set(errors: &mut Errors, at: &Path, set: &Value, field: &str) {
    const MOST: usize = 32;
    let own = tree::text(set, field);
    if errors.needs(&at.child(field), own, "") {
        errors.invalid_for(&at.child(field), own, names::dns1123_label_errors(own));
    }
    let (counters, path) = (tree::entries(set, "counters"), at.child("counters"));
    match counters.len() {
        0 => errors.required(&path, ""),
        count if count > MOST => errors.too_many(&path, count, MOST),
        _ => {
            for (name, _) in counters {
                errors.invalid_for(&path.key(name), name, names::dns1123_label_errors(name));
            }
        }
    }
}
