//! May they: the question, the answer, and how a refusal is worded.

mod compiled;
pub mod configuration;
pub mod escalation;
pub mod node;
pub mod rbac;
pub mod rules;
pub mod webhook;

use crate::{MASTERS, User};
use arc_swap::ArcSwap;
use pintle_types::Status;
use std::collections::HashSet;
use std::sync::Arc;
use webhook::Webhook;

/// A part of a field or label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    pub values: Vec<String>,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// Only webhooks ask for it.
    pub version: &'a str,
    pub namespace: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    /// For requests that are about no resource; then all but the verb is empty.
    pub path: Option<&'a str>,
    /// What the request is limited to, for lists, watches and deletions of many.
    pub fields: &'a [Requirement],
    pub labels: &'a [Requirement],
}

/// The answer, with the reason that `SubjectAccessReview` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Refused for good: no other authorizer was asked.
    pub denied: bool,
    pub reason: String,
    /// What went wrong on the way, although an answer was found.
    pub error: String,
}

impl Decision {
    /// Allowed for this reason.
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { allowed: true, reason: reason.into(), ..Self::default() }
    }

    /// Whoever is asked next decides.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// Nothing when it may be done, the refusal otherwise.
    pub fn into_result(self, user: &User, what: &Attributes<'_>) -> Result<(), Box<Status>> {
        if self.allowed { Ok(()) } else { Err(Box::new(refusal(user, what, &self.reason))) }
    }

    fn is_final(&self) -> bool {
        self.allowed || self.denied
    }
}

/// One link of the chain of authorizers.
#[derive(Debug)]
pub enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<Webhook>),
}

impl Mode {
    /// The name of a mode that decides by itself.
    fn built_in(&self) -> Option<&'static str> {
        match self {
            Self::AlwaysAllow => Some("AlwaysAllow"),
            Self::AlwaysDeny => Some("AlwaysDeny"),
            Self::Node => Some("Node"),
            Self::Rbac => Some("RBAC"),
            Self::Webhook(_) => None,
        }
    }
}

/// Asks each mode until one decides. Members of `system:masters` may do everything.
#[derive(Debug)]
pub struct Authorizer {
    pub rbac: rbac::Index,
    pub nodes: node::Graph,
    /// Replaced when their file changes.
    modes: ArcSwap<Vec<Mode>>,
}

impl Default for Authorizer {
    fn default() -> Self {
        Self::new(vec![Mode::Node, Mode::Rbac])
    }
}

impl Authorizer {
    pub fn new(modes: Vec<Mode>) -> Self {
        Self { rbac: rbac::Index::default(), nodes: node::Graph::default(), modes: ArcSwap::from_pointee(modes) }
    }

    /// Takes over a changed chain. Only webhooks may come and go: what the others need was made ready at the start.
    pub fn replace(&self, modes: Vec<Mode>) -> Result<(), String> {
        let fixed = |modes: &[Mode]| -> HashSet<&'static str> { modes.iter().filter_map(Mode::built_in).collect() };
        if fixed(&modes) != fixed(&self.modes.load()) {
            return Err("only webhooks can be added and removed while the server runs".into());
        }
        self.modes.store(Arc::new(modes));
        Ok(())
    }

    /// Whether nodes are told apart, so that the graph has to be kept.
    pub fn uses_nodes(&self) -> bool {
        self.modes.load().iter().any(|mode| matches!(mode, Mode::Node))
    }

    /// Whether what users may do can't be listed in full: an authorizer decides case by case.
    pub fn incomplete_rules(&self, user: &User) -> Option<&'static str> {
        if self.modes.load().iter().any(|mode| matches!(mode, Mode::Webhook(_))) {
            return Some("webhook authorizer does not support user rule resolution");
        }
        let is_node = self.uses_nodes() && node::identity(user).is_some();
        is_node.then_some("node authorizer does not support user rule resolution")
    }

    pub async fn decide(&self, user: &User, what: &Attributes<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::allow("");
        }
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for mode in self.modes.load_full().iter() {
            let decision = match mode {
                Mode::AlwaysAllow => Decision::allow(""),
                Mode::AlwaysDeny => Decision::no_opinion("Everything is forbidden."),
                Mode::Node => self.nodes.decide(&self.rbac, user, what),
                Mode::Rbac => self.rbac.decide(user, what),
                Mode::Webhook(webhook) => Box::pin(webhook.decide(user, what)).await,
            };
            if decision.is_final() {
                return decision;
            }
            reasons.extend(Some(decision.reason).filter(|r| !r.is_empty()));
            errors.extend(Some(decision.error).filter(|e| !e.is_empty()));
        }
        Decision { reason: reasons.join("\n"), error: aggregate(errors), ..Decision::default() }
    }

    /// Nothing when it may be done, the refusal otherwise.
    pub async fn check(&self, user: &User, what: &Attributes<'_>) -> Result<(), Box<Status>> {
        self.decide(user, what).await.into_result(user, what)
    }
}

/// Several errors as one text, as upstream joins them: without repetitions, in brackets when more than one is left.
pub(crate) fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = HashSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        many => format!("[{}]", many.join(", ")),
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

    #[tokio::test]
    async fn the_first_mode_that_decides_counts_and_the_reasons_of_the_others_are_told() {
        let user = User::new("jane", &[]);
        let what = Attributes { verb: "get", resource: "pods", ..Attributes::default() };
        let decide = async |modes| Authorizer::new(modes).decide(&user, &what).await;
        assert!(decide(vec![Mode::Rbac, Mode::AlwaysAllow]).await.allowed);
        let refused = decide(vec![Mode::AlwaysDeny, Mode::Node, Mode::Rbac]).await;
        assert_eq!(refused, Decision::no_opinion("Everything is forbidden."));
        let masters = User::new("root", &[MASTERS]);
        assert!(Authorizer::new(vec![Mode::AlwaysDeny]).decide(&masters, &what).await.allowed);
    }

    #[tokio::test]
    async fn a_changed_chain_keeps_what_the_server_started_with() {
        let authorizer = Authorizer::new(vec![Mode::Rbac, Mode::AlwaysAllow]);
        assert!(authorizer.replace(vec![Mode::Rbac]).is_err());
        assert!(authorizer.replace(vec![Mode::AlwaysAllow, Mode::Rbac]).is_ok());
        assert!(authorizer.decide(&User::new("jane", &[]), &Attributes::default()).await.allowed);
    }

    #[test]
    fn errors_are_joined_without_repetitions() {
        let check = |errors: &[&str], expected| {
            assert_eq!(aggregate(errors.iter().map(|e| (*e).to_owned()).collect()), expected);
        };
        check(&[], "");
        check(&["a", "a"], "a");
        check(&["a", "b", "a"], "[a, b]");
    }

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
