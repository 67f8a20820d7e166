//! Rules that taint devices, and questions for the state of pools.

use super::{
    NAME_AND_AGE, name_and_age,
    shared::{pool_name, taint},
};
use crate::{
    check::{Errors, IMMUTABLE, condition},
    column::Column,
    kinds::pod,
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

pub struct DeviceTaintRule;

/// A taint that does not say since when it is there is there since now.
pub(super) fn stamp(taint: &mut Value, now: Timestamp) {
    tree::default_to(taint, "timeAdded", now.to_string());
}

impl Strategy for DeviceTaintRule {
    fn stamp(&self, subresource: &str, new: &mut Value, _old: Option<&Value>, now: Timestamp) {
        let taint = tree::existing(new, "spec").and_then(|spec| tree::existing(spec, "taint"));
        if let Some(taint) = taint.filter(|_| subresource.is_empty()) {
            stamp(taint, now);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| rule(errors, &Path::new("spec"), &object["spec"], None))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| rule(errors, &Path::new("spec"), &new["spec"], Some(&old["spec"])))
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        const MOST: usize = 8;
        Errors::of(|errors| {
            let (path, conditions) = (Path::new("status.conditions"), tree::list(&new["status"], "conditions"));
            condition::all(errors, &path, conditions);
            if conditions.len() > MOST {
                errors.too_many(&path, conditions.len(), MOST);
            }
        })
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        NAME_AND_AGE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        name_and_age(object, now)
    }
}

fn rule(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>) {
    let (at, selected) = (path.child("deviceSelector"), &spec["deviceSelector"]);
    let text = |field: &str| selected.get(field).and_then(Value::as_str);
    if let Some(driver) = text("driver") {
        pod::driver_name(errors, &at.child("driver"), driver);
    }
    if let Some(pool) = text("pool") {
        pool_name(errors, &at.child("pool"), pool);
    }
    if let Some(device) = text("device") {
        errors.invalid_for(&at.child("device"), device, names::dns1123_label_errors(device));
    }
    taint(errors, &path.child("taint"), &spec["taint"], old.map(|old| &old["taint"]));
}

pub struct ResourcePoolStatusRequest;

impl Strategy for ResourcePoolStatusRequest {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| question(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| errors.immutable(&Path::new("spec"), &new["spec"], &old["spec"]))
    }

    /// An answer is given once.
    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        let (path, new, old) = (Path::new("status"), &new["status"], &old["status"]);
        Errors::of(|errors| match tree::has(old, "poolCount") {
            true if new != old => errors.invalid(&path, new.clone(), IMMUTABLE),
            true => {}
            false => answer(errors, &path, new),
        })
    }

    fn columns(&self) -> &[Column] {
        NAME_AND_AGE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        name_and_age(object, now)
    }
}

fn question(errors: &mut Errors, path: &Path, spec: &Value) {
    const MOST: i64 = 1000;
    pod::driver_name(errors, &path.child("driver"), tree::text(spec, "driver"));
    let pool = tree::text(spec, "poolName");
    if !pool.is_empty() {
        pool_name(errors, &path.child("poolName"), pool);
    }
    let at = path.child("limit");
    match spec.get("limit").and_then(Value::as_i64) {
        Some(limit) if limit < 1 => errors.invalid(&at, limit, "must be greater than or equal to 1"),
        Some(limit) if limit > MOST => {
            errors.invalid(&at, limit, &format!("must be less than or equal to {MOST}"));
        }
        _ => {}
    }
}

fn answer(errors: &mut Errors, path: &Path, status: &Value) {
    const COUNTS: &[&str] =
        &["generation", "totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices"];
    for (i, pool) in tree::list(status, "pools").iter().enumerate() {
        let at = path.child("pools").index(i);
        pod::driver_name(errors, &at.child("driver"), tree::text(pool, "driver"));
        pool_name(errors, &at.child("poolName"), tree::text(pool, "poolName"));
        let node = tree::text(pool, "nodeName");
        if !node.is_empty() {
            errors.invalid_for(&at.child("nodeName"), node, names::dns1123_subdomain_errors(node));
        }
        crate::check::number::fields_not_negative(errors, &at, pool, COUNTS);
    }
    condition::all(errors, &path.child("conditions"), tree::list(status, "conditions"));
    crate::check::number::fields_not_negative(errors, path, status, &["poolCount"]);
}
