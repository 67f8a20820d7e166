//! Patches of every type, applied to an object, and apply configurations: refused or done, never more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pintle_schema::apply::{Manager, apply};
use pintle_schema::decode::{self, Limits};
use pintle_schema::{Schema, patch};
use serde_json::json;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(decoded) = decode::json(rest, Limits::default()) else { return };
    let change = decoded.value;
    let ty = Schema::builtin().kind("apps", "v1", "Deployment").expect("it is built in");
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "x", "labels": {"a": "b"}, "finalizers": ["f"]},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "c", "image": "i", "args": ["x"], "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}});
    let by = Manager { name: "m", api_version: "apps/v1", time: "2026-01-01T00:00:00Z", subresource: "" };
    let _ = match first % 4 {
        0 => patch::json(&mut object, &change).is_ok(),
        1 => patch::merge(&mut object, &change).is_ok(),
        2 => patch::strategic(ty, &mut object, &change).is_ok(),
        _ => apply(ty, Some(&object), change, by, first & 4 == 0, &["status"]).is_ok(),
    };
});
