//! Roles and bindings, indexed by subject: a decision looks only at what is bound to the user and their groups.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac/rbac.go` of Kubernetes.

use super::rules::Rule;
use super::{Attributes, Decision};
use crate::User;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    /// Per namespace (empty for cluster roles) and name.
    roles: HashMap<Box<str>, HashMap<Box<str>, Arc<[Rule]>>>,
    bindings: HashMap<Key, Vec<Subject>>,
    /// Per namespace (empty for cluster-wide), what is bound to whom.
    bound: HashMap<Box<str>, BoundTo>,
}

#[derive(Debug, Default)]
struct BoundTo {
    users: HashMap<Box<str>, Vec<Bound>>,
    groups: HashMap<Box<str>, Vec<Bound>>,
}

impl BoundTo {
    fn of(&mut self, subject: Subject) -> Entry<'_, Box<str>, Vec<Bound>> {
        match subject {
            Subject::User(name) => self.users.entry(name),
            Subject::Group(name) => self.groups.entry(name),
        }
    }
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
        let (namespace, name) = key(role);
        let rules = rules.iter().map(Rule::from_value).collect();
        self.tables.write().roles.entry(namespace).or_default().insert(name, rules);
    }

    pub fn remove_role(&self, role: &Value) {
        let (namespace, name) = key(role);
        let mut tables = self.tables.write();
        let Some(roles) = tables.roles.get_mut(&namespace) else { return };
        roles.remove(&name);
        if roles.is_empty() {
            tables.roles.remove(&namespace);
        }
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
            bound.of(subject.clone()).or_default().push(Bound {
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
        let mut errors = Vec::new();
        self.visit(user, what.namespace, |namespace, bound, rules| {
            let Some(rules) = rules else {
                errors.push(missing(bound));
                return true;
            };
            let covered = rules.iter().any(|rule| rule.covers(what));
            if covered {
                decision = Decision::allow(reason(namespace, bound));
            }
            !covered
        });
        if !decision.allowed && !errors.is_empty() {
            decision.reason = format!("RBAC: {}", super::aggregate(errors));
        }
        decision
    }

    /// Whether a cluster role alone allows it, whoever is bound to it.
    pub fn role_allows(&self, cluster_role: &str, what: &Attributes<'_>) -> bool {
        let tables = self.tables.read();
        let rules = tables.role("", cluster_role);
        rules.is_some_and(|rules| rules.iter().any(|rule| rule.covers(what)))
    }

    /// All rules that apply to the user in a namespace (cluster-wide ones included).
    /// With them, what is wrong with the bindings: roles that they name and that there are not.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, |_, bound, rules| {
            match rules {
                Some(rules) => all.extend(rules.iter().cloned()),
                None => errors.push(missing(bound)),
            }
            true
        });
        (all, errors)
    }

    /// The rules of a role; a Role of `namespace`, or a ClusterRole.
    pub fn rules_of_role(&self, cluster: bool, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let home = if cluster { "" } else { namespace };
        self.tables.read().role(home, name).cloned()
    }

    /// Calls `see` for each binding of the user, cluster-wide ones first, until it answers false. The rules are
    /// absent when there is no such role.
    fn visit(&self, user: &User, namespace: &str, mut see: impl FnMut(&str, &Bound, Option<&[Rule]>) -> bool) {
        let tables = self.tables.read();
        for scope in ["", namespace].into_iter().take(if namespace.is_empty() { 1 } else { 2 }) {
            let Some(table) = tables.bound.get(scope) else { continue };
            let groups = user.groups.iter().filter_map(|g| table.groups.get(g.as_str()));
            for bound in table.users.get(user.name.as_str()).into_iter().chain(groups).flatten() {
                let home = if bound.role.cluster { "" } else { scope };
                let rules = tables.role(home, &bound.role.name);
                if !see(scope, bound, rules.map(|r| &**r)) {
                    return;
                }
            }
        }
    }
}

impl Tables {
    fn role(&self, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        self.roles.get(namespace)?.get(name)
    }

    fn unbind(&mut self, key: &Key) {
        let Some(subjects) = self.bindings.remove(key) else { return };
        let Some(bound) = self.bound.get_mut(&key.0) else { return };
        for subject in subjects {
            if let Entry::Occupied(mut list) = bound.of(subject) {
                list.get_mut().retain(|b| b.binding != key.1);
                if list.get().is_empty() {
                    list.remove();
                }
            }
        }
        if bound.users.is_empty() && bound.groups.is_empty() {
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

/// How upstream words that a binding names no role.
fn missing(bound: &Bound) -> String {
    let resource = if bound.role.cluster { "clusterrole" } else { "role" };
    format!("{resource}.rbac.authorization.k8s.io {:?} not found", bound.role.name)
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
        let decision = may(&index, &User::service_account("a", "bot"), "update", "a");
        assert_eq!(decision, Decision::no_opinion("RBAC: role.rbac.authorization.k8s.io \"edit\" not found"));
    }
}
