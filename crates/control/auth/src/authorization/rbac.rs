//! Roles and bindings, indexed by namespace and subject: a decision looks only at what is bound to the user and their
//! groups there, and each binding leads to its compiled role without a look-up.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac/rbac.go` of Kubernetes.

use super::compiled::{Asked, Role};
use super::rules::Rule;
use super::{Attributes, Decision};
use crate::User;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;
use std::sync::Arc;

/// A user or a group, as bindings name them. A service account is the user it is known as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    binding: Box<str>,
    /// Where in [`Roles`] its role is, or would be.
    role: usize,
    /// Whether it names a ClusterRole.
    cluster: bool,
    /// How the reason names the subject.
    subject: Box<str>,
}

/// Namespace (empty for cluster-wide) and name.
type Key = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Tables {
    roles: Roles,
    /// The role of each binding, and its subjects.
    bindings: HashMap<Key, (usize, Vec<Subject>)>,
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

/// The roles that there are, and those that bindings name; each keeps its place as long as it is either.
#[derive(Debug, Default)]
struct Roles {
    places: Vec<Place>,
    free: Vec<usize>,
    /// Per namespace (empty for cluster roles) and name.
    known: HashMap<Box<str>, HashMap<Box<str>, usize>>,
}

#[derive(Debug, Default)]
struct Place {
    namespace: Box<str>,
    name: Box<str>,
    /// Nothing when only bindings name it.
    role: Option<Role>,
    bindings: usize,
}

impl Roles {
    fn get(&self, namespace: &str, name: &str) -> Option<&Role> {
        self.places[*self.known.get(namespace)?.get(name)?].role.as_ref()
    }

    /// The place of a role, made if it has none.
    fn place(&mut self, namespace: &str, name: &str) -> usize {
        if let Some(place) = self.known.get(namespace).and_then(|names| names.get(name)) {
            return *place;
        }
        let new = Place { namespace: namespace.into(), name: name.into(), ..Place::default() };
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = new;
                place
            }
            None => {
                self.places.push(new);
                self.places.len() - 1
            }
        };
        self.known.entry(namespace.into()).or_default().insert(name.into(), place);
        place
    }

    /// Gives up a place that neither a role nor a binding needs.
    fn tidy(&mut self, place: usize) {
        if self.places[place].role.is_some() || self.places[place].bindings > 0 {
            return;
        }
        let Place { namespace, name, .. } = std::mem::take(&mut self.places[place]);
        if let Some(names) = self.known.get_mut(&namespace) {
            names.remove(&name);
            if names.is_empty() {
                self.known.remove(&namespace);
            }
        }
        self.free.push(place);
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
        let role = Role::new(rules.iter().map(Rule::from_value).collect());
        let roles = &mut self.tables.write().roles;
        let place = roles.place(&namespace, &name);
        roles.places[place].role = Some(role);
    }

    pub fn remove_role(&self, role: &Value) {
        let (namespace, name) = key(role);
        let roles = &mut self.tables.write().roles;
        let place = roles.place(&namespace, &name);
        roles.places[place].role = None;
        roles.tidy(place);
    }

    /// A RoleBinding or ClusterRoleBinding as it is now.
    pub fn set_binding(&self, binding: &Value) {
        let key = key(binding);
        let cluster = binding["roleRef"]["kind"] == "ClusterRole";
        let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
        let subjects: Vec<_> =
            binding["subjects"].as_array().into_iter().flatten().filter_map(|s| subject(s, &key.0)).collect();
        let mut tables = self.tables.write();
        tables.unbind(&key);
        let role = tables.roles.place(if cluster { "" } else { &key.0 }, name);
        tables.roles.places[role].bindings += 1;
        let bound = tables.bound.entry(key.0.clone()).or_default();
        for (subject, shown) in &subjects {
            let one = Bound { binding: key.1.clone(), role, cluster, subject: shown.clone() };
            bound.of(subject.clone()).or_default().push(one);
        }
        tables.bindings.insert(key, (role, subjects.into_iter().map(|(subject, _)| subject).collect()));
    }

    pub fn remove_binding(&self, binding: &Value) {
        self.tables.write().unbind(&key(binding));
    }

    pub fn decide(&self, user: &User, what: &Attributes<'_>) -> Decision {
        let asked = Asked::new(what);
        let mut decision = Decision::default();
        let mut errors = Vec::new();
        self.visit(user, what.namespace, |namespace, bound, place| {
            let Some(role) = &place.role else {
                errors.push(missing(bound, place));
                return true;
            };
            let covered = role.covers(&asked);
            if covered {
                decision = Decision::allow(reason(namespace, bound, place));
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
        self.tables.read().roles.get("", cluster_role).is_some_and(|role| role.covers(&Asked::new(what)))
    }

    /// All rules that apply to the user in a namespace (cluster-wide ones included).
    /// With them, what is wrong with the bindings: roles that they name and that there are not.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, |_, bound, place| {
            match &place.role {
                Some(role) => all.extend(role.rules.iter().cloned()),
                None => errors.push(missing(bound, place)),
            }
            true
        });
        (all, errors)
    }

    /// The rules of a role; a Role of `namespace`, or a ClusterRole.
    pub fn rules_of_role(&self, cluster: bool, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let home = if cluster { "" } else { namespace };
        self.tables.read().roles.get(home, name).map(|role| role.rules.clone())
    }

    /// Calls `see` for each binding of the user and its role, cluster-wide ones first, until it answers false.
    fn visit(&self, user: &User, namespace: &str, mut see: impl FnMut(&str, &Bound, &Place) -> bool) {
        let tables = self.tables.read();
        for scope in ["", namespace].into_iter().take(if namespace.is_empty() { 1 } else { 2 }) {
            let Some(table) = tables.bound.get(scope) else { continue };
            let groups = user.groups.iter().filter_map(|g| table.groups.get(g.as_str()));
            for bound in table.users.get(user.name.as_str()).into_iter().chain(groups).flatten() {
                if !see(scope, bound, &tables.roles.places[bound.role]) {
                    return;
                }
            }
        }
    }
}

impl Tables {
    fn unbind(&mut self, key: &Key) {
        let Some((role, subjects)) = self.bindings.remove(key) else { return };
        self.roles.places[role].bindings -= 1;
        self.roles.tidy(role);
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
fn missing(bound: &Bound, place: &Place) -> String {
    let resource = if bound.cluster { "clusterrole" } else { "role" };
    format!("{resource}.rbac.authorization.k8s.io {:?} not found", place.name)
}

fn reason(namespace: &str, bound: &Bound, place: &Place) -> String {
    let mut text = String::with_capacity(96 + bound.binding.len() + place.name.len() + bound.subject.len());
    text.push_str("RBAC: allowed by ");
    match namespace {
        "" => quote(&mut text, &["ClusterRoleBinding ", &bound.binding]),
        _ => quote(&mut text, &["RoleBinding ", &bound.binding, "/", namespace]),
    }
    text.push_str(" of ");
    quote(&mut text, &[if bound.cluster { "ClusterRole " } else { "Role " }, &place.name]);
    text.push_str(" to ");
    text.push_str(&bound.subject);
    text
}

/// Appends the first part as it is, and the others together in quotation marks.
fn quote(out: &mut String, parts: &[&str]) {
    let (kind, name) = parts.split_first().map_or(("", parts), |(kind, name)| (*kind, name));
    out.push_str(kind);
    let plain = |part: &&str| part.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if name.iter().all(plain) {
        out.push('"');
        name.iter().for_each(|part| out.push_str(part));
        out.push('"');
    } else {
        // Writing to a String can't fail.
        let _ = write!(out, "{:?}", name.concat());
    }
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

    #[test]
    fn roles_that_come_after_their_bindings_count_and_places_are_used_again() {
        let index = Index::default();
        let binding = json!({"metadata": {"name": "b", "namespace": "a"},
            "roleRef": {"kind": "Role", "name": "late"}, "subjects": [{"kind": "User", "name": "joe \"x\""}]});
        let role = json!({"metadata": {"name": "late", "namespace": "a"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        let joe = User::new("joe \"x\"", &[]);
        for _ in 0..3 {
            index.set_binding(&binding);
            assert!(!may(&index, &joe, "get", "a").allowed);
            index.set_role(&role);
            assert_eq!(
                may(&index, &joe, "get", "a").reason,
                r#"RBAC: allowed by RoleBinding "b/a" of Role "late" to User "joe \"x\"""#
            );
            index.remove_binding(&binding);
            assert_eq!(may(&index, &joe, "get", "a"), Decision::default());
            index.remove_role(&role);
        }
        let tables = index.tables.read();
        assert_eq!((tables.roles.places.len(), tables.roles.known.len(), tables.bound.len()), (1, 0, 0));
    }
}
