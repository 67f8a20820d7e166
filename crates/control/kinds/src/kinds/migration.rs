//! Requests to write all objects of a resource anew, in the version that is stored now.

use crate::{
    check::{Errors, IMMUTABLE, condition, number},
    strategy::Strategy,
    tree,
};
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;

pub struct StorageVersionMigration;

impl Strategy for StorageVersionMigration {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let resource = tree::text(&object["spec"]["resource"], "resource");
            errors.needs(&Path::new("spec.resource.resource"), resource, "resource is required");
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| {
            let (new, old) = (&new["spec"]["resource"], &old["spec"]["resource"]);
            // Upstream names these fields without the way to them.
            for field in ["group", "resource"] {
                if tree::text(new, field) != tree::text(old, field) {
                    errors.invalid(&Path::new(field), tree::text(new, field), IMMUTABLE);
                }
            }
        }));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| validate_status(errors, &Path::new("status"), &new["status"], &old["status"]))
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }
}

fn validate_status(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let (version, at) = (tree::text(new, "resourceVersion"), path.child("resourceVersion"));
    match version.parse::<i64>() {
        Ok(parsed) => number::not_negative(errors, &at, parsed),
        Err(_) if version.is_empty() => {}
        Err(_) => {
            let words = format!(
                "failed to parse resource version {version:?}: strconv.ParseInt: parsing {version:?}: invalid syntax"
            );
            errors.invalid(&at, version, &words);
        }
    }
    let conditions = tree::list(new, "conditions");
    let place = path.child("conditions");
    condition::all(errors, &place, conditions);
    let before = tree::text(old, "resourceVersion");
    if !before.is_empty() && before != version {
        errors.invalid(&at, version, "cannot be updated");
    }
    let is = |kind: &str| condition::is_true(new, kind);
    let was = |kind: &str| condition::is_true(old, kind);
    let (succeeded, failed, running) = (is("Succeeded"), is("Failed"), is("Running"));
    for (wrong, words) in [
        (succeeded && failed, "Both success and failed conditions cannot be true at the same time"),
        (succeeded && running, "Running condition cannot be true when success condition is true"),
        (failed && running, "Running condition cannot be true when failed condition is true"),
        (was("Succeeded") && !succeeded, "Success condition cannot be set to false once it is true"),
        (was("Failed") && !failed, "Failed condition cannot be set to false once it is true"),
    ] {
        if wrong {
            errors.invalid_shown(&place, &condition::shown(conditions), words);
        }
    }
}
