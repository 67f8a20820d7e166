//! `authorizer`: what the requester, or a service account, may do.
//!
//! Who decides is given at run time as an [`Authorize`]. Evaluation does not wait: where a decision takes time, the
//! authorizer answers nothing at first, the evaluation ends with [`EvalError::Interrupted`], and is done again when
//! the decision is there.

use super::argument::*;
use crate::cost::STRING_TRAVERSAL_FACTOR;
use crate::{CallFn, CostEstimate, EstimateArg, EvalError, Function, Library, Overload, SizeEstimate, Type, Value};
use pintle_types::names;
use std::sync::Arc;

const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
const DECISION: &str = "kubernetes.authorization.Decision";

/// Decides what expressions ask.
pub trait Authorize: Send + Sync {
    /// The decision; nothing when it is not known yet. Then it is to be found out and the expression evaluated again.
    fn authorize(&self, query: &Query) -> Option<Decision>;
}

/// Whose permission is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Who {
    #[default]
    Requester,
    ServiceAccount {
        namespace: Box<str>,
        name: Box<str>,
    },
}

/// What is asked: a path, or a resource (its version is `*`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    pub who: Who,
    pub verb: Box<str>,
    /// For what is no resource; then all below is empty.
    pub path: Option<Box<str>>,
    pub group: Box<str>,
    pub resource: Box<str>,
    pub subresource: Box<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// As it was written; empty for none.
    pub field_selector: Box<str>,
    pub label_selector: Box<str>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: Box<str>,
    pub error: Option<Box<str>>,
}

/// The value of the variable `authorizer`.
#[derive(Clone)]
pub struct AuthorizerValue {
    authorizer: Arc<dyn Authorize>,
    who: Who,
}

impl AuthorizerValue {
    pub fn new(authorizer: Arc<dyn Authorize>) -> Self {
        Self { authorizer, who: Who::Requester }
    }

    /// The value of `authorizer.requestResource`: a check of what is in `query`.
    pub fn resource_check(&self, query: Query) -> ResourceCheck {
        ResourceCheck { by: self.clone(), query }
    }

    fn ask(&self, query: Query) -> Result<Value<'static>, EvalError> {
        let query = Query { who: self.who.clone(), ..query };
        self.authorizer.authorize(&query).map(Value::opaque).ok_or(EvalError::Interrupted)
    }
}

impl PartialEq for AuthorizerValue {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.authorizer, &other.authorizer) && self.who == other.who
    }
}

/// A check of a resource that is being described.
#[derive(Clone, PartialEq)]
pub struct ResourceCheck {
    by: AuthorizerValue,
    query: Query,
}

#[derive(Clone, PartialEq)]
struct PathCheck {
    by: AuthorizerValue,
    path: Box<str>,
}

#[derive(Clone, PartialEq)]
struct GroupCheck {
    by: AuthorizerValue,
    group: Box<str>,
}

opaque_value!(AuthorizerValue, AUTHORIZER);
opaque_value!(PathCheck, PATH_CHECK);
opaque_value!(GroupCheck, GROUP_CHECK);
opaque_value!(ResourceCheck, RESOURCE_CHECK);
opaque_value!(Decision, DECISION);

pub(super) fn authorizer_type() -> Type {
    Type::opaque(AUTHORIZER)
}

pub(super) fn resource_check_type() -> Type {
    Type::opaque(RESOURCE_CHECK)
}

/// The text of an argument that must not be blank.
fn filled(arguments: &[Value<'_>], name: &str) -> Result<Box<str>, EvalError> {
    let text = text(arguments, 1)?;
    if text.trim().is_empty() { Err(failed(format!("{name} must not be empty"))) } else { Ok(text.into()) }
}

fn service_account<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let by = opaque::<AuthorizerValue>(arguments, 0)?;
    let (namespace, name) = (text(arguments, 1)?, text(arguments, 2)?);
    if !names::dns1123_subdomain_errors(name).is_empty() {
        return Err(failed("Invalid service account name"));
    }
    if !names::dns1123_label_errors(namespace).is_empty() {
        return Err(failed("Invalid service account namespace"));
    }
    let who = Who::ServiceAccount { namespace: namespace.into(), name: name.into() };
    Ok(Value::opaque(AuthorizerValue { authorizer: by.authorizer.clone(), who }))
}

/// A copy of a check in which one thing more is said.
fn refined<'a>(arguments: &[Value<'a>], set: fn(&mut Query, &str)) -> Result<Value<'a>, EvalError> {
    let mut check = opaque::<ResourceCheck>(arguments, 0)?.clone();
    set(&mut check.query, text(arguments, 1)?);
    Ok(Value::opaque(check))
}

const CHECK: u64 = 350_000;
/// Requirements that a selector has at most, by its length; and what each costs.
const REQUIREMENTS: f64 = 0.5;
const REQUIREMENT: f64 = 50.0;
const LIST: u64 = 10;

fn selector_estimate(size: SizeEstimate) -> CostEstimate {
    let parsed = size.cost(STRING_TRAVERSAL_FACTOR);
    let requirements = size.cost(REQUIREMENTS).scaled(REQUIREMENT);
    CostEstimate::fixed(LIST).plus(parsed).plus(requirements)
}

fn selector_cost(arguments: &[Value<'_>], _result: &Value<'_>) -> u64 {
    selector_estimate(SizeEstimate::fixed(arguments.get(1).map_or(0, Value::size))).max
}

fn estimate_selector(arguments: &[EstimateArg<'_>]) -> crate::CallEstimate {
    estimate(selector_estimate(arguments.get(1).map_or(SizeEstimate::UNKNOWN, |a| a.size)))
}

fn checks() -> Function {
    let costing = |overload: Overload| overload.cost(|_, _| CHECK).estimate(|_| estimate(CostEstimate::fixed(CHECK)));
    let path: CallFn = |_, a| {
        let check = opaque::<PathCheck>(a, 0)?;
        check.by.ask(Query { path: Some(check.path.clone()), verb: text(a, 1)?.into(), ..Query::default() })
    };
    let resource: CallFn = |_, a| {
        let check = opaque::<ResourceCheck>(a, 0)?;
        check.by.ask(Query { verb: text(a, 1)?.into(), ..check.query.clone() })
    };
    let decision = || Type::opaque(DECISION);
    Function::new(
        "check",
        [
            costing(Overload::member("pathcheck_check", [Type::opaque(PATH_CHECK), Type::String], decision(), path)),
            costing(Overload::member(
                "resourcecheck_check",
                [resource_check_type(), Type::String],
                decision(),
                resource,
            )),
        ],
    )
}

fn refinements() -> Vec<Function> {
    let refine = |name: &str, id, call: CallFn| {
        let check = resource_check_type();
        (name.to_owned(), Overload::member(id, [check.clone(), Type::String], check, call))
    };
    let plain = [
        refine("subresource", "resourcecheck_subresource", |_, a| refined(a, |q, text| q.subresource = text.into())),
        refine("namespace", "resourcecheck_namespace", |_, a| refined(a, |q, text| q.namespace = text.into())),
        refine("name", "resourcecheck_name", |_, a| refined(a, |q, text| q.name = text.into())),
    ];
    let selecting = [
        refine("fieldSelector", "authorizer_fieldselector", |_, a| {
            refined(a, |q, text| q.field_selector = text.into())
        }),
        refine("labelSelector", "authorizer_labelselector", |_, a| {
            refined(a, |q, text| q.label_selector = text.into())
        }),
    ];
    let costed = selecting.map(|(name, overload)| (name, overload.cost(selector_cost).estimate(estimate_selector)));
    plain.into_iter().chain(costed).map(|(name, overload)| Function::new(&name, [overload])).collect()
}

fn answers() -> Vec<Function> {
    let answer = |name: &str, id, result, call: CallFn| {
        Function::new(name, [Overload::member(id, [Type::opaque(DECISION)], result, call)])
    };
    vec![
        answer("errored", "decision_errored", Type::Bool, |_, a| Ok(opaque::<Decision>(a, 0)?.error.is_some().into())),
        answer("error", "decision_error", Type::String, |_, a| {
            Ok(opaque::<Decision>(a, 0)?.error.as_deref().unwrap_or("").to_owned().into())
        }),
        answer("allowed", "decision_allowed", Type::Bool, |_, a| Ok(opaque::<Decision>(a, 0)?.allowed.into())),
        answer("reason", "decision_reason", Type::String, |_, a| {
            Ok(opaque::<Decision>(a, 0)?.reason.to_string().into())
        }),
    ]
}

pub(super) fn library() -> Library {
    let make = |name: &str, id, of: &str, result: &str, call: CallFn| {
        Function::new(name, [Overload::member(id, [Type::opaque(of), Type::String], Type::opaque(result), call)])
    };
    let mut functions = vec![
        make("path", "authorizer_path", AUTHORIZER, PATH_CHECK, |_, a| {
            let by = opaque::<AuthorizerValue>(a, 0)?.clone();
            Ok(Value::opaque(PathCheck { by, path: filled(a, "path")? }))
        }),
        make("group", "authorizer_group", AUTHORIZER, GROUP_CHECK, |_, a| {
            let by = opaque::<AuthorizerValue>(a, 0)?.clone();
            Ok(Value::opaque(GroupCheck { by, group: text(a, 1)?.into() }))
        }),
        make("resource", "groupcheck_resource", GROUP_CHECK, RESOURCE_CHECK, |_, a| {
            let group = opaque::<GroupCheck>(a, 0)?;
            let query = Query { group: group.group.clone(), resource: filled(a, "resource")?, ..Query::default() };
            Ok(Value::opaque(group.by.resource_check(query)))
        }),
        Function::new(
            "serviceAccount",
            [Overload::member(
                "authorizer_serviceaccount",
                [authorizer_type(), Type::String, Type::String],
                authorizer_type(),
                |_, a| service_account(a),
            )],
        ),
        checks(),
    ];
    functions.extend(refinements());
    functions.extend(answers());
    Library { functions, ..Library::default() }
}
