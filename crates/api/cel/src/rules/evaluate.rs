//! Evaluating rules over an object, part by part.

use super::correlation::{Correlation, old_item};
use super::{Node, Rule, Rules, text};
use crate::cost::PER_CALL_LIMIT;
use crate::{Budget, EvalError, Program, Type, Value, Variables};
use pintle_types::field::{ErrorKind, ErrorList, FieldError, Path};
use serde_json::{Map, Value as Json};

/// What all rules of one object may cost together.
const BUDGET: u64 = 10_000_000;
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What rules have found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub errors: ErrorList,
    /// Failures of what the update did not change: told to the client, but no reason to refuse.
    pub warnings: Vec<String>,
}

impl Rules {
    /// Evaluates all rules over an object. `schema` is the one that was compiled; `old` is what was stored, for
    /// updates: rules about changes are evaluated then, and what did not change is not refused.
    pub fn validate(&self, schema: &Json, object: &Json, old: Option<&Json>) -> Outcome {
        let mut run = Run { budget: Budget::new(PER_CALL_LIMIT, BUDGET), outcome: Outcome::default() };
        let current = old.map(|old| Correlation { new: object, old, schema });
        // That the budget ran out is among the errors.
        let _ = run.node(&self.root, At { path: &Path::default(), schema, new: object, old, current, parent: None });
        run.outcome
    }
}

struct Run {
    budget: Budget,
    outcome: Outcome,
}

/// Where in the object a node is evaluated.
#[derive(Clone, Copy)]
struct At<'a, 'p> {
    path: &'p Path,
    schema: &'a Json,
    new: &'a Json,
    old: Option<&'a Json>,
    current: Option<Correlation<'a>>,
    parent: Option<Correlation<'a>>,
}

impl<'a> At<'a, '_> {
    /// Whether nothing here, or around what can't be found again, was changed.
    fn is_unchanged(&self) -> bool {
        self.current.or(self.parent).is_some_and(|correlation| correlation.is_unchanged())
    }

    /// How what is in a field, or an item, relates to what was there.
    fn below(&self, part: impl FnOnce(&Correlation<'a>) -> Option<Correlation<'a>>) -> [Option<Correlation<'a>>; 2] {
        match &self.current {
            None => [None, self.parent],
            Some(current) => [part(current), Some(*current)],
        }
    }

    fn below_key(&self, name: &str) -> [Option<Correlation<'a>>; 2] {
        // The version may differ: that alone never makes a change of the object.
        if self.current.is_some() && self.parent.is_none() && matches!(name, "apiVersion" | "kind") {
            return [None, None];
        }
        self.below(|current| current.key(name))
    }
}

/// The evaluation can't go on.
struct Stop;

/// The root is called `<nil>`, as upstream has no path there.
fn shown(path: &Path) -> Path {
    if path.as_str().is_empty() { Path::new("<nil>") } else { path.clone() }
}

impl Run {
    fn node(&mut self, node: &Node, at: At<'_, '_>) -> Result<(), Stop> {
        if at.new.is_null() {
            return Ok(());
        }
        self.rules(node, at)?;
        for part in &node.all_of {
            self.node(part, At { current: None, ..at })?;
        }
        match at.new {
            Json::Array(items) => self.items(node, at, items),
            Json::Object(fields) => self.fields(node, at, fields),
            _ => Ok(()),
        }
    }

    fn items(&mut self, node: &Node, at: At<'_, '_>, items: &[Json]) -> Result<(), Stop> {
        let Some(each) = &node.items else { return Ok(()) };
        let old_items = at.old.and_then(Json::as_array);
        for (i, item) in items.iter().enumerate() {
            let [current, parent] = at.below(|current| current.index(i));
            let old = old_items.and_then(|old| old_item(at.schema, old, item));
            let schema = &at.schema["items"];
            self.node(each, At { path: &at.path.index(i), schema, new: item, old, current, parent })?;
        }
        Ok(())
    }

    fn fields(&mut self, node: &Node, at: At<'_, '_>, fields: &Map<String, Json>) -> Result<(), Stop> {
        let old_fields = at.old.and_then(Json::as_object);
        if let Some(each) = &node.additional {
            let schema = &at.schema["additionalProperties"];
            for (name, value) in fields {
                let [current, parent] = at.below_key(name);
                let old = old_fields.and_then(|old| old.get(name));
                self.node(each, At { path: &at.path.key(name), schema, new: value, old, current, parent })?;
            }
        }
        for (name, part) in &node.properties {
            let Some(value) = fields.get(&**name) else { continue };
            let [current, parent] = at.below_key(name);
            let old = old_fields.and_then(|old| old.get(&**name));
            let schema = &at.schema["properties"][&**name];
            self.node(part, At { path: &at.path.child(name), schema, new: value, old, current, parent })?;
        }
        Ok(())
    }

    fn rules(&mut self, node: &Node, at: At<'_, '_>) -> Result<(), Stop> {
        let type_name = &*node.type_name;
        if let Some(error) = node.error {
            self.invalid(at.path, type_name, &format!("rule compiler initialization error: {error}"));
            return Ok(());
        }
        let Some(declared) = &node.value else { return Ok(()) };
        let old = at.old.filter(|old| !old.is_null());
        for rule in &node.rules {
            let program = match &rule.program {
                Ok(program) => program,
                Err(error) => {
                    self.invalid(at.path, type_name, &format!("rule compile error: {error}"));
                    continue;
                }
            };
            let optional = rule.source["optionalOldSelf"] == true;
            if rule.uses_old_self && old.is_none() && !optional {
                continue;
            }
            let variables = variables(at.new, old, declared, optional);
            match program.eval(&variables, &mut self.budget) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => self.failed(rule, type_name, at, &variables)?,
                Err(error) => self.error(rule, type_name, at, &error)?,
            }
        }
        Ok(())
    }

    fn invalid(&mut self, path: &Path, value: &str, detail: &str) {
        self.outcome.errors.push(FieldError::invalid(&shown(path), value, detail));
    }

    /// A rule that could not be evaluated.
    fn error(&mut self, rule: &Rule, type_name: &str, at: At<'_, '_>, error: &EvalError) -> Result<(), Stop> {
        let called = rule.name();
        let (detail, ends) = match error {
            EvalError::OutOfBudget => (OUT_OF_BUDGET.to_owned(), true),
            EvalError::CostLimit => {
                let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                (format!("'{error}': {why}: {called}"), true)
            }
            EvalError::NoSuchOverload | EvalError::NoOverload(_) => {
                let why = "call arguments did not match a supported operator, function or macro signature for rule";
                (format!("'{error}': {why}: {called}"), false)
            }
            other => (format!("{other} evaluating rule: {called}"), false),
        };
        self.invalid(at.path, type_name, &detail);
        if ends { Err(Stop) } else { Ok(()) }
    }

    /// A rule that is not kept.
    fn failed(&mut self, rule: &Rule, type_name: &str, at: At<'_, '_>, variables: &Variables<'_>) -> Result<(), Stop> {
        let path = match &rule.field_path {
            Some(below) => at.path.child(below),
            None => shown(at.path),
        };
        let told = match &rule.message {
            Some(program) => self.message(program, rule, variables),
            None => Ok(None),
        };
        let told = match told {
            Ok(told) => told,
            Err(why) => {
                self.report(rule, at, FieldError::invalid(&path, type_name, &why));
                return Err(Stop);
            }
        };
        let detail = told.unwrap_or_else(|| rule.message_or_default());
        let shows_value = !matches!(type_name, "object" | "array");
        let invalid = || match shows_value {
            true => FieldError::invalid(&path, at.new.clone(), &detail),
            false => FieldError::new(ErrorKind::Invalid, &path, format!("Invalid value: {detail}")),
        };
        let error = match text(&rule.source, "reason") {
            "FieldValueForbidden" => FieldError::forbidden(&path, &detail),
            "FieldValueRequired" => FieldError::required(&path, &detail),
            "FieldValueDuplicate" if shows_value => FieldError::duplicate(&path, at.new.clone()),
            "FieldValueDuplicate" => FieldError::new(ErrorKind::Duplicate, &path, "Duplicate value".into()),
            _ => invalid(),
        };
        self.report(rule, at, error);
        Ok(())
    }

    fn report(&mut self, rule: &Rule, at: At<'_, '_>, error: FieldError) {
        if !rule.uses_old_self && at.is_unchanged() {
            self.outcome.warnings.push(error.to_string());
        } else {
            self.outcome.errors.push(error);
        }
    }

    /// What the rule's own expression says; nothing when that is no message.
    fn message(&mut self, program: &Program, rule: &Rule, variables: &Variables<'_>) -> Result<Option<String>, String> {
        let source = text(&rule.source, "messageExpression");
        match program.eval(variables, &mut self.budget) {
            Err(EvalError::OutOfBudget) => {
                Err("messageExpression evaluation failed due to running out of cost budget, \
                                                no further validation rules will be run"
                    .into())
            }
            Err(EvalError::CostLimit) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {source:?}"
            )),
            Err(_) => Ok(None),
            Ok(value) => {
                let message = value.as_str().unwrap_or("").trim();
                let fine = !message.is_empty() && message.len() <= MAX_MESSAGE_BYTES && !message.contains('\n');
                Ok(fine.then(|| message.to_owned()))
            }
        }
    }
}

impl Rule {
    /// What errors call the rule.
    fn name(&self) -> &str {
        match text(&self.source, "message") {
            "" => text(&self.source, "rule").trim(),
            message => message.trim(),
        }
    }

    fn message_or_default(&self) -> String {
        match text(&self.source, "message") {
            "" => format!("failed rule: {}", self.name()),
            message => message.trim().to_owned(),
        }
    }
}

fn variables<'a>(new: &'a Json, old: Option<&'a Json>, declared: &Type, optional: bool) -> Variables<'a> {
    let mut variables = Variables::new().with("self", Value::of_json(new, declared));
    let old = old.map(|old| Value::of_json(old, declared));
    match (optional, old) {
        (true, old) => variables.set("oldSelf", old.map_or(Value::Optional(None), Value::some)),
        (false, Some(old)) => variables.set("oldSelf", old),
        (false, None) => {}
    }
    variables
}
