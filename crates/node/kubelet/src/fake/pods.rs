//! Pods for tests, written as JSON.

use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Value, json};

/// A pod `default/p` with uid `u1` and this spec.
///
/// # Panics
/// When the spec is not one.
pub fn pod(spec: Value) -> Pod {
    named("p", "u1", spec)
}

/// A pod in `default`.
///
/// # Panics
/// When the spec is not one.
pub fn named(name: &str, uid: &str, spec: Value) -> Pod {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "generation": 1},
        "spec": spec,
    });
    Pod::from_value(object).expect("the test's pod has the form of one")
}
