//! Dynamic resources: classes of devices, claims to them, and slices that list them.

mod claim;
mod shared;
mod slice;
mod status;
mod taint;

pub use taint::{DeviceTaintRule, ResourcePoolStatusRequest};

use super::workload;
use crate::{
    check::Errors,
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_cel::device::{self, SelectorError};
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

/// The first version, in which a request's fields aren't under `exactly` and a device's are under `basic`.
const FLAT: &str = "resource.k8s.io/v1beta1";

pub struct DeviceClass;

static NAME_AND_AGE: &[Column] = &[column::NAME, column::AGE];

fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![workload::name(object), column::age(object, now)]
}

impl Strategy for DeviceClass {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| class(errors, &Path::new("spec"), &object["spec"], None))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| class(errors, &Path::new("spec"), &new["spec"], Some(&old["spec"])))
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

/// Selectors that stay are not compiled again.
fn class(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>) {
    if old.is_none_or(|old| old["selectors"] != spec["selectors"]) {
        selectors(errors, &path.child("selectors"), tree::list(spec, "selectors"));
    }
    shared::items(
        errors,
        &path.child("config"),
        tree::list(spec, "config"),
        MOST_SELECTORS,
        None,
        shared::configuration,
    );
    if let Some(resource) = spec.get("extendedResourceName").and_then(Value::as_str)
        && !crate::check::resource::is_extended(resource)
    {
        let words = "must be a valid extended resource name";
        errors.invalid(&path.child("extendedResourceName"), resource, words);
    }
}

const MOST_SELECTORS: usize = 32;

fn selectors(errors: &mut Errors, path: &Path, selectors: &[Value]) {
    if selectors.len() > MOST_SELECTORS {
        return errors.too_many(path, selectors.len(), MOST_SELECTORS);
    }
    for (i, one) in selectors.iter().enumerate() {
        let at = path.index(i).child("cel");
        if tree::has(one, "cel") {
            selector(errors, &at.child("expression"), tree::text(&one["cel"], "expression"));
        } else {
            errors.required(&at, "");
        }
    }
}

fn selector(errors: &mut Errors, at: &Path, expression: &str) {
    // What is too long is not compiled.
    if expression.len() > device::MOST_BYTES {
        return errors.too_long(at, device::MOST_BYTES);
    }
    match device::compile(expression) {
        Ok(_) => {}
        Err(SelectorError::TooComplex) => errors.forbidden(at, "too complex, exceeds cost limit"),
        Err(SelectorError::Wrong(words)) => errors.invalid(at, expression, &words),
    }
}

/// Claims, and templates of claims with the claim's spec one level deeper.
pub struct ResourceClaim {
    pub template: bool,
}

static CLAIM_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("State", "string", "", 0, "A summary of the current state (allocated, pending, reserved, etc.)."),
    column::AGE,
];

impl ResourceClaim {
    fn spec<'a>(&self, object: &'a Value) -> &'a Value {
        if self.template { &object["spec"]["spec"] } else { &object["spec"] }
    }

    fn spec_mut<'a>(&self, object: &'a mut Value) -> Option<&'a mut Value> {
        let spec = tree::existing(object, "spec")?;
        if self.template { tree::existing(spec, "spec") } else { Some(spec) }
    }
}

impl Strategy for ResourceClaim {
    fn default(&self, api_version: &str, object: &mut Value) {
        let Some(devices) = self.spec_mut(object).and_then(|spec| tree::existing(spec, "devices")) else { return };
        for request in tree::items_mut(devices, "requests") {
            if api_version == FLAT {
                if !tree::text(request, "deviceClassName").is_empty() {
                    default_request(request);
                }
            } else if let Some(exactly) = tree::existing(request, "exactly") {
                default_request(exactly);
            }
            tree::items_mut(request, "firstAvailable").for_each(default_request);
        }
    }

    fn to_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == FLAT
            && let Some(devices) = self.spec_mut(object).and_then(|spec| tree::existing(spec, "devices"))
        {
            tree::items_mut(devices, "requests").for_each(nest_request);
        }
    }

    fn from_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == FLAT
            && let Some(devices) = self.spec_mut(object).and_then(|spec| tree::existing(spec, "devices"))
        {
            tree::items_mut(devices, "requests").for_each(flatten_request);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let path = if self.template { "spec.spec.devices" } else { "spec.devices" };
        Errors::of(|errors| claim::devices(errors, &Path::new(path), &self.spec(object)["devices"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| errors.immutable(&Path::new("spec"), &new["spec"], &old["spec"]))
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| status::validate(errors, &Path::new("status"), new, old))
    }

    fn columns(&self) -> &[Column] {
        if self.template { NAME_AND_AGE } else { CLAIM_COLUMNS }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        if self.template {
            return name_and_age(object, now);
        }
        vec![workload::name(object), claim_state(object).into(), column::age(object, now)]
    }
}

fn default_request(request: &mut Value) {
    tree::default_empty(request, "allocationMode", "ExactCount");
    if tree::text(request, "allocationMode") == "ExactCount" {
        tree::default_empty(request, "count", 1);
    }
    tree::items_mut(request, "tolerations").for_each(|toleration| tree::default_empty(toleration, "operator", "Equal"));
}

const REQUEST_FIELDS: &[&str] =
    &["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

fn nest_request(request: &mut Value) {
    let mut exactly = json!({});
    for field in REQUEST_FIELDS {
        if let Some(value) = tree::remove(request, field) {
            tree::set(&mut exactly, field, value);
        }
    }
    if !tree::is_empty(&exactly) {
        tree::set(request, "exactly", exactly);
    }
}

fn flatten_request(request: &mut Value) {
    if let Some(Value::Object(fields)) = tree::remove(request, "exactly") {
        fields.into_iter().for_each(|(field, value)| tree::set(request, &field, value));
    }
}

fn claim_state(object: &Value) -> String {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let mut states = Vec::new();
    if tree::has(metadata, "deletionTimestamp") {
        states.push("deleted");
    }
    match (tree::has(status, "allocation"), tree::has(metadata, "deletionTimestamp")) {
        (true, _) => states.push("allocated"),
        (false, false) => states.push("pending"),
        (false, true) => {}
    }
    if !tree::list(status, "reservedFor").is_empty() {
        states.push("reserved");
    }
    states.join(",")
}

pub struct ResourceSlice;

static SLICE_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Node", "string", "", 0, "NodeName identifies the node which provides the resources in this pool."),
    Column::new("Driver", "string", "", 0, "Driver identifies the DRA driver providing the capacity information."),
    Column::new("Pool", "string", "", 0, "Pool describes the pool that this ResourceSlice belongs to."),
    column::AGE,
];

impl Strategy for ResourceSlice {
    fn to_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == FLAT
            && let Some(spec) = tree::existing(object, "spec")
        {
            for device in tree::items_mut(spec, "devices") {
                if let Some(Value::Object(fields)) = tree::remove(device, "basic") {
                    fields.into_iter().for_each(|(field, value)| tree::set(device, &field, value));
                }
            }
        }
    }

    fn from_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == FLAT
            && let Some(spec) = tree::existing(object, "spec")
        {
            for device in tree::items_mut(spec, "devices") {
                let name = tree::remove(device, "name").unwrap_or(Value::Null);
                let basic = device.take();
                *device = json!({"name": name, "basic": basic});
            }
        }
    }

    fn stamp(&self, _subresource: &str, new: &mut Value, _old: Option<&Value>, now: Timestamp) {
        for device in tree::existing(new, "spec").into_iter().flat_map(|spec| tree::items_mut(spec, "devices")) {
            tree::items_mut(device, "taints").for_each(|taint| taint::stamp(taint, now));
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| slice::validate(errors, &Path::new("spec"), &object["spec"], None))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| slice::validate(errors, &Path::new("spec"), &new["spec"], Some(&old["spec"])))
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        SLICE_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let node = tree::text(spec, "nodeName");
        vec![
            workload::name(object),
            if node.is_empty() { "<unset>".into() } else { node.into() },
            tree::text(spec, "driver").into(),
            tree::text(&spec["pool"], "name").into(),
            column::age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flat_version_converts() {
        let flat = json!({"spec": {"devices": {"requests": [{"name": "r", "deviceClassName": "c", "count": 2}]}}});
        let claim = ResourceClaim { template: false };
        let mut object = flat.clone();
        claim.to_storage(FLAT, &mut object);
        assert_eq!(
            object["spec"]["devices"]["requests"][0],
            json!({"name": "r", "exactly": {"deviceClassName": "c", "count": 2}})
        );
        claim.from_storage(FLAT, &mut object);
        assert_eq!(object, flat);
    }

    #[test]
    fn selectors_are_expressions() {
        let class = |cel: Value| {
            let found = DeviceClass.validate(&json!({"spec": {"selectors": [{"cel": cel}]}}));
            found.iter().map(|error| format!("{}: {}", error.field, error.body)).collect::<Vec<_>>()
        };
        assert!(class(json!({"expression": "device.driver == 'a.example.com'"})).is_empty());
        assert_eq!(class(Value::Null), ["spec.selectors[0].cel: Required value"]);
        let wrong = class(json!({"expression": "nothing"}));
        let words = "spec.selectors[0].cel.expression: Invalid value: \"nothing\": compilation failed: ERROR: \
                     <input>:1:1: undeclared reference to 'nothing' (in container '')";
        assert!(wrong[0].starts_with(words), "{wrong:?}");
        let long = class(json!({"expression": "x".repeat(device::MOST_BYTES + 1)}));
        assert_eq!(long, ["spec.selectors[0].cel.expression: Too long: may not be more than 10240 bytes"]);
    }

    #[test]
    fn claims_default_and_validate() {
        let claim = ResourceClaim { template: true };
        let mut object =
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}}});
        claim.default("resource.k8s.io/v1", &mut object);
        let exactly = &object["spec"]["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!(exactly, &json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}));
        assert!(claim.validate(&object).is_empty());
    }

    #[test]
    fn devices_of_slices_convert() {
        let flat = json!({"spec": {"devices": [{"name": "d", "basic": {"attributes": {"a": {"int": 1}}}}]}});
        let mut object = flat.clone();
        ResourceSlice.to_storage(FLAT, &mut object);
        assert_eq!(object["spec"]["devices"][0], json!({"name": "d", "attributes": {"a": {"int": 1}}}));
        ResourceSlice.from_storage(FLAT, &mut object);
        assert_eq!(object, flat);
    }
}
