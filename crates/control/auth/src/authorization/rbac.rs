//! Roles and bindings, indexed by subject: a decision looks only at what is bound to the user and their groups.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac/rbac.go` of Kubernetes.

use super::rules::Rule;
use super::{Attributes, Decision};
use crate::User;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// A user or a group, as bindings name them. A service account is the user it is known as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct RoleRef {
    cluster: bool,
    name: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    binding: Box<str>,
    role: RoleRef,
    /// How the reason names the subject.
    subject: Box<str>,
}

/// Namespace (empty for cluster-wide) and name.
type Key = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Tables {
    roles: HashMap<Key, Arc<[Rule]>>,
    bindings: HashMap<Key, Vec<Subject>>,
    /// Per namespace (empty for cluster-wide) and subject, what is bound to it.
    bound: HashMap<Box<str>, HashMap<Subject, Vec<Bound>>>,
}

/// The compiled roles and bindings. Fed with the objects as they change.
#[derive(Debug, Default)]
pub struct Index {
    tables: RwLock<Tables>,
}

fn key(object: &Value) -> Key {
    let metadata = &object["metadata"];
    (metadata["namespace"].as_str().unwrap_or_default().into(), metadata["name"].as_str().unwrap_or_default().into())
}

impl Index {
    /// A Role or ClusterRole as it is now.
    pub fn set_role(&self, role: &Value) {
        let rules = role["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.tables.write().roles.insert(key(role), rules.iter().map(Rule::from_value).collect());
    }

    pub fn remove_role(&self, role: &Value) {
        self.tables.write().roles.remove(&key(role));
    }

    /// A RoleBinding or ClusterRoleBinding as it is now.
    pub fn set_binding(&self, binding: &Value) {
        let key = key(binding);
        let role = RoleRef {
            cluster: binding["roleRef"]["kind"] == "ClusterRole",
            name: binding["roleRef"]["name"].as_str().unwrap_or_default().into(),
        };
        let subjects: Vec<_> =
            binding["subjects"].as_array().into_iter().flatten().filter_map(|s| subject(s, &key.0)).collect();
        let mut tables = self.tables.write();
        tables.unbind(&key);
        let bound = tables.bound.entry(key.0.clone()).or_default();
        for (subject, shown) in &subjects {
            bound.entry(subject.clone()).or_default().push(Bound {
                binding: key.1.clone(),
                role: role.clone(),
                subject: shown.clone(),
            });
        }
        tables.bindings.insert(key, subjects.into_iter().map(|(subject, _)| subject).collect());
    }

    pub fn remove_binding(&self, binding: &Value) {
        self.tables.write().unbind(&key(binding));
    }

    pub fn decide(&self, user: &User, what: &Attributes<'_>) -> Decision {
        let mut decision = Decision::default();
        self.visit(user, what.namespace, |namespace, bound, rules| {
            let covered = rules.iter().any(|rule| rule.covers(what));
            if covered {
                decision = Decision { allowed: true, reason: reason(namespace, bound) };
            }
            !covered
        });
        decision
    }

    /// Whether a cluster role alone allows it, whoever is bound to it.
    pub fn role_allows(&self, cluster_role: &str, what: &Attributes<'_>) -> bool {
        let tables = self.tables.read();
        let rules = tables.roles.get(&("".into(), cluster_role.into()));
        rules.is_some_and(|rules| rules.iter().any(|rule| rule.covers(what)))
    }

    /// All rules that apply to the user in a namespace (cluster-wide ones included).
    pub fn rules_of(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let mut all = Vec::new();
        self.visit(user, namespace, |_, _, rules| {
            all.extend(rules.iter().cloned());
            true
        });
        all
    }

    /// Calls `see` for each binding of the user, cluster-wide ones first, until it answers false.
    fn visit(&self, user: &User, namespace: &str, mut see: impl FnMut(&str, &Bound, &[Rule]) -> bool) {
        let tables = self.tables.read();
        let mut subjects = vec![Subject::User(user.name.as_str().into())];
        subjects.extend(user.groups.iter().map(|g| Subject::Group(g.as_str().into())));
        for scope in ["", namespace].into_iter().take(if namespace.is_empty() { 1 } else { 2 }) {
            let Some(table) = tables.bound.get(scope) else { continue };
            for bound in subjects.iter().filter_map(|s| table.get(s)).flatten() {
                let home = if bound.role.cluster { "" } else { scope };
                let rules = tables.roles.get(&(home.into(), bound.role.name.clone()));
                if let Some(rules) = rules
                    && !see(scope, bound, rules)
                {
                    return;
                }
            }
        }
    }
}

impl Tables {
    fn unbind(&mut self, key: &Key) {
        let Some(subjects) = self.bindings.remove(key) else { return };
        let Some(bound) = self.bound.get_mut(&key.0) else { return };
        for subject in subjects {
            if let Some(list) = bound.get_mut(&subject) {
                list.retain(|b| b.binding != key.1);
                if list.is_empty() {
                    bound.remove(&subject);
                }
            }
        }
        if bound.is_empty() {
            self.bound.remove(&key.0);
        }
    }
}

fn subject(value: &Value, binding_namespace: &str) -> Option<(Subject, Box<str>)> {
    let name = value["name"].as_str()?;
    match value["kind"].as_str()? {
        "User" => Some((Subject::User(name.into()), format!("User {name:?}").into())),
        "Group" => Some((Subject::Group(name.into()), format!("Group {name:?}").into())),
        "ServiceAccount" => {
            let namespace = value["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
            let user = format!("system:serviceaccount:{namespace}:{name}").into();
            Some((Subject::User(user), format!("ServiceAccount \"{name}/{namespace}\"").into()))
        }
        _ => None,
    }
}

fn reason(namespace: &str, bound: &Bound) -> String {
    let (kind, binding) = match namespace {
        "" => ("ClusterRoleBinding", bound.binding.to_string()),
        _ => ("RoleBinding", format!("{}/{namespace}", bound.binding)),
    };
    let role = if bound.role.cluster { "ClusterRole" } else { "Role" };
    format!("RBAC: allowed by {kind} {binding:?} of {role} {:?} to {}", bound.role.name, bound.subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index() -> Index {
        let index = Index::default();
        index.set_role(&json!({"metadata": {"name": "view"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}));
        index.set_role(&json!({"metadata": {"name": "edit", "namespace": "a"},
            "rules": [{"verbs": ["update"], "apiGroups": [""], "resources": ["pods"]}]}));
        index.set_binding(&json!({"metadata": {"name": "all-view"},
            "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "Group", "name": "dev"}]}));
        index.set_binding(&json!({"metadata": {"name": "sa-edit", "namespace": "a"},
            "roleRef": {"kind": "Role", "name": "edit"}, "subjects": [{"kind": "ServiceAccount", "name": "bot"}]}));
        index
    }

    fn may(index: &Index, user: &User, verb: &str, namespace: &str) -> Decision {
        index.decide(user, &Attributes { verb, namespace, resource: "pods", ..Attributes::default() })
    }

    #[test]
    fn bindings_reach_groups_and_service_accounts_in_their_scope() {
        let index = index();
        let dev = User::new("jane", &["dev"]);
        let bot = User::service_account("a", "bot");
        assert_eq!(
            may(&index, &dev, "get", "b").reason,
            "RBAC: allowed by ClusterRoleBinding \"all-view\" of ClusterRole \"view\" to Group \"dev\""
        );
        assert!(!may(&index, &dev, "update", "a").allowed);
        assert_eq!(
            may(&index, &bot, "update", "a").reason,
            "RBAC: allowed by RoleBinding \"sa-edit/a\" of Role \"edit\" to ServiceAccount \"bot/a\""
        );
        assert!(!may(&index, &bot, "update", "b").allowed);
        assert!(!may(&index, &bot, "update", "").allowed);
    }

    #[test]
    fn what_is_unbound_or_changed_no_longer_counts() {
        let index = index();
        let dev = User::new("jane", &["dev"]);
        index.set_binding(&json!({"metadata": {"name": "all-view"},
            "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "joe"}]}));
        assert!(!may(&index, &dev, "get", "b").allowed);
        assert!(may(&index, &User::new("joe", &[]), "get", "b").allowed);
        index.remove_binding(&json!({"metadata": {"name": "all-view"}}));
        assert!(!may(&index, &User::new("joe", &[]), "get", "b").allowed);
        index.remove_role(&json!({"metadata": {"name": "edit", "namespace": "a"}}));
        assert!(!may(&index, &User::service_account("a", "bot"), "update", "a").allowed);
    }
}
