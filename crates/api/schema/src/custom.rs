//! Custom resources: defaults and validation by their `openAPIV3Schema`.
//!
//! Rules in CEL (`x-kubernetes-validations`) are evaluated elsewhere: this crate knows no expressions.

use pintle_types::field::{ErrorKind, ErrorList, FieldError, Path};
use serde_json::{Map, Value};

mod bounds;
mod embedded;
mod formats;
mod lists;
mod patterns;

pub use patterns::{Patterns, problem as pattern_problem};

/// Sets the defaults of what is missing, and drops the nulls that are not allowed and have none.
pub fn set_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let null_is_fine = property["nullable"] == true;
                if map.get(name).is_some_and(|value| value.is_null() && !null_is_fine) {
                    map.remove(name);
                }
                match (map.get_mut(name), property.get("default")) {
                    (Some(value), _) => set_defaults(property, value),
                    (None, Some(default)) => {
                        let mut value = default.clone();
                        set_defaults(property, &mut value);
                        map.insert(name.clone(), value);
                    }
                    (None, None) => {}
                }
            }
            let declared = schema["properties"].as_object();
            let inner = &schema["additionalProperties"];
            if inner.is_object() {
                let free =
                    map.iter_mut().filter(|(name, _)| declared.is_none_or(|declared| !declared.contains_key(*name)));
                free.for_each(|(_, value)| set_defaults(inner, value));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| set_defaults(&schema["items"], item)),
        _ => {}
    }
}

/// A schema with what is needed to check objects by it.
#[derive(Clone, Copy)]
pub struct Validator<'a> {
    schema: &'a Value,
    patterns: &'a Patterns,
}

impl<'a> Validator<'a> {
    pub fn new(schema: &'a Value, patterns: &'a Patterns) -> Self {
        Self { schema, patterns }
    }

    /// All that is wrong with an object, in upstream's words. `apiVersion`, `kind` and `metadata` are not looked at.
    ///
    /// What did not change since `old` is not complained of (ratcheting, KEP-4008).
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let mut errors = ErrorList::new();
        let walk = Walk { patterns: self.patterns };
        let schema = self.schema;
        for (name, value) in object.as_object().into_iter().flatten() {
            let property = &schema["properties"][name];
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") && property.is_object() {
                walk.any(property, value, old.and_then(|o| o.get(name)), &Path::new(name), &mut errors);
            }
        }
        let root = Path::default();
        required(schema, object.as_object(), &root, &mut errors);
        walk.combinations(schema, object, &root, &mut errors);
        lists::check(schema, object, old, &mut errors);
        embedded::check(schema, object, old, &mut errors);
        errors
    }
}

/// What to add when errors keep rules from being evaluated; nothing when there are no rules or no such errors.
pub fn unchecked_rules(schema: &Value, errors: &ErrorList) -> Option<FieldError> {
    if !errors.iter().any(blocks_rules) || !has_rules(schema) {
        return None;
    }
    let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                  errors to complete validation";
    Some(FieldError::invalid(&Path::new("<nil>"), Value::Null, detail))
}

/// Whether a schema has rules in CEL anywhere.
pub fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let own =
                map.get("x-kubernetes-validations").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
            own || map.iter().any(|(key, value)| !matches!(key.as_str(), "default" | "enum") && has_rules(value))
        }
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

/// Errors after which upstream does not evaluate rules.
fn blocks_rules(error: &FieldError) -> bool {
    use ErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

/// What stays the same on the way through a schema.
#[derive(Clone, Copy)]
struct Walk<'a> {
    patterns: &'a Patterns,
}

impl Walk<'_> {
    fn any(&self, schema: &Value, value: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
        if old == Some(value) {
            return;
        }
        let found = errors.len();
        check_type(schema, value, path, errors);
        if errors.len() > found || (value.is_null() && schema["nullable"] == true) {
            return;
        }
        check_enum(schema, value, path, errors);
        bounds::check(schema, value, path, errors);
        if let Value::String(text) = value {
            self.patterns.check(schema, text, path, errors);
            formats::check(schema, text, path, errors);
        }
        match value {
            Value::Object(map) => self.object(schema, map, old, path, errors),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let before = lists::same_item(schema, item, old);
                    self.any(&schema["items"], item, before, &path.index(index), errors);
                }
            }
            _ => {}
        }
        self.combinations(schema, value, path, errors);
    }

    fn object(
        &self,
        schema: &Value,
        map: &Map<String, Value>,
        old: Option<&Value>,
        path: &Path,
        errors: &mut ErrorList,
    ) {
        let declared = schema["properties"].as_object();
        let additional = &schema["additionalProperties"];
        for (name, value) in map {
            let inner = declared.and_then(|declared| declared.get(name));
            let inner = inner.or_else(|| additional.is_object().then_some(additional));
            if let Some(inner) = inner {
                self.any(inner, value, old.and_then(|o| o.get(name)), &path.child(name), errors);
            }
        }
        required(schema, Some(map), path, errors);
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn combinations(&self, schema: &Value, value: &Value, path: &Path, errors: &mut ErrorList) {
        let fits = |schema: &Value| {
            let mut errors = ErrorList::new();
            self.any(schema, value, None, path, &mut errors);
            errors.is_empty()
        };
        combinations(schema, path, errors, &fits);
    }
}

fn required(schema: &Value, map: Option<&Map<String, Value>>, path: &Path, errors: &mut ErrorList) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if map.is_none_or(|map| !map.contains_key(name)) {
            errors.push(FieldError::required(&path.child(name), ""));
        }
    }
}

/// The type of a value in the words of JSON schema.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_type(schema: &Value, value: &Value, path: &Path, errors: &mut ErrorList) {
    let found = type_name(value);
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let wanted = match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => "integer,string",
        Some(wanted) => wanted,
        None => return,
    };
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let fits = match wanted {
        "integer,string" => matches!(found, "integer" | "string"),
        "integer" => found == "integer" || (found == "number" && whole),
        "number" => matches!(found, "integer" | "number"),
        wanted => wanted == found,
    };
    if !fits {
        let detail = format!("{path} in body must be of type {wanted}: {found:?}", path = path.as_str());
        errors.push(FieldError::type_invalid(path, found, &detail));
    }
}

fn check_enum(schema: &Value, value: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(allowed) = schema["enum"].as_array() else { return };
    if !allowed.contains(value) {
        let names: Vec<String> =
            allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, value.clone(), &names));
    }
}

fn combinations(schema: &Value, path: &Path, errors: &mut ErrorList, fits: &dyn Fn(&Value) -> bool) {
    let counted = |name: &str| {
        let schemas = schema[name].as_array().filter(|schemas| !schemas.is_empty());
        schemas.map(|schemas| (schemas.len(), schemas.iter().filter(|schema| fits(schema)).count()))
    };
    let shown = path.as_str();
    let mut wrong = |detail: String| errors.push(FieldError::invalid(path, "", &detail));
    if counted("anyOf").is_some_and(|(_, fitting)| fitting == 0) {
        wrong(format!("{shown:?} must validate at least one schema (anyOf)"));
    }
    match counted("oneOf") {
        None | Some((_, 1)) => {}
        Some((_, 0)) => wrong(format!("{shown:?} must validate one and only one schema (oneOf). Found none valid")),
        Some((_, fitting)) => {
            let found = format!("Found {fitting} valid alternatives");
            wrong(format!("{shown:?} must validate one and only one schema (oneOf). {found}"));
        }
    }
    if counted("allOf").is_some_and(|(all, fitting)| fitting < all) {
        wrong(format!("{shown:?} must validate all the schemas (allOf)"));
    }
    if schema["not"].is_object() && fits(&schema["not"]) {
        wrong(format!("{shown:?} must not validate the schema (not)"));
    }
}

#[cfg(test)]
mod tests;
