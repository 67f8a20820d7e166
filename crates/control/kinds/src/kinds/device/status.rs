//! What schedulers and drivers write into the status of a claim: what was allocated, for whom, and how it does.

use super::{
    claim::{reference, references, request_names},
    shared::{binding_conditions, configuration, items, pool_name, raw_object, toleration},
};
use crate::{
    check::{Errors, condition, selector},
    kinds::pod,
    tree,
};
use pintle_types::{field::Path, names};
use serde_json::Value;

/// What is wrong with an update of a claim's status.
pub(super) fn validate(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let (status, before) = (&new["status"], &old["status"]);
    let known = request_names(&new["spec"]["devices"]);
    consumers(errors, &path.child("reservedFor"), tree::list(status, "reservedFor"));
    let allocated = allocated_devices(&status["allocation"]);
    let key = |device: &Value| device_id(device).into();
    items(errors, &path.child("devices"), tree::list(status, "devices"), usize::MAX, Some(key), |errors, at, one| {
        device(errors, at, one, &allocated);
    });
    reservations(errors, &path.child("reservedFor"), new, before);
    let at = path.child("allocation");
    match (tree::has(before, "allocation"), tree::has(status, "allocation")) {
        (true, true) => errors.immutable(&at, &status["allocation"], &before["allocation"]),
        (false, true) => allocation(errors, &at, &status["allocation"], &known),
        _ => {}
    }
}

fn consumers(errors: &mut Errors, path: &Path, consumers: &[Value]) {
    const MOST: usize = 256;
    let key = |consumer: &Value| tree::text(consumer, "uid").into();
    items(errors, path, consumers, MOST, Some(key), |errors, at, consumer| {
        for field in ["resource", "name", "uid"] {
            errors.needs(&at.child(field), tree::text(consumer, field), "");
        }
    });
}

/// Only what is allocated can be reserved, and nobody joins while the claim is being deleted.
fn reservations(errors: &mut Errors, path: &Path, new: &Value, before: &Value) {
    let (status, reserved) = (&new["status"], tree::list(&new["status"], "reservedFor"));
    if reserved.is_empty() {
        return;
    }
    if !tree::has(status, "allocation") {
        return errors.forbidden(path, "may not be specified when `allocated` is not set");
    }
    let joins = reserved.iter().any(|consumer| !tree::list(before, "reservedFor").contains(consumer));
    if joins && tree::has(&new["metadata"], "deletionTimestamp") {
        let words = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(path, words);
    }
}

/// A device with the share of it, as messages show it.
fn device_id(device: &Value) -> String {
    let id = ["driver", "pool", "device"].map(|field| tree::text(device, field)).join("/");
    match tree::text(device, "shareID") {
        "" => id,
        share => format!("{id}/{share}"),
    }
}

fn allocated_devices(allocation: &Value) -> Vec<String> {
    tree::list(&allocation["devices"], "results").iter().map(device_id).collect()
}

fn place(errors: &mut Errors, at: &Path, device: &Value) {
    pod::driver_name(errors, &at.child("driver"), tree::text(device, "driver"));
    pool_name(errors, &at.child("pool"), tree::text(device, "pool"));
    let own = tree::text(device, "device");
    errors.invalid_for(&at.child("device"), own, names::dns1123_label_errors(own));
}

fn device(errors: &mut Errors, at: &Path, device: &Value, allocated: &[String]) {
    const MOST_CONDITIONS: usize = 8;
    place(errors, at, device);
    let id = device_id(device);
    if !allocated.contains(&id) {
        errors.invalid(at, id, "must be an allocated device in the claim");
    }
    let (conditions, path) = (tree::list(device, "conditions"), at.child("conditions"));
    if conditions.len() > MOST_CONDITIONS {
        errors.too_many(&path, conditions.len(), MOST_CONDITIONS);
    }
    condition::all(errors, &path, conditions);
    if tree::has(device, "data") {
        raw_object(errors, &at.child("data"), &device["data"]);
    }
    network(errors, &at.child("networkData"), &device["networkData"]);
}

fn network(errors: &mut Errors, at: &Path, data: &Value) {
    const MOST_ADDRESSES: usize = 16;
    for (field, longest) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if tree::text(data, field).len() > longest {
            errors.too_long(&at.child(field), longest);
        }
    }
    let key = |ip: &Value| ip.clone();
    items(errors, &at.child("ips"), tree::list(data, "ips"), MOST_ADDRESSES, Some(key), |errors, at, ip| {
        let text = ip.as_str().unwrap_or("");
        match text.parse::<ipnet::IpNet>() {
            Err(_) => {
                errors.invalid(at, text, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)")
            }
            Ok(net) if net.to_string() != text => {
                errors.invalid(at, text, &format!("must be in canonical form ({:?})", net.to_string()));
            }
            Ok(_) => {}
        }
    });
}

fn allocation(errors: &mut Errors, at: &Path, allocation: &Value, known: &[String]) {
    const MOST_RESULTS: usize = 32;
    let (devices, path) = (&allocation["devices"], at.child("devices"));
    items(errors, &path.child("results"), tree::list(devices, "results"), MOST_RESULTS, None, |errors, at, result| {
        reference(errors, &at.child("request"), tree::text(result, "request"), known);
        place(errors, at, result);
        binding_conditions(errors, at, result);
        items(errors, &at.child("tolerations"), tree::list(result, "tolerations"), usize::MAX, None, toleration);
    });
    // Those of the class and those of the claim.
    let most = 2 * MOST_RESULTS;
    items(errors, &path.child("config"), tree::list(devices, "config"), most, None, |errors, at, config| {
        let source = tree::text(config, "source");
        errors.needs_one_of(&at.child("source"), source, &["FromClaim", "FromClass"]);
        references(errors, &at.child("requests"), tree::list(config, "requests"), known);
        configuration(errors, at, config);
    });
    if tree::has(allocation, "nodeSelector") {
        selector::nodes(errors, &at.child("nodeSelector"), &allocation["nodeSelector"]);
    }
}
