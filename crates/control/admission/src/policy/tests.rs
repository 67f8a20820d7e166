//! Which policies a resource may concern, what type checking tells, and what values become as JSON.

use super::json::{check_type_names, to_json};
use super::*;
use pintle_cel::admission::{Compiler, Declarations, Wanted};
use pintle_cel::{Budget, Value as CelValue, Variables};
use pintle_kinds::Table;
use serde_json::json;

fn policy(name: &str, group: &str, resource: &str, expression: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]},
        ]},
        "validations": [{"expression": expression}],
    }})
}

fn concerned(policies: &Policies, resource: &str) -> Vec<String> {
    let index = policies.validating.index.load();
    index.hooks_of(resource).iter().map(|hook| hook.policy.name.clone()).collect()
}

#[test]
fn only_bound_policies_concern_a_resource() {
    let policies = Policies::default();
    let flavor = Flavor::Validating;
    policies.set_policy(flavor, &policy("a", "", "pods", "true"));
    policies.set_policy(flavor, &policy("b", "*", "*", "true"));
    assert!(concerned(&policies, "pods").is_empty());
    for name in ["a", "b"] {
        policies.set_binding(flavor, &json!({"metadata": {"name": name}, "spec": {"policyName": name}}));
    }
    assert_eq!(concerned(&policies, "pods"), ["a", "b"]);
    assert_eq!(concerned(&policies, "services"), ["b"]);
    policies.remove_binding(flavor, "b");
    assert!(concerned(&policies, "services").is_empty());
    policies.remove_policy(flavor, "a");
    assert!(concerned(&policies, "pods").is_empty());
}

#[test]
fn what_was_compiled_is_kept_while_the_specification_is() {
    let policies = Policies::default();
    let flavor = Flavor::Validating;
    let known = || policies.validating.known.lock().policies["a"].clone();
    policies.set_policy(flavor, &policy("a", "", "pods", "true"));
    let first = known();
    let mut labelled = policy("a", "", "pods", "true");
    labelled["metadata"]["labels"] = json!({"x": "y"});
    policies.set_policy(flavor, &labelled);
    assert!(Arc::ptr_eq(&first, &known()));
    policies.set_policy(flavor, &policy("a", "", "pods", "false"));
    assert!(!Arc::ptr_eq(&first, &known()));
}

#[test]
fn expressions_are_checked_against_the_kinds_that_are_matched() {
    let table = Table::builtin();
    let warnings = |expression: &str| check_types(&table, &policy("a", "apps", "deployments", expression));
    assert!(warnings("object.spec.replicas > 1").is_empty());
    assert!(warnings("object.metadata.labels['a'] == 'b'").is_empty());
    let found = warnings("object.replicas > 1");
    assert_eq!(found[0].field, "spec.validations[0].expression");
    let words = "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n";
    assert_eq!(found[0].warning, words);
    assert!(check_types(&table, &policy("a", "*", "*", "object.nothing")).is_empty());
}

/// The JSON of what a mutation constructs, or why it may not be.
fn made(source: &str) -> Result<Value, String> {
    let declared = Declarations { mutation: true, ..Declarations::default() };
    let program = Compiler::composed().compile(source, Wanted::Configuration, declared)?;
    let variables = Variables::new().with("object", CelValue::Null);
    let value = program.eval(&variables, &mut Budget::unlimited()).map_err(|error| error.to_string())?;
    check_type_names(&value)?;
    to_json(&value)
}

#[test]
fn configurations_become_json() {
    let source = "Object{metadata: Object.metadata{labels: {'a/b': 'c'}}, spec: Object.spec{replicas: 2, ratio: 0.5, \
                  containers: [Object.spec.containers{name: 'x', data: b'hi'}]}}";
    let wanted = json!({"metadata": {"labels": {"a/b": "c"}},
        "spec": {"replicas": 2, "ratio": 0.5, "containers": [{"name": "x", "data": "aGk="}]}});
    assert_eq!(made(source), Ok(wanted));
    let wrong = made("Object{spec: Object.wrong{replicas: 1}}").unwrap_err();
    let words = "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name \
                 path from root Object type";
    assert_eq!(wrong, words);
    assert!(made("Object{spec: Object.spec{a: {1: 2}}}").is_err());
}
