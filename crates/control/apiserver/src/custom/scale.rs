//! Numbers and selector that a custom resource shows through its `scale` subresource.

use pintle_kinds::ScalePaths;
use pintle_types::field::{ErrorList, FieldError, Path};
use serde_json::Value;

/// What is wrong with them. Upstream names the paths with the dot that definitions write in front.
pub(super) fn check(paths: &ScalePaths, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    for path in [&paths.spec_replicas, &paths.status_replicas] {
        let found = at(object, path);
        let place = Path::new(&format!(".{path}"));
        let mut wrong = |detail: &str| errors.push(FieldError::invalid(&place, found.clone(), detail));
        match found.as_i64() {
            Some(number) if number < 0 => wrong("should be a non-negative integer"),
            Some(number) if number > i64::from(i32::MAX) => {
                wrong(&format!("should be less than or equal to {}", i32::MAX));
            }
            _ => {}
        }
    }
    errors
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, field| &value[field])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn replicas_are_no_negative_numbers() {
        let paths = ScalePaths { spec_replicas: "spec.n".into(), status_replicas: "status.n".into(), selector: None };
        let check = |object: Value| check(&paths, &object).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(check(json!({"spec": {"n": 1}})), [""; 0]);
        assert_eq!(check(json!({"spec": {"n": -1}})), [".spec.n: Invalid value: -1: should be a non-negative integer"]);
    }
}
