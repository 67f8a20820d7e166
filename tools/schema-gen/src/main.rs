//! Writes `crates/api/schema/data`: the structure of every definition, and apart from it the descriptions.
//!
//! `schema-gen EXTENSIONS DEFAULTS GO-MODULES OUT-DIR`. The first two tables hold, per definition, what k8s-openapi's
//! schemas lack: required fields, list and patch extensions, kinds; defaults and enums. GO-MODULES is a folder with the
//! modules `api`, `apimachinery`, `apiextensions-apiserver` and `kube-aggregator` of the same Kubernetes version: their
//! struct tags say how fields print. The result is committed; building pintle does not need this tool.

mod emit;
mod golang;
mod types;

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [extensions, defaults, go_modules, out] = args.as_slice() else {
        anyhow::bail!("usage: schema-gen EXTENSIONS DEFAULTS GO-MODULES OUT-DIR");
    };
    let mut generator = schemars::generate::SchemaSettings::openapi3().into_generator();
    types::collect(&mut generator);
    let tables = emit::Tables {
        schemas: generator.take_definitions(true),
        extensions: read(extensions)?,
        defaults: read(defaults)?,
        go_fields: golang::read(Path::new(go_modules))?,
    };
    let (structure, descriptions) = tables.emit();
    let out = Path::new(out);
    std::fs::write(out.join("structure.txt"), structure)?;
    std::fs::write(out.join("descriptions.zst"), zstd::encode_all(descriptions.as_bytes(), 22)?)?;
    Ok(())
}

fn read(path: &str) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {path}"))?;
    serde_json::from_str(&text).with_context(|| format!("{path} is no JSON"))
}
