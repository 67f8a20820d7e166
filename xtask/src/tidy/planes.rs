//! The folder of a crate is the rule of what it may use (ARCHITECTURE.md, "Planes").

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// The planes that each plane may use.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("base", &["base"]),
    ("api", &["base", "api"]),
    ("kit", &["base", "api", "kit"]),
    ("control", &["base", "api", "kit", "control"]),
    ("engine", &["base", "api", "engine"]),
    ("node", &["base", "api", "kit", "node"]),
    ("front", &["base", "api", "kit", "front"]),
    ("app", &["base", "api", "kit", "control", "engine", "node", "front", "app"]),
    ("testkit", &["base", "api", "kit", "control", "engine", "node", "front", "app", "testkit"]),
];

/// Crates that speak to the API server like any client would, and the crates that they therefore never use.
const CALLERS: [&str; 2] = ["pintle-scheduler", "pintle-controllers"];
const SERVER: [&str; 4] = ["pintle-store", "pintle-kinds", "pintle-registry", "pintle-apiserver"];

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    Ok(findings(&metadata, root))
}

/// The plane of a crate, from where its manifest lies.
fn plane(manifest: &str, root: &Path) -> Option<String> {
    let relative = Path::new(manifest).strip_prefix(root).ok()?;
    let mut parts = relative.components().map(|c| c.as_os_str().to_string_lossy().into_owned());
    (parts.next()? == "crates").then(|| parts.next())?
}

fn findings(metadata: &Value, root: &Path) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let planes: HashMap<String, String> =
        packages.iter().filter_map(|p| Some((text(&p["name"]), plane(p["manifest_path"].as_str()?, root)?))).collect();
    let mut out = Vec::new();
    for package in packages {
        let name = text(&package["name"]);
        let Some(own) = planes.get(&name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = text(&dependency["name"]);
            let Some(other) = planes.get(&used) else { continue };
            let for_tests = dependency["kind"] == "dev";
            if !allowed(own, other, for_tests) {
                out.push(format!("{name} ({own}/) uses {used} ({other}/), which its plane may not"));
            }
            if CALLERS.contains(&name.as_str()) && SERVER.contains(&used.as_str()) && !for_tests {
                out.push(format!("{name} uses {used}: it must be a caller of the API like any other"));
            }
        }
    }
    out
}

fn allowed(own: &str, other: &str, for_tests: bool) -> bool {
    let list = MAY_USE.iter().find(|(plane, _)| *plane == own).map(|(_, list)| *list);
    list.is_some_and(|list| list.contains(&other)) || (for_tests && other == "testkit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_forbidden_edge_is_found() {
        let package = |name: &str, folder: &str, uses: &str, kind: Value| {
            let manifest = format!("/r/crates/{folder}/Cargo.toml");
            json!({ "name": name, "manifest_path": manifest, "dependencies": [{ "name": uses, "kind": kind }] })
        };
        let metadata = json!({ "packages": [
            package("pintle-kubelet", "node/kubelet", "pintle-runtime", Value::Null),
            package("pintle-runtime", "engine/runtime", "pintle-types", Value::Null),
            package("pintle-types", "api/types", "serde", Value::Null),
            package("pintle-scheduler", "control/scheduler", "pintle-store", Value::Null),
            package("pintle-store", "control/store", "pintle-store-contract", json!("dev")),
            package("pintle-store-contract", "testkit/store-contract", "pintle-store", Value::Null),
        ] });
        let found = findings(&metadata, Path::new("/r"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("pintle-kubelet (node/) uses pintle-runtime"));
        assert!(found[1].starts_with("pintle-scheduler uses pintle-store"));
    }
}
