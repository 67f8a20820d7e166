//! What every kind fills in, refuses, and keeps from being changed: rows of small objects, run as the server would.
//!
//! The rows are in the `.rules` files beside this one, one for each group of kinds; `parse.rs` says how they are
//! written. Every object goes the way of a request: the schema's checks, defaults, the stored form, what the server
//! sets itself, validation. A row with a field that its kind lacks fails, so rows can't be wrong unnoticed.

mod parse;
mod path;

use parse::{Act, Case, Row};
use pintle_kinds::{ResourceDef, Table};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const FILES: &[(&str, &str)] = &[
    ("pod", include_str!("pod.rules")),
    ("workloads", include_str!("workloads.rules")),
    ("core", include_str!("core.rules")),
    ("network", include_str!("network.rules")),
    ("storage", include_str!("storage.rules")),
    ("access", include_str!("access.rules")),
    ("extension", include_str!("extension.rules")),
    ("cluster", include_str!("cluster.rules")),
];

/// Runs all rows of one file and tells all that failed at once.
fn check(file: &str) {
    let text = FILES.iter().find(|(name, _)| *name == file).expect("the file is listed").1;
    let table = Table::builtin();
    let cases = parse::file(text).unwrap_or_else(|why| panic!("{file}.rules: {why}"));
    let mut failures = Vec::new();
    for case in &cases {
        for row in &case.rows {
            if let Err(why) = run(&table, case, row) {
                failures.push(format!("{file}.rules:{}: {} — {}\n{why}", row.line, case.kind, row.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} rows failed\n\n{}\n", failures.len(), failures.join("\n\n"));
}

macro_rules! files {
    ($($name:ident)*) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}
files! { pod workloads core network storage access extension cluster }

#[test]
fn every_kind_has_rows() {
    let mut defaulted = BTreeSet::new();
    let mut checked = BTreeSet::new();
    let table = Table::builtin();
    for (file, text) in FILES {
        for case in parse::file(text).unwrap_or_else(|why| panic!("{file}.rules: {why}")) {
            let def = definition(&table, &case.kind).unwrap_or_else(|why| panic!("{file}.rules: {why}"));
            let kind = (def.storage.group.clone(), def.kind.clone());
            for row in &case.rows {
                match row.act {
                    Act::Defaults | Act::NoDefaults => defaulted.insert(kind.clone()),
                    Act::Wrong | Act::Update => checked.insert(kind.clone()),
                    Act::Fine => false,
                };
            }
        }
    }
    // Reviews and other kinds that are only answered are checked where they are answered.
    let kept = table.iter().filter(|def| def.has_verb("create") && def.has_verb("get"));
    let missing: BTreeSet<String> = kept
        .map(|def| (def.storage.group.clone(), def.kind.clone()))
        .filter(|kind| !defaulted.contains(kind) || !checked.contains(kind))
        .map(|(group, kind)| format!("{kind}.{group}"))
        .collect();
    assert!(missing.is_empty(), "kinds without a row of defaults, or without one of rules: {missing:#?}");
}

fn definition(table: &Table, kind: &str) -> Result<Arc<ResourceDef>, String> {
    let (api_version, kind) = kind.split_once(' ').ok_or_else(|| format!("{kind:?} is no version and kind"))?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    table.by_kind(group, version, kind).cloned().ok_or_else(|| format!("there is no {api_version} {kind}"))
}

fn run(table: &Table, case: &Case, row: &Row) -> Result<(), String> {
    let def = definition(table, &case.kind)?;
    let mut object = case.base.clone();
    for (path, value) in &row.old {
        path::set(&mut object, path, value.clone())?;
    }
    let before = object.clone();
    for (path, value) in &row.new {
        path::set(&mut object, path, value.clone())?;
    }
    match row.act {
        Act::Defaults => expect_fields(&completed(&def, object)?, row),
        Act::NoDefaults => {
            let (mut given, found) = (shaped(&def, object.clone())?, completed(&def, object)?);
            normalize(&def, &mut given);
            if given == found { Ok(()) } else { Err(format!("  expected: {given}\n  got:      {found}")) }
        }
        Act::Fine | Act::Wrong => {
            let stored = stored(table, &def, completed(&def, object)?);
            compare(&row.errors, &def.validate_create(&stored))?;
            told(&row.warnings, &def.strategy.warnings(&stored, None))?;
            expect_fields(&stored, row)
        }
        Act::Update => {
            let old = stored_with_status(table, &def, completed(&def, before)?);
            let (new, errors) = updated(table, &def, completed(&def, object)?, &old, &row.through);
            compare(&row.errors, &errors)?;
            let warnings = match row.through.as_str() {
                "" => def.strategy.warnings(&new, Some(&old)),
                through => def.strategy.subresource_warnings(through, &new),
            };
            told(&row.warnings, &warnings)?;
            expect_fields(&new, row)
        }
    }
}

/// The object as a request may bring it: of the kind's fields and their types.
fn shaped(def: &ResourceDef, mut object: Value) -> Result<Value, String> {
    object["apiVersion"] = def.api_version().into();
    object["kind"] = def.kind.clone().into();
    let ty = def.type_ref().ok_or("  the kind has no schema")?;
    let unknown = pintle_schema::check::unknown_fields(ty, &mut object);
    if !unknown.is_empty() {
        return Err(format!("  the row itself is wrong: {}", unknown.join(", ")));
    }
    pintle_schema::check::types(ty, &object).map_err(|why| format!("  the row itself is wrong: {why}"))?;
    Ok(object)
}

fn normalize(def: &ResourceDef, object: &mut Value) {
    if let Some(ty) = def.type_ref() {
        pintle_schema::normalize::object(ty, object);
    }
}

/// With defaults and in canonical form, as before and after admission.
fn completed(def: &ResourceDef, object: Value) -> Result<Value, String> {
    let mut object = shaped(def, object)?;
    def.default_object(&mut object);
    normalize(def, &mut object);
    if !def.strategy.defaults_once() {
        def.default_object(&mut object);
        normalize(def, &mut object);
    }
    Ok(object)
}

/// In the stored version's form, with what the server sets.
fn stored(table: &Table, def: &ResourceDef, mut object: Value) -> Value {
    def.to_storage(&mut object);
    for (field, value) in [("uid", "u-1"), ("creationTimestamp", "2026-01-01T00:00:00Z")] {
        object["metadata"][field] = value.into();
    }
    def.prepare_create(&mut object);
    settle(table, def, &mut object);
    object
}

/// The same with the status that the row gives, as later writes left it.
fn stored_with_status(table: &Table, def: &ResourceDef, object: Value) -> Value {
    let mut given = object.clone();
    def.to_storage(&mut given);
    let mut kept = stored(table, def, object);
    if let Some(status) = given.get("status").filter(|status| status.as_object().is_some_and(|s| !s.is_empty())) {
        kept["status"] = status.clone();
    }
    settle(table, def, &mut kept);
    kept
}

fn settle(table: &Table, def: &ResourceDef, object: &mut Value) {
    if let Some(kept) = table.storage_def(def) {
        normalize(kept, object);
    }
}

fn updated(
    table: &Table,
    def: &ResourceDef,
    mut new: Value,
    old: &Value,
    through: &str,
) -> (Value, pintle_types::field::ErrorList) {
    def.to_storage(&mut new);
    for field in ["uid", "creationTimestamp"] {
        new["metadata"][field] = old["metadata"][field].clone();
    }
    let errors = if through.is_empty() {
        def.prepare_update(&mut new, old);
        settle(table, def, &mut new);
        def.validate_update(&new, old)
    } else {
        def.prepare_subresource_update(through, &mut new, old);
        settle(table, def, &mut new);
        def.validate_subresource_update(through, &new, old)
    };
    (new, errors)
}

fn compare(expected: &[String], found: &pintle_types::field::ErrorList) -> Result<(), String> {
    let found: Vec<String> = found.iter().map(|error| error.to_string().replace('\n', "\\n")).collect();
    if found == expected {
        return Ok(());
    }
    let list = |lines: &[String]| match lines {
        [] => "    nothing wrong".to_owned(),
        _ => lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"),
    };
    Err(format!("  expected:\n{}\n  got:\n{}", list(expected), list(&found)))
}

/// Rows that name no warning don't ask for them.
fn told(expected: &[String], found: &[String]) -> Result<(), String> {
    match expected.is_empty() || expected == found {
        true => Ok(()),
        false => Err(format!("  expected warnings: {expected:#?}\n  got: {found:#?}")),
    }
}

fn expect_fields(object: &Value, row: &Row) -> Result<(), String> {
    for (path, expected) in &row.gives {
        let found = path::get(object, path)?.cloned().unwrap_or(json!(null));
        if found != *expected {
            return Err(format!("  expected: {path} = {expected}\n  got:      {path} = {found}"));
        }
    }
    Ok(())
}
