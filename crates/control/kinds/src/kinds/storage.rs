//! Storage classes and classes of volume attributes.

use super::{pod, workload};
use crate::{
    check::{Errors, name},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub struct StorageClass;

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

static CLASS_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Provisioner", "string", "", 0, "provisioner indicates the type of the provisioner."),
    Column::new(
        "ReclaimPolicy",
        "string",
        "",
        0,
        "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. \
         Defaults to Delete.",
    ),
    Column::new(
        "VolumeBindingMode",
        "string",
        "",
        0,
        "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, \
         VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
    ),
    Column::new(
        "AllowVolumeExpansion",
        "string",
        "",
        0,
        "allowVolumeExpansion shows whether the storage class allow volume expand.",
    ),
    column::AGE,
];

impl Strategy for StorageClass {
    fn default(&self, _api_version: &str, object: &mut Value) {
        tree::default_to(object, "reclaimPolicy", "Delete");
        tree::default_to(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            driver_name(errors, &Path::new("provisioner"), tree::text(object, "provisioner"));
            parameters(errors, &object["parameters"]);
            let policy = tree::text(object, "reclaimPolicy");
            if !policy.is_empty() {
                errors.one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
            }
            let mode = object.get("volumeBindingMode").and_then(Value::as_str);
            match mode {
                None => errors.required(&Path::new("volumeBindingMode"), ""),
                Some(mode) => {
                    errors.one_of(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
                }
            }
            topologies(errors, tree::list(object, "allowedTopologies"));
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| {
            for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
                errors.immutable(&Path::new(field), tree::at(new, field), tree::at(old, field));
            }
        }));
        found
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut found = Vec::new();
        for (i, term) in tree::list(new, "allowedTopologies").iter().enumerate() {
            for (j, expression) in tree::list(term, "matchLabelExpressions").iter().enumerate() {
                let at = format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key");
                found.extend(pod::old_label(tree::text(expression, "key")).map(|words| format!("{at}: {words}")));
            }
        }
        found
    }

    fn columns(&self) -> &[Column] {
        CLASS_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let annotations = &object["metadata"]["annotations"];
        let default = DEFAULT_CLASS.iter().any(|key| tree::text(annotations, key) == "true");
        let name = tree::text(&object["metadata"], "name");
        let expands = tree::flag(object, "allowVolumeExpansion");
        vec![
            if default { format!("{name} (default)").into() } else { name.into() },
            tree::text(object, "provisioner").into(),
            tree::text(object, "reclaimPolicy").into(),
            tree::text(object, "volumeBindingMode").into(),
            expands.into(),
            column::age(object, now),
        ]
    }
}

/// The name of a driver: a qualified name, whatever its case.
fn driver_name(errors: &mut Errors, path: &Path, text: &str) {
    if errors.needs(path, text, "") {
        let low = text.to_lowercase();
        errors.invalid_for(path, &low, name::qualified(&low));
    }
}

/// What the driver is told: at most 512 words, all together at most 256 KiB.
fn parameters(errors: &mut Errors, parameters: &Value) {
    const MOST: usize = 512;
    const LONGEST: usize = 256 * 1024;
    let path = Path::new("parameters");
    let Some(given) = parameters.as_object() else { return };
    if given.len() > MOST {
        return errors.too_long(&path, MOST);
    }
    if given.contains_key("") {
        errors.invalid(&path, "", "field can not be empty.");
    }
    let size: usize = given.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > LONGEST {
        errors.too_long(&path, LONGEST);
    }
}

fn topologies(errors: &mut Errors, terms: &[Value]) {
    // Upstream begins with as many terms that have nothing.
    let mut before: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let at = Path::new("allowedTopologies").index(i).child("matchLabelExpressions");
        let mut own = BTreeMap::new();
        for (j, expression) in tree::list(term, "matchLabelExpressions").iter().enumerate() {
            let (at, key) = (at.index(j), tree::text(expression, "key"));
            let values = topology_values(errors, &at.child("values"), tree::list(expression, "values"));
            errors.invalid_for(&at.child("key"), key, name::qualified(key));
            if own.insert(key, values).is_some() {
                errors.duplicate(&at.child("key"), key);
            }
        }
        before.iter().filter(|one| **one == own).for_each(|_| errors.duplicate(&at, ""));
        before.push(own);
    }
}

fn topology_values<'a>(errors: &mut Errors, at: &Path, values: &'a [Value]) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    if values.is_empty() {
        errors.required(at, "");
    }
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or("");
        if !seen.insert(value) {
            errors.duplicate(&at.index(i), value);
        }
    }
    seen
}

pub struct VolumeAttributesClass;

static ATTRIBUTES_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("DriverName", "string", "", 0, "Name of the CSI driver This field is immutable."),
    column::AGE,
];

impl Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            driver_name(errors, &Path::new("driverName"), tree::text(object, "driverName"));
            if tree::is_empty(&object["parameters"]) {
                errors.required(&Path::new("parameters"), "must contain at least one key/value pair");
            }
            parameters(errors, &object["parameters"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = Errors::of(|errors| {
            for field in
                ["driverName", "parameters"].iter().filter(|field| tree::at(new, field) != tree::at(old, field))
            {
                errors.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
            }
        });
        found.extend(self.validate(new));
        found
    }

    fn columns(&self) -> &[Column] {
        ATTRIBUTES_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), tree::text(object, "driverName").into(), column::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let mut object =
            json!({"metadata": {"name": "c", "annotations": {DEFAULT_CLASS[0]: "true"}}, "provisioner": "a/b"});
        StorageClass.default("storage.k8s.io/v1", &mut object);
        assert!(StorageClass.validate(&object).is_empty());
        let cells = StorageClass.cells(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[..4], ["c (default)", "a/b", "Delete", "Immediate"].map(Value::from));
        let mut other = object.clone();
        other["reclaimPolicy"] = json!("Retain");
        assert_eq!(
            StorageClass.validate_update(&other, &object)[0].to_string(),
            "reclaimPolicy: Invalid value: \"Retain\": field is immutable"
        );
    }

    #[test]
    fn classes_of_attributes() {
        let valid = json!({"metadata": {"name": "c"}, "driverName": "csi.example.com", "parameters": {"iops": "1"}});
        let cases = [
            ("valid", "parameters", json!({"iops": "2"}), vec![]),
            (
                "no parameters",
                "parameters",
                json!({}),
                vec!["parameters: Required value: must contain at least one key/value pair"],
            ),
            ("no driver", "driverName", json!(""), vec!["driverName: Required value"]),
        ];
        for (name, field, value, expected) in cases {
            let mut object = valid.clone();
            object[field] = value;
            let found: Vec<_> = VolumeAttributesClass.validate(&object).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{name}");
        }
        let mut other = valid.clone();
        other["driverName"] = json!("other.example.com");
        assert_eq!(
            VolumeAttributesClass.validate_update(&other, &valid)[0].to_string(),
            "driverName: Forbidden: updates to driverName are forbidden."
        );
    }
}
