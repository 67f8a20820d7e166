//! Rules over small schemas and objects.

use super::*;
use pintle_types::field::Path;
use serde_json::json;

/// A schema with one rule at `spec`.
fn schema(spec: Json) -> Json {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn ruled(rule: Json) -> Json {
    schema(json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "color": {"type": "string", "maxLength": 10},
            "tags": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 10}},
        },
        "x-kubernetes-validations": [rule],
    }))
}

fn texts(errors: &[pintle_types::field::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(rule: Json, new: Json, old: Option<Json>, wanted: &[&str]) {
    let schema = ruled(rule);
    assert_eq!(texts(&check_definition(&schema, &Path::new("s"), CheckOptions::default())), Vec::<String>::new());
    let rules = Rules::compile(&schema).unwrap();
    let (new, old) = (json!({"spec": new}), old.map(|old| json!({"spec": old})));
    assert_eq!(texts(&rules.validate(&schema, &new, old.as_ref()).errors), wanted);
}

#[test]
fn rules_are_evaluated() {
    let big = json!({"rule": "self.size <= 9 || self.color == 'red'", "message": "big ones are red"});
    check(big.clone(), json!({"size": 3, "color": "blue"}), None, &[]);
    check(big, json!({"size": 30, "color": "blue"}), None, &["spec: Invalid value: big ones are red"]);
    let plain = json!({"rule": "self.size > 1"});
    check(plain, json!({"size": 1}), None, &["spec: Invalid value: failed rule: self.size > 1"]);
    let forbidden = json!({"rule": "self.size > 1", "reason": "FieldValueForbidden", "fieldPath": ".size",
        "messageExpression": "'at least ' + (self.size < 2 ? '2' : '3')"});
    check(forbidden, json!({"size": 1}), None, &["spec.size: Forbidden: at least 2"]);
    let missing = json!({"rule": "self.color != 'x'"});
    check(
        missing,
        json!({"size": 1}),
        None,
        &["spec: Invalid value: \"object\": no such key: color evaluating rule: self.color != 'x'"],
    );
}

#[test]
fn formats_and_nulls_are_seen_as_upstream_sees_them() {
    let schema = schema(json!({
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "span": {"type": "string", "format": "duration"},
            "note": {"type": "string", "nullable": true, "maxLength": 5},
            "port": {"x-kubernetes-int-or-string": true},
            "x-y": {"type": "integer"},
        },
        "x-kubernetes-validations": [
            {"rule": "!has(self.day) || self.day < timestamp('2030-01-01T00:00:00Z')", "message": "too late"},
            {"rule": "!has(self.span) || self.span < duration('1h')", "message": "too long"},
            {"rule": "!has(self.note)", "message": "a note"},
            {"rule": "!has(self.port) || type(self.port) == string || self.port > 1024", "message": "low port"},
            {"rule": "!has(self.x__dash__y) || self.x__dash__y == 1", "message": "not one"},
        ],
    }));
    let rules = Rules::compile(&schema).unwrap();
    for (spec, wrong) in [
        (json!({"day": "2031-01-01"}), Some("too late")),
        (json!({"day": "2029-12-31", "span": "59m", "note": null, "port": "http", "x-y": 1}), None),
        (json!({"span": "61m"}), Some("too long")),
        (json!({"note": "n"}), Some("a note")),
        (json!({"port": 80}), Some("low port")),
        (json!({"x-y": 2}), Some("not one")),
    ] {
        let found = texts(&rules.validate(&schema, &json!({"spec": spec}), None).errors);
        let wanted: Vec<String> = wrong.iter().map(|why| format!("spec: Invalid value: {why}")).collect();
        assert_eq!(found, wanted, "{spec}");
    }
}

#[test]
fn rules_about_changes_see_what_was() {
    let fixed = json!({"rule": "self.color == oldSelf.color", "message": "color is fixed"});
    check(fixed.clone(), json!({"color": "a"}), None, &[]);
    check(fixed.clone(), json!({"color": "b"}), Some(json!({"color": "a"})), &["spec: Invalid value: color is fixed"]);
    check(fixed, json!({"color": "a"}), Some(json!({"color": "a"})), &[]);
    let optional =
        json!({"rule": "oldSelf.hasValue() || self.size == 1", "optionalOldSelf": true, "message": "starts with 1"});
    check(optional.clone(), json!({"size": 2}), None, &["spec: Invalid value: starts with 1"]);
    check(optional, json!({"size": 2}), Some(json!({"size": 1})), &[]);
}

#[test]
fn what_did_not_change_is_only_warned_of() {
    let schema = ruled(json!({"rule": "self.size > 1", "message": "too small"}));
    let rules = Rules::compile(&schema).unwrap();
    let (old, new) = (json!({"spec": {"size": 1}, "x": 1}), json!({"spec": {"size": 1}, "x": 2}));
    let outcome = rules.validate(&schema, &new, Some(&old));
    assert_eq!(outcome.warnings, ["spec: Invalid value: too small"]);
    assert!(outcome.errors.is_empty());
}

#[test]
fn definitions_with_wrong_rules_are_refused() {
    let refused = |rule: Json| texts(&check_definition(&ruled(rule), &Path::new("s"), CheckOptions::default()));
    let at = "s.properties[spec].x-kubernetes-validations[0]";
    assert_eq!(refused(json!({"rule": " "})), [format!("{at}.rule: Required value: rule is not specified")]);
    let shown = "{\"Rule\":\"self.x \\u003c 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}";
    let issue = "compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x < 1\n | ....^";
    assert_eq!(refused(json!({"rule": "self.x < 1"})), [format!("{at}.rule: Invalid value: {shown}: {issue}")]);
    assert!(refused(json!({"rule": "self.size"}))[0].ends_with("cel expression must evaluate to a bool"));
    assert!(
        refused(json!({"rule": "self.size > 1", "optionalOldSelf": true}))[0].contains("may not be set if oldSelf")
    );
    assert!(refused(json!({"rule": "true", "fieldPath": ".nothing"}))[0].ends_with("must be a valid path"));
}

#[test]
fn definitions_with_expensive_rules_are_refused() {
    let nested = json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]});
    let errors = texts(&check_definition(&schema(nested), &Path::new("s"), CheckOptions::default()));
    assert!(
        errors[0].contains("Forbidden: estimated rule cost exceeds budget by factor of more than 100x"),
        "{errors:?}"
    );
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn paths_of_fields() {
    let schema =
        json!({"properties": {"a": {"properties": {"b.c": {}}}, "m": {"additionalProperties": {"type": "string"}}}});
    assert_eq!(field_path::resolve(".a['b.c']", &schema).unwrap(), "a.b.c");
    assert_eq!(field_path::resolve(".m['k']", &schema).unwrap(), "m[k]");
    for wrong in [".x", "a", ".a[", ".a['b.c'", ".", ".m[k]"] {
        assert!(field_path::resolve(wrong, &schema).is_err(), "{wrong}");
    }
}
