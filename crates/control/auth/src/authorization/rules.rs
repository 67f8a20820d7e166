//! One RBAC rule: what it covers.
//!
//! Source: `pkg/apis/rbac/v1/evaluation_helpers.go` of Kubernetes.

use super::Attributes;
use serde_json::Value;

/// A `PolicyRule`, kept as small strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<Box<str>>,
    pub groups: Vec<Box<str>>,
    pub resources: Vec<Box<str>>,
    pub names: Vec<Box<str>>,
    pub paths: Vec<Box<str>>,
}

impl Rule {
    /// From a rule of a role object; fields of another type than they should have are taken as absent.
    pub fn from_value(rule: &Value) -> Self {
        let list = |field: &str| {
            let items = rule[field].as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(Value::as_str).map(Box::from).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    pub fn covers(&self, what: &Attributes<'_>) -> bool {
        if !any(&self.verbs, what.verb) {
            return false;
        }
        match what.path {
            Some(path) => self.paths.iter().any(|p| covers_path(p, path)),
            None => {
                any(&self.groups, what.group)
                    && self.resources.iter().any(|r| covers_resource(r, what.resource, what.subresource))
                    && (self.names.is_empty() || self.names.iter().any(|n| **n == *what.name))
            }
        }
    }

    /// The rule as `SelfSubjectRulesReview` shows it.
    pub fn to_value(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (field, list) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                out.insert(field.into(), list.iter().map(|s| Value::from(&**s)).collect());
            }
        }
        Value::Object(out)
    }
}

fn any(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|item| &**item == "*" || **item == *wanted)
}

fn covers_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some(("*", sub)) => sub == subresource,
        Some((main, sub)) => main == resource && sub == subresource,
        None => false,
    }
}

fn covers_path(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(rule: Value, what: Attributes<'_>, expected: bool) {
        assert_eq!(Rule::from_value(&rule).covers(&what), expected, "{rule} {what:?}");
    }

    #[test]
    fn a_rule_covers_what_it_names() {
        let pods = Attributes { verb: "get", resource: "pods", name: "a", ..Attributes::default() };
        let log = Attributes { subresource: "log", ..pods };
        let rule = |resources: &[&str]| json!({"verbs": ["get"], "apiGroups": [""], "resources": resources});
        check(rule(&["pods"]), pods, true);
        check(rule(&["pods"]), log, false);
        check(rule(&["pods/log"]), log, true);
        check(rule(&["pods/log"]), pods, false);
        check(rule(&["*/log"]), log, true);
        check(rule(&["*"]), log, true);
        check(json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]}), pods, false);
        check(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["b"]}), pods, false);
        let path = |p| Attributes { verb: "get", path: Some(p), ..Attributes::default() };
        check(json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}), path("/api/v1"), true);
        check(json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}), path("/api"), false);
        check(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"]}), path("/api"), false);
    }
}
