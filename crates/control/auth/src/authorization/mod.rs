//! May they: the question, the answer, and how a refusal is worded.

pub mod rbac;
pub mod rules;

use crate::{MASTERS, User};
use pintle_types::Status;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub namespace: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    /// For requests that are about no resource; then all but the verb is empty.
    pub path: Option<&'a str>,
}

/// The answer, with the reason that `SubjectAccessReview` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

/// The role that kubelets have without being bound to it.
const NODE_ROLE: &str = "system:node";

fn is_node(user: &User) -> bool {
    user.name.starts_with("system:node:") && user.in_group("system:nodes")
}

/// Decides by group and role.
#[derive(Debug, Default)]
pub struct Authorizer {
    pub rbac: rbac::Index,
}

impl Authorizer {
    pub fn decide(&self, user: &User, what: &Attributes<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        if is_node(user) && self.rbac.role_allows(NODE_ROLE, what) {
            return Decision { allowed: true, reason: String::new() };
        }
        self.rbac.decide(user, what)
    }

    /// Nothing when it may be done, the refusal otherwise.
    pub fn check(&self, user: &User, what: &Attributes<'_>) -> Result<(), Box<Status>> {
        let decision = self.decide(user, what);
        if decision.allowed { Ok(()) } else { Err(Box::new(refusal(user, what, &decision.reason))) }
    }
}

/// The refusal, worded as upstream words it.
pub fn refusal(user: &User, what: &Attributes<'_>, reason: &str) -> Status {
    let mut why = explanation(user, what);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    let mut status = Status::forbidden(what.group, what.resource, what.name, &why);
    if what.path.is_some() {
        status.message = format!("forbidden: {why}");
    }
    status
}

fn explanation(user: &User, what: &Attributes<'_>) -> String {
    let (name, verb) = (&user.name, what.verb);
    if let Some(path) = what.path {
        return format!("User {name:?} cannot {verb} path {path:?}");
    }
    let mut resource = what.resource.to_owned();
    if !what.subresource.is_empty() {
        resource = format!("{resource}/{}", what.subresource);
    }
    let head = format!("User {name:?} cannot {verb} resource {resource:?} in API group {:?}", what.group);
    match what.namespace {
        "" => format!("{head} at the cluster scope"),
        namespace => format!("{head} in the namespace {namespace:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_upstream_words_them() {
        let user = User { name: "jane".into(), ..User::default() };
        let mut what = Attributes { verb: "list", namespace: "y", resource: "pods", ..Attributes::default() };
        let message = |what: &Attributes<'_>| refusal(&user, what, "").message;
        assert_eq!(
            message(&what),
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"y\""
        );
        what = Attributes { verb: "get", group: "apps", resource: "deployments", name: "x", ..Attributes::default() };
        what.subresource = "scale";
        assert_eq!(
            message(&what),
            "deployments.apps \"x\" is forbidden: User \"jane\" cannot get resource \"deployments/scale\" in API group \
             \"apps\" at the cluster scope"
        );
        let what = Attributes { verb: "get", path: Some("/metrics"), ..Attributes::default() };
        assert_eq!(message(&what), "forbidden: User \"jane\" cannot get path \"/metrics\"");
    }
}
