//! Roles and the bindings to them.

use super::workload;
use crate::{
    check::{Errors, selector},
    column::{self, Column},
    strategy::{NameRule, Strategy},
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles of a namespace and of the cluster.
pub struct Role {
    pub cluster: bool,
}

impl Strategy for Role {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            for (i, rule) in tree::list(object, "rules").iter().enumerate() {
                validate_rule(errors, &Path::new("rules").index(i), rule, !self.cluster);
            }
            if tree::has(object, "aggregationRule") {
                validate_aggregation(errors, &object["aggregationRule"]);
            }
        })
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn validate_rule(errors: &mut Errors, at: &Path, rule: &Value, namespaced: bool) {
    let has = |key: &str| !tree::list(rule, key).is_empty();
    if !has("verbs") {
        errors.required(&at.child("verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        let path = at.child("nonResourceURLs");
        if namespaced {
            let words = "namespaced rules cannot apply to non-resource URLs";
            errors.invalid(&path, rule["nonResourceURLs"].clone(), words);
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|key| has(key)) {
            let words = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path, rule["nonResourceURLs"].clone(), words);
        }
        return;
    }
    if !has("apiGroups") {
        errors.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !has("resources") {
        errors.required(&at.child("resources"), "resource rules must supply at least one resource");
    }
}

fn validate_aggregation(errors: &mut Errors, rule: &Value) {
    let path = Path::new("aggregationRule.clusterRoleSelectors");
    let selectors = tree::list(rule, "clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, one) in selectors.iter().enumerate() {
        selector::labels(errors, &path.index(i), one);
        if !selector::is_usable(one) {
            errors.invalid(&path.index(i), Value::Null, "invalid label selector.");
        }
    }
}

/// Bindings in a namespace and in the cluster.
pub struct Binding {
    pub cluster: bool,
}

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Role",
        "string",
        "",
        0,
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the \
         RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    column::AGE,
    Column::new("Users", "string", "", 1, "Users in the roleBinding"),
    Column::new("Groups", "string", "", 1, "Groups in the roleBinding"),
    Column::new("ServiceAccounts", "string", "", 1, "ServiceAccounts in the roleBinding"),
];

static CLUSTER_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Role",
        "string",
        "",
        0,
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, \
         the Authorizer must return an error.",
    ),
    column::AGE,
    Column::new("Users", "string", "", 1, "Users in the clusterRoleBinding"),
    Column::new("Groups", "string", "", 1, "Groups in the clusterRoleBinding"),
    Column::new("ServiceAccounts", "string", "", 1, "ServiceAccounts in the clusterRoleBinding"),
];

impl Strategy for Binding {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(role) = tree::child(object, "roleRef") {
            tree::default_empty(role, "apiGroup", GROUP);
        }
        for subject in tree::items_mut(object, "subjects") {
            if matches!(tree::text(subject, "kind"), "User" | "Group") {
                tree::default_empty(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let role = &object["roleRef"];
            let path = Path::new("roleRef");
            let known: &[&str] = if self.cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
            errors.one_of(&path.child("apiGroup"), tree::text(role, "apiGroup"), &[GROUP]);
            errors.one_of(&path.child("kind"), tree::text(role, "kind"), known);
            let name = tree::text(role, "name");
            if errors.needs(&path.child("name"), name, "") {
                errors.invalid_for(&path.child("name"), name, names::path_segment_errors(name, false));
            }
            for (i, subject) in tree::list(object, "subjects").iter().enumerate() {
                validate_subject(errors, &Path::new("subjects").index(i), subject, !self.cluster);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| {
            if new["roleRef"] != old["roleRef"] {
                let role = |key: &str| Value::from(tree::text(&new["roleRef"], key));
                let shown = format!(
                    "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
                    role("apiGroup"),
                    role("kind"),
                    role("name")
                );
                errors.invalid_shown(&Path::new("roleRef"), &shown, "cannot change roleRef");
            }
        }));
        found
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &[Column] {
        if self.cluster { CLUSTER_COLUMNS } else { COLUMNS }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let role = &object["roleRef"];
        let subjects = |kind: &str| {
            let named = tree::list(object, "subjects").iter().filter(|subject| tree::text(subject, "kind") == kind);
            let text = |subject: &Value| match kind {
                "ServiceAccount" => format!("{}/{}", tree::text(subject, "namespace"), tree::text(subject, "name")),
                _ => tree::text(subject, "name").to_owned(),
            };
            Value::from(named.map(text).collect::<Vec<_>>().join(", "))
        };
        vec![
            workload::name(object),
            format!("{}/{}", tree::text(role, "kind"), tree::text(role, "name")).into(),
            column::age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    }
}

fn validate_subject(errors: &mut Errors, at: &Path, subject: &Value, namespaced: bool) {
    let text = |key| tree::text(subject, key);
    errors.needs(&at.child("name"), text("name"), "");
    match text("kind") {
        "ServiceAccount" => {
            if !text("name").is_empty() {
                errors.invalid_for(&at.child("name"), text("name"), names::dns1123_subdomain_errors(text("name")));
            }
            if !text("apiGroup").is_empty() {
                errors.unsupported(&at.child("apiGroup"), text("apiGroup"), &[""]);
            }
            if !namespaced && text("namespace").is_empty() {
                errors.required(&at.child("namespace"), "");
            }
        }
        "User" | "Group" => errors.one_of(&at.child("apiGroup"), text("apiGroup"), &[GROUP]),
        kind => errors.unsupported(&at.child("kind"), kind, &["ServiceAccount", "User", "Group"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules() {
        for (cluster, rule, expected) in [
            (true, json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}), vec![]),
            (false, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), vec![]),
            (
                false,
                json!({"verbs": ["get"], "apiGroups": [""]}),
                vec!["rules[0].resources: Required value: resource rules must supply at least one resource"],
            ),
            (
                false,
                json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}),
                vec![
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                ],
            ),
        ] {
            let found: Vec<_> =
                Role { cluster }.validate(&json!({"rules": [rule]})).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn bindings_name_their_subjects() {
        let mut object = json!({
            "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}],
        });
        let binding = Binding { cluster: false };
        binding.default("rbac.authorization.k8s.io/v1", &mut object);
        assert!(binding.validate(&object).is_empty());
        let cells = binding.cells(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "ClusterRole/view");
        assert_eq!(cells[3..], ["u", "", "n/s"].map(Value::from));
        let mut other = object.clone();
        other["roleRef"]["name"] = json!("edit");
        assert_eq!(
            binding.validate_update(&other, &object)[0].to_string(),
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"edit\"}: \
             cannot change roleRef"
        );
    }
}
