//! Compares protobuf with upstream's test data: `golden FOLDER`, the `testdata/HEAD` of the Go module `k8s.io/api`.
//!
//! For each kind the folder has `GROUP.VERSION.KIND.json` and `.pb` of the same object, with every field set. Prints
//! what differs.

#![allow(clippy::print_stdout, reason = "a command whose output is its purpose")]

use pintle_schema::Schema;
use pintle_schema::decode::Limits;
use pintle_schema::protobuf::{Envelope, encode};
use serde_json::Value;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: golden FOLDER")?;
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let (mut same, mut all) = (0, 0);
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let json: Value = serde_json::from_slice(&std::fs::read(path)?)?;
        let bytes = std::fs::read(path.with_extension("pb"))?;
        if !is_known(&json) {
            continue;
        }
        all += 1;
        same += usize::from(check(path, &json, &bytes));
    }
    println!("{same} of {all} kinds are the same");
    Ok(())
}

fn is_known(object: &Value) -> bool {
    let (api_version, kind) = (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Schema::builtin().kind(group, version, kind).is_some()
}

fn check(path: &Path, json: &Value, bytes: &[u8]) -> bool {
    let name = path.file_stem().unwrap_or_default().display();
    let decoded = Envelope::open(bytes).and_then(|envelope| envelope.object(("", ""), Limits::default()));
    let right = match &decoded {
        Ok(value) => difference(json, value, String::new()),
        Err(e) => Some(e.to_string()),
    };
    if let Some(why) = &right {
        println!("{name}: decoding: {why}");
    }
    let encoded = encode(json).unwrap_or_default();
    let at = encoded.iter().zip(bytes).position(|(a, b)| a != b);
    let equal = encoded == bytes;
    if !equal {
        println!("{name}: encoding: {} bytes, not {}; they differ at {at:?}", encoded.len(), bytes.len());
    }
    right.is_none() && equal
}

/// The first difference, with its path.
fn difference(a: &Value, b: &Value, path: String) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            let get = |map: &serde_json::Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or_default();
            keys.iter().find_map(|key| difference(&get(a, key), &get(b, key), format!("{path}.{key}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(a, b, format!("{path}[{i}]")))
        }
        _ if a == b => None,
        _ => Some(format!("{path} is {b}, not {a}")),
    }
}
