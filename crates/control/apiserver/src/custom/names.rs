//! Which of the names that a definition asks for it gets: those that no other definition of its group has.
//!
//! Source: apiextensions-apiserver's `naming_controller.go`.

use super::condition;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The names that others of the group have.
#[derive(Debug, Default)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

impl Taken {
    /// Adds the accepted names of another definition.
    pub fn add(&mut self, names: &Value) {
        let one = |field: &str| names[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.resources.extend(["plural", "singular"].into_iter().filter_map(one));
        self.resources.extend(texts(&names["shortNames"]).map(str::to_owned));
        self.kinds.extend(["kind", "listKind"].into_iter().filter_map(one));
    }
}

/// The names that are accepted, and the condition that says so. A name that is taken stays as it was `before`.
pub(super) fn accept(wanted: &Value, before: &Value, taken: &Taken) -> (Value, Value) {
    let mut accepted = Map::new();
    let mut trouble: Option<(&str, String)> = None;
    let fields = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, taken) in fields {
        let asked: Vec<&str> = match &wanted[field] {
            Value::String(text) => vec![text],
            list => texts(list).collect(),
        };
        let busy: Vec<String> = asked
            .iter()
            .filter(|name| taken.contains(**name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        let source = if busy.is_empty() { wanted } else { before };
        if !source[field].is_null() {
            accepted.insert(field.to_owned(), source[field].clone());
        }
        if !busy.is_empty() {
            let message = if busy.len() == 1 { busy.concat() } else { format!("[{}]", busy.join(", ")) };
            trouble = Some((reason, message));
        }
    }
    if !wanted["categories"].is_null() {
        accepted.insert("categories".into(), wanted["categories"].clone());
    }
    for field in ["plural", "kind"] {
        accepted.entry(field).or_insert_with(|| json!(""));
    }
    let said = match trouble {
        None => condition("NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, message)) => condition("NamesAccepted", false, reason, &message),
    };
    (Value::Object(accepted), said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_taken_are_not_accepted() {
        let wanted = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList",
                            "shortNames": ["th", "t"]});
        let mut taken = Taken::default();
        let (accepted, said) = accept(&wanted, &json!({}), &taken);
        assert_eq!((accepted, &said["status"]), (wanted.clone(), &json!("True")));
        taken.add(&json!({"plural": "others", "singular": "other", "kind": "Other", "shortNames": ["t"]}));
        let (accepted, said) = accept(&wanted, &json!({}), &taken);
        assert!(accepted["shortNames"].is_null());
        assert_eq!(
            (&said["reason"], &said["message"]),
            (&json!("ShortNamesConflict"), &json!("\"t\" is already in use"))
        );
        taken.add(&json!({"kind": "ThingList"}));
        let (_, said) = accept(&wanted, &json!({}), &taken);
        assert_eq!(said["reason"], "ListKindConflict");
    }
}
