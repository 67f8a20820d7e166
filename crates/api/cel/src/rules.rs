//! Rules of custom resources (`x-kubernetes-validations`): compiled from a schema, estimated, evaluated over objects.
//!
//! When a definition is written: [`check_definition`] tells what is wrong with its rules. Call it with each version's
//! `openAPIV3Schema` once nothing else is wrong with that schema.
//!
//! When objects are written: [`Rules::compile`] the schema when the first object comes (it takes some microseconds per
//! rule; keep the result with the version's schema), then [`Rules::validate`] for every object that is created, with no
//! old one, and updated, with the old one. Upstream evaluates rules only where [`crate::rules`]' callers found nothing
//! that blocks them (wrong types, missing fields, too many elements).
//!
//! Source: apiextensions-apiserver's `pkg/apiserver/schema/cel`.

mod correlation;
mod definition;
mod evaluate;
mod field_path;

pub use definition::{CheckOptions, check_definition};
pub use evaluate::Outcome;

use crate::schema::Decl;
use crate::{Checked, Env, Issues, Program, Type};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

const VALIDATIONS: &str = "x-kubernetes-validations";

/// The compiled rules of a schema.
pub struct Rules {
    root: Node,
}

/// The rules of a part of a schema and of what is below it. Parts without rules are not there.
#[derive(Default)]
struct Node {
    rules: Vec<Rule>,
    /// The schema's type, which errors of evaluation show as the value.
    type_name: Box<str>,
    value: Option<Type>,
    /// Why no rule here can be evaluated.
    error: Option<&'static str>,
    all_of: Vec<Node>,
    properties: BTreeMap<Box<str>, Node>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
}

/// One rule. What it says comes from the schema, as it is.
struct Rule {
    source: Json,
    program: Result<Program, String>,
    message: Option<Program>,
    uses_old_self: bool,
    /// The path below the node that a failure is reported for.
    field_path: Option<String>,
}

/// An environment with all libraries of Kubernetes and no variables. Built at the first call.
pub fn kubernetes_env() -> &'static Env {
    static ENV: LazyLock<Env> = LazyLock::new(|| {
        crate::library::kubernetes().iter().fold(Env::builder(), |env, library| env.library(library)).build()
    });
    &ENV
}

/// The environment of a rule: `self` and `oldSelf`, which may be optional.
fn env_of(value: &Type, optional_old_self: bool) -> Env {
    let old = if optional_old_self { Type::optional(value.clone()) } else { value.clone() };
    kubernetes_env().extend().variable("self", value.clone()).variable("oldSelf", old).build()
}

fn rules_of(schema: &Json) -> &[Json] {
    schema[VALIDATIONS].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(rule: &'v Json, field: &str) -> &'v str {
    rule[field].as_str().unwrap_or("")
}

/// Whether there are rules anywhere in a schema.
pub fn has_rules(schema: &Json) -> bool {
    let properties = schema["properties"].as_object();
    let below = |part: &Json| part.is_object() && has_rules(part);
    !rules_of(schema).is_empty()
        || below(&schema["items"])
        || below(&schema["additionalProperties"])
        || properties.is_some_and(|properties| properties.values().any(has_rules))
        || schema["allOf"].as_array().is_some_and(|parts| parts.iter().any(has_rules))
}

impl Rules {
    /// Compiles the rules of an `openAPIV3Schema`; nothing when it has none. A rule that does not compile (it was
    /// stored by another version) fails every object that it applies to.
    pub fn compile(schema: &Json) -> Option<Rules> {
        if !has_rules(schema) {
            return None;
        }
        let decl = Decl::of_schema(schema, true, "selfType");
        node(schema, schema, decl.as_ref()).map(|root| Rules { root })
    }
}

/// The rules that `rules` states of values of the shape of `shape`, which is the same schema but in an `allOf`.
fn node(rules: &Json, shape: &Json, decl: Option<&Arc<Decl>>) -> Option<Node> {
    let mut made = Node { type_name: text(shape, "type").into(), ..Node::default() };
    match (decl, rules_of(rules)) {
        (_, []) => {}
        (None, _) => made.error = Some("failed to convert to declType for CEL validation rules"),
        (Some(decl), own) => {
            made.rules = own.iter().map(|rule| compile_rule(rule, shape, &decl.value)).collect();
            made.value = Some(decl.value.clone());
        }
    }
    let element = decl.and_then(|decl| decl.element());
    if rules["items"].is_object() && shape["items"].is_object() {
        made.items = node(&rules["items"], &shape["items"], element).map(Box::new);
    }
    if rules["additionalProperties"].is_object() && shape["additionalProperties"].is_object() {
        let part = node(&rules["additionalProperties"], &shape["additionalProperties"], element);
        made.additional = part.map(Box::new);
    }
    for (name, property) in rules["properties"].as_object().into_iter().flatten() {
        let Some(property_shape) = shape["properties"].get(name) else { continue };
        // What has no type for expressions has no rules either.
        let known = decl.and_then(|decl| decl.property(name)).cloned().or_else(|| {
            let hidden = !crate::names::can_escape(name);
            let resource = property_shape["x-kubernetes-embedded-resource"] == true;
            hidden.then(|| Decl::of_schema(property_shape, resource, "selfType")).flatten()
        });
        if let Some(part) = known.and_then(|known| node(property, property_shape, Some(&known))) {
            made.properties.insert(name.as_str().into(), part);
        }
    }
    for part in rules["allOf"].as_array().into_iter().flatten() {
        made.all_of.extend(node(part, shape, decl));
    }
    let empty = made.rules.is_empty()
        && made.error.is_none()
        && made.items.is_none()
        && made.additional.is_none()
        && made.properties.is_empty()
        && made.all_of.is_empty();
    (!empty).then_some(made)
}

/// Why a rule or a message is not one, in the words that definitions are refused with.
fn checked(env: &Env, source: &str, result: &Type, wrong_type: &str, kind: &str) -> Result<Checked, String> {
    let checked = env.check(source).map_err(|issues: Issues| format!("{kind}compilation failed: {issues}"))?;
    if checked.output_type() != result {
        return Err(wrong_type.to_owned());
    }
    Ok(checked)
}

fn check_rule(env: &Env, source: &str) -> Result<Checked, String> {
    checked(env, source, &Type::Bool, "cel expression must evaluate to a bool", "")
}

fn check_message(env: &Env, source: &str) -> Result<Checked, String> {
    checked(env, source, &Type::String, "messageExpression must evaluate to a string", "messageExpression ")
}

fn reads_old_self(checked: &Checked) -> bool {
    checked.paths().iter().any(|path| path.first().is_some_and(|variable| &**variable == "oldSelf"))
}

fn compile_rule(rule: &Json, shape: &Json, value: &Type) -> Rule {
    let env = env_of(value, rule["optionalOldSelf"] == true);
    let (source, message) = (text(rule, "rule"), text(rule, "messageExpression"));
    let checked = check_rule(&env, source);
    let uses_old_self = checked.as_ref().is_ok_and(reads_old_self);
    let instantiate = |issues: Issues| format!("program instantiation failed: {issues}");
    let program = checked.and_then(|checked| checked.into_program(source).map_err(instantiate));
    let message = match message {
        "" => None,
        source => check_message(&env, source).ok().and_then(|checked| checked.into_program(source).ok()),
    };
    let path = text(rule, "fieldPath");
    let field_path = if path.is_empty() { None } else { field_path::resolve(path, shape).ok() };
    Rule { source: rule.clone(), program, message, uses_old_self, field_path }
}

#[cfg(test)]
mod tests;
