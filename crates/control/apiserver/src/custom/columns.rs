//! Printer columns of custom resources: simple JSON paths into the object.

use jiff::Timestamp;
use pintle_kinds::Column;
use pintle_kinds::column::{self, NAME};
use serde_json::Value;

/// The columns of a version, with the paths that their cells come from; the name's has none.
pub(super) struct Columns {
    pub shown: Vec<Column>,
    paths: Vec<Vec<Step>>,
}

/// One step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    /// `[*]`
    All,
}

/// Reads `additionalPrinterColumns`; a version without any shows the age.
pub(super) fn read(version: &Value) -> Columns {
    let mut columns = Columns { shown: vec![NAME], paths: Vec::new() };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for given in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
        let path = text(&given["jsonPath"]);
        let description = match text(&given["description"]) {
            none if none.is_empty() => format!("Custom resource definition column (in JSONPath format): {path}"),
            some => some,
        };
        columns.shown.push(Column {
            name: text(&given["name"]).into(),
            column_type: text(&given["type"]).into(),
            format: text(&given["format"]).into(),
            description: description.into(),
            priority: given["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or_default(),
        });
        columns.paths.push(steps(&path));
    }
    if columns.paths.is_empty() {
        columns.shown.push(column::AGE);
        columns.shown[1].column_type = "date".into();
        columns.paths.push(steps(".metadata.creationTimestamp"));
    }
    columns
}

impl Columns {
    /// The cells of an object; what is not there is null.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].clone();
        let rest = self.paths.iter().zip(&self.shown[1..]).map(|(path, column)| {
            let found = follow(object, path);
            cell(&found, &column.column_type, now)
        });
        std::iter::once(name).chain(rest).collect()
    }
}

fn cell(found: &[&Value], kind: &str, now: Timestamp) -> Value {
    match (found, kind) {
        ([] | [Value::Null], _) => Value::Null,
        ([value], "date") => column::since(value, now).into(),
        ([value], "integer" | "number" | "boolean") => (*value).clone(),
        ([Value::String(text)], _) => text.as_str().into(),
        (many, _) => {
            let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            many.iter().map(|v| shown(v)).collect::<Vec<_>>().join(" ").into()
        }
    }
}

/// Reads a path such as `.spec.items[*].name` or `.metadata.labels['a\.b']`. What it does not know matches nothing.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim().trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (inside, after) = inner.split_once(']').unwrap_or((inner, ""));
            steps.push(match inside {
                "*" => Step::All,
                quoted if quoted.starts_with(['\'', '"']) => {
                    Step::Field(quoted.trim_matches(['\'', '"']).replace("\\.", "."))
                }
                number => number.parse().map_or_else(|_| Step::Field(number.to_owned()), Step::Index),
            });
            rest = after;
        } else {
            let tail = rest.trim_start_matches('.');
            let end = field_end(tail);
            if end > 0 {
                steps.push(Step::Field(tail[..end].replace("\\.", ".")));
            }
            rest = if end == 0 && tail.len() == rest.len() { "" } else { &tail[end..] };
        }
    }
    steps
}

/// Where a field's name ends: at a bracket or at a dot that is not escaped.
fn field_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if !escaped && matches!(c, '.' | '[') {
            return at;
        }
        escaped = c == '\\';
    }
    text.len()
}

fn follow<'a>(object: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps {
        found = found
            .into_iter()
            .flat_map(|value| match step {
                Step::Field(name) => value.get(name).into_iter().collect::<Vec<_>>(),
                Step::Index(index) => value.get(index).into_iter().collect(),
                Step::All => match value {
                    Value::Array(items) => items.iter().collect(),
                    Value::Object(fields) => fields.values().collect(),
                    _ => Vec::new(),
                },
            })
            .collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_fields_items_and_quoted_keys() {
        let object =
            json!({"metadata": {"name": "x", "labels": {"a.b/c": "l"}}, "spec": {"items": [{"n": 1}, {"n": 2}]}});
        let check = |path: &str, expected: Value| {
            let found = follow(&object, &steps(path)).into_iter().cloned().collect::<Vec<_>>();
            assert_eq!(Value::from(found), expected, "{path}");
        };
        check(".spec.items[1].n", json!([2]));
        check(".spec.items[*].n", json!([1, 2]));
        check(r".metadata.labels['a\.b/c']", json!(["l"]));
        check(r".metadata.labels.a\.b/c", json!(["l"]));
        check(".spec.none", json!([]));
    }

    #[test]
    fn cells_follow_the_columns() {
        let version =
            json!({"additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]});
        let columns = read(&version);
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            columns.cells(&json!({"metadata": {"name": "x"}, "spec": {"size": 3}}), now),
            [json!("x"), json!(3)]
        );
        assert_eq!(columns.cells(&json!({"metadata": {"name": "x"}}), now), [json!("x"), Value::Null]);
        assert_eq!(read(&json!({})).shown.len(), 2);
    }
}
