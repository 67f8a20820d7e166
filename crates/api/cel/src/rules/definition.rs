//! What is wrong with the rules of a definition: texts, types, and what they may cost.

use super::{check_message, check_rule, env_of, field_path, has_rules, reads_old_self, rules_of, text};
use crate::schema::Decl;
use pintle_types::field::{ErrorKind, ErrorList, FieldError, Path};
use serde_json::Value as Json;
use std::sync::Arc;

/// What one rule may cost.
const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a version may cost.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// How many of the most expensive rules are named.
const NAMED: usize = 4;

/// What is not asked of definitions that were stored already.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// The schema did not change: what its rules cost was accepted before.
    pub ignore_cost: bool,
}

/// All that is wrong with the rules of an `openAPIV3Schema`, which is at `path`.
///
/// Upstream tells this only when nothing else is wrong with the schema.
pub fn check_definition(schema: &Json, path: &Path, options: CheckOptions) -> ErrorList {
    if !has_rules(schema) {
        return ErrorList::new();
    }
    let mut texts = ErrorList::new();
    check_texts(schema, path, &mut texts);
    if !texts.is_empty() {
        return texts;
    }
    let mut check = Check { options, errors: ErrorList::new(), total: 0, expensive: Vec::new() };
    let root =
        Place { schema, decl: Decl::of_schema(schema, true, "selfType"), cardinality: Some(1), uncorrelated: None };
    check.part(&root, path);
    check.sum(path);
    check.errors
}

fn at(path: &Path, i: usize) -> Path {
    path.child("x-kubernetes-validations").index(i)
}

fn has_newline(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// The parts of a schema with their paths.
fn parts<'s>(schema: &'s Json, path: &Path) -> Vec<(&'s Json, Path, Option<&'s str>)> {
    let mut parts = Vec::new();
    if schema["additionalProperties"].is_object() {
        parts.push((&schema["additionalProperties"], path.child("additionalProperties"), None));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        parts.push((property, path.child("properties").key(name), Some(name.as_str())));
    }
    if schema["items"].is_object() {
        parts.push((&schema["items"], path.child("items"), None));
    }
    parts
}

fn check_texts(schema: &Json, path: &Path, errors: &mut ErrorList) {
    for (part, path, _) in parts(schema, path) {
        check_texts(part, &path, errors);
    }
    for (i, rule) in rules_of(schema).iter().enumerate() {
        check_text(rule, schema, &at(path, i), errors);
    }
}

fn check_text(rule: &Json, schema: &Json, path: &Path, errors: &mut ErrorList) {
    let (source, message) = (text(rule, "rule").trim(), text(rule, "message"));
    let trimmed = message.trim();
    let mut invalid = |field: &str, value: &str, detail: &str| {
        errors.push(FieldError::invalid(&path.child(field), value, detail));
    };
    if source.is_empty() {
        errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && trimmed.is_empty() {
        invalid("message", message, "must be non-empty if specified");
    } else if has_newline(trimmed) {
        invalid("message", message, "must not contain line breaks");
    } else if has_newline(source) && trimmed.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(&path.child("message"), detail));
    }
    let expression = text(rule, "messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path.child("messageExpression"), detail));
    }
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
        errors.push(FieldError::not_supported(&path.child("reason"), reason, &REASONS));
    }
    check_field_path(text(rule, "fieldPath"), schema, &path.child("fieldPath"), errors);
}

fn check_field_path(given: &str, schema: &Json, path: &Path, errors: &mut ErrorList) {
    if given.is_empty() {
        return;
    }
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(path, given, detail));
    if given.trim().is_empty() {
        invalid("must be non-empty if specified");
    }
    if has_newline(given) {
        invalid("must not contain line breaks");
    }
    if field_path::resolve(given, schema).is_err() {
        invalid("must be a valid path");
    }
}

/// A part of the schema, and how many values it can have.
struct Place<'s> {
    schema: &'s Json,
    decl: Option<Arc<Decl>>,
    /// Nothing when no limit is known.
    cardinality: Option<u64>,
    /// The path of a list around it in which old items can't be found again.
    uncorrelated: Option<Path>,
}

impl<'s> Place<'s> {
    fn part(&self, schema: &'s Json, name: Option<&str>, path: &Path) -> Self {
        let resource = schema["x-kubernetes-embedded-resource"] == true;
        let known = match name {
            Some(name) => self.decl.as_ref().and_then(|decl| decl.property(name)),
            None => self.decl.as_ref().and_then(|decl| decl.element()),
        };
        let decl = known.cloned().or_else(|| Decl::of_schema(schema, resource, "selfType"));
        let most = match self.schema["type"].as_str() {
            Some("object") if self.schema["additionalProperties"].is_object() => limit(self.schema, "maxProperties"),
            Some("array") => limit(self.schema, "maxItems"),
            _ => Some(1),
        };
        let cardinality = self.cardinality.zip(most).map(|(outer, most)| outer.saturating_mul(most));
        let loses_items = self.schema["type"] == "array" && self.schema["x-kubernetes-list-type"] != "map";
        let own = loses_items.then(|| path.clone());
        Self { schema, decl, cardinality, uncorrelated: self.uncorrelated.clone().or(own) }
    }
}

fn limit(schema: &Json, field: &str) -> Option<u64> {
    schema[field].as_i64().map(|limit| limit.max(0).unsigned_abs())
}

struct Check {
    options: CheckOptions,
    errors: ErrorList,
    total: u64,
    expensive: Vec<(u64, Path)>,
}

impl Check {
    fn part(&mut self, place: &Place<'_>, path: &Path) {
        for (part, part_path, name) in parts(place.schema, path) {
            self.part(&place.part(part, name, path), &part_path);
        }
        for (i, rule) in rules_of(place.schema).iter().enumerate() {
            match &place.decl {
                Some(decl) => self.rule(rule, decl, place, &at(path, i)),
                None => {
                    let why = "internal error: failed to construct type information for x-kubernetes-validations rules: \
                               unable to convert structural schema to CEL declarations";
                    self.errors.push(FieldError::internal(&path.child("x-kubernetes-validations"), why));
                    return;
                }
            }
        }
    }

    fn rule(&mut self, rule: &Json, decl: &Arc<Decl>, place: &Place<'_>, path: &Path) {
        let optional = rule.get("optionalOldSelf").filter(|given| !given.is_null());
        let env = env_of(&decl.value, optional == Some(&Json::Bool(true)));
        let checked = match check_rule(&env, text(rule, "rule")) {
            Ok(checked) => checked,
            Err(why) => {
                self.errors.push(invalid_rule(&path.child("rule"), rule, &why));
                if let Some(optional) = optional {
                    self.unused_old_self(path, optional);
                }
                return;
            }
        };
        let cardinality = place.cardinality.unwrap_or_else(|| decl.max_cardinality());
        let cost = checked.estimate_cost(&**decl).max.saturating_mul(cardinality);
        self.observe("estimated rule cost", cost, path.child("rule"));
        self.message(rule, decl, &env, path);
        match (reads_old_self(&checked), &place.uncorrelated, optional) {
            (true, Some(list), _) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                self.errors.push(FieldError::invalid(&path.child("rule"), text(rule, "rule"), &why));
            }
            (false, _, Some(optional)) => self.unused_old_self(path, optional),
            _ => {}
        }
    }

    fn unused_old_self(&mut self, path: &Path, optional: &Json) {
        let why = "may not be set if oldSelf is not used in rule";
        self.errors.push(FieldError::invalid(&path.child("optionalOldSelf"), optional.clone(), why));
    }

    fn message(&mut self, rule: &Json, decl: &Arc<Decl>, env: &crate::Env, path: &Path) {
        let source = text(rule, "messageExpression");
        if source.is_empty() {
            return;
        }
        let path = path.child("messageExpression");
        match check_message(env, source) {
            Ok(checked) => {
                self.observe("estimated messageExpression cost", checked.estimate_cost(&**decl).max, path);
            }
            Err(why) => self.errors.push(invalid_rule(&path, rule, &why)),
        }
    }

    fn observe(&mut self, name: &str, cost: u64, path: Path) {
        if !self.options.ignore_cost && cost > RULE_LIMIT {
            self.errors.push(FieldError::forbidden(&path, &too_expensive(name, cost, RULE_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        // Less than a hundredth of the limit is not worth naming.
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((cost, path));
            self.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            self.expensive.truncate(NAMED);
        }
    }

    fn sum(&mut self, path: &Path) {
        if self.total <= SCHEMA_LIMIT {
            return;
        }
        for (_, path) in &self.expensive {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            self.errors.push(FieldError::forbidden(path, why));
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        self.errors.push(FieldError::forbidden(path, &too_expensive(name, self.total, SCHEMA_LIMIT)));
    }
}

fn too_expensive(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule that is wrong; upstream shows all of it, in its own form.
fn invalid_rule(path: &Path, rule: &Json, why: &str) -> FieldError {
    let shown_text = |field: &str| go_json(&Json::from(text(rule, field)));
    let shown = format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        shown_text("rule"),
        shown_text("message"),
        shown_text("messageExpression"),
        go_json(&rule["reason"]),
        shown_text("fieldPath"),
        go_json(&rule["optionalOldSelf"]),
    );
    FieldError::new(ErrorKind::Invalid, path, format!("Invalid value: {shown}: {why}"))
}

/// JSON as Go writes it: safe within HTML.
fn go_json(value: &Json) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
