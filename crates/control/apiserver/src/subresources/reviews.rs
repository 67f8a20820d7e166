//! Questions about users and rights: answered at once, never stored.

use crate::authorization::{Attributes, Decision};
use crate::media::{Shape, negotiate};
use crate::options::WriteOptions;
use crate::request::{field_requirements, label_requirements};
use crate::resources::{Target, body_of, encode_value};
use crate::response::{Answer, with_type};
use http::StatusCode;
use pintle_auth::authorization::Requirement;
use pintle_auth::{MASTERS, User};
use pintle_schema::apply::{Manager, update_managers};
use pintle_types::Status;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::GroupKind;
use serde_json::{Value, json};

pub(crate) async fn create(target: &Target<'_>) -> Answer {
    let format = negotiate(&target.call.headers, Shape::Other)?;
    let options = WriteOptions::read(&target.call.query, "CreateOptions", false)?;
    let mut review = body_of(target, &options, "").await?;
    if let Some(ty) = target.def.type_ref() {
        pintle_schema::normalize::object(ty, &mut review);
    }
    remember_manager(target, &options, &mut review);
    let status = match &*target.def.resource {
        "tokenreviews" => token_review(target, &review).await?,
        "selfsubjectreviews" => {
            review["metadata"]["creationTimestamp"] = target.call.server.clock.now_seconds().to_string().into();
            json!({"userInfo": user_value(&target.call.user)})
        }
        "selfsubjectaccessreviews" => decision_value(&own_access(target, &review).await?),
        "subjectaccessreviews" => decision_value(&access(target, &review).await?),
        "localsubjectaccessreviews" => decision_value(&local_access(target, &review).await?),
        "selfsubjectrulesreviews" => rules(target, &review)?,
        _ => return Err(Box::new(Status::method_not_allowed())),
    };
    review["status"] = status;
    let body = encode_value(&review, format.written)?;
    Ok(with_type(StatusCode::CREATED, format.written.content_type(), body))
}

/// Upstream's generic path records the manager of these objects too, though nobody will ever read it.
fn remember_manager(target: &Target<'_>, options: &WriteOptions, review: &mut Value) {
    let Some(ty) = target.def.type_ref() else { return };
    let agent = target.call.header("user-agent").split('/').next().unwrap_or_default();
    let name = if options.field_manager.is_empty() { agent } else { options.field_manager.as_str() };
    let api_version = target.def.api_version();
    let time = target.call.server.clock.now_seconds().to_string();
    let by = Manager { name, api_version: &api_version, time: &time, subresource: "" };
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    update_managers(ty, None, review, by, &["status"]);
}

fn invalid(errors: &ErrorList) -> Result<(), Box<Status>> {
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: "authorization.k8s.io".into(), kind: String::new() };
    Err(Box::new(Status::invalid(&kind, "", errors)))
}

/// What is wrong with the attributes that are asked about.
fn check_attributes(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            let value = spec["nonResourceAttributes"].clone();
            errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), value, detail));
        }
        (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid(&path.child("resourceAttributes"), Value::Null, detail));
        }
        _ => {}
    }
}

async fn decide(target: &Target<'_>, user: &User, spec: &Value) -> Decision {
    let text = |v: &'_ Value| v.as_str().unwrap_or_default().to_owned();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let authorizer = &target.call.server.authorizer;
    if resource.is_object() {
        let names = ["verb", "group", "version", "namespace", "resource", "subresource", "name"];
        let [verb, group, version, namespace, name_of, subresource, name] = names.map(|f| text(&resource[f]));
        let fields = requirements(&resource["fieldSelector"], field_requirements);
        let labels = requirements(&resource["labelSelector"], label_requirements);
        let what = Attributes {
            verb: &verb,
            group: &group,
            version: &version,
            namespace: &namespace,
            resource: &name_of,
            subresource: &subresource,
            name: &name,
            path: None,
            fields: &fields,
            labels: &labels,
        };
        return authorizer.decide(user, &what).await;
    }
    let (verb, path) = (text(&path["verb"]), text(&path["path"]));
    authorizer.decide(user, &Attributes { verb: &verb, path: Some(&path), ..Attributes::default() }).await
}

/// The parts of a selector: those that are given, or those of its text.
fn requirements(selector: &Value, parse: fn(&str) -> Vec<Requirement>) -> Vec<Requirement> {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return parse(raw);
    }
    let texts = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let part =
        |r: &Value| Requirement { key: text(&r["key"]), operator: text(&r["operator"]), values: texts(&r["values"]) };
    selector["requirements"].as_array().into_iter().flatten().map(part).collect()
}

fn decision_value(decision: &Decision) -> Value {
    let mut value = json!({"allowed": decision.allowed});
    if decision.denied {
        value["denied"] = true.into();
    }
    if !decision.error.is_empty() {
        value["evaluationError"] = decision.error.as_str().into();
    }
    if !decision.reason.is_empty() {
        value["reason"] = decision.reason.as_str().into();
    }
    value
}

async fn own_access(target: &Target<'_>, review: &Value) -> Result<Decision, Box<Status>> {
    let mut errors = ErrorList::new();
    check_attributes(&review["spec"], &mut errors);
    invalid(&errors)?;
    Ok(decide(target, &target.call.user, &review["spec"]).await)
}

async fn access(target: &Target<'_>, review: &Value) -> Result<Decision, Box<Status>> {
    let spec = &review["spec"];
    let user = user_of(spec);
    let mut errors = ErrorList::new();
    check_attributes(spec, &mut errors);
    if user.name.is_empty() && user.groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(&Path::new("spec").child("user"), "", detail));
    }
    invalid(&errors)?;
    Ok(decide(target, &user, spec).await)
}

async fn local_access(target: &Target<'_>, review: &Value) -> Result<Decision, Box<Status>> {
    let ns = target.path.namespace.as_str();
    let asked = review["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    if review["spec"]["resourceAttributes"].is_object() && asked != ns {
        let message = "namespace on resource attributes must match the namespace of the review";
        return Err(Box::new(Status::bad_request(message)));
    }
    if review["spec"]["nonResourceAttributes"].is_object() {
        let path = Path::new("spec").child("nonResourceAttributes");
        invalid(&vec![FieldError::forbidden(&path, "disallowed on this kind of request")])?;
    }
    access(target, review).await
}

/// The user that a review names, taken as they are written.
fn user_of(spec: &Value) -> User {
    let texts = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(k, v)| (k.to_lowercase(), texts(v))).collect(),
    }
}

fn user_value(user: &User) -> Value {
    let mut value = json!({"username": user.name});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        value["groups"] = user.groups.clone().into();
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

async fn token_review(target: &Target<'_>, review: &Value) -> Result<Value, Box<Status>> {
    let spec = &review["spec"];
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Box::new(Status::bad_request("token is required for TokenReview in authentication")));
    }
    let wanted = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let wanted: Vec<String> = wanted.map(str::to_owned).collect();
    let server = &target.call.server;
    Ok(match server.user_of_token(token, &wanted).await {
        Err(error) => json!({"user": {}, "error": error}),
        Ok(known) => json!({"authenticated": true, "user": user_value(&known.user), "audiences": known.audiences}),
    })
}

fn rules(target: &Target<'_>, review: &Value) -> Result<Value, Box<Status>> {
    let ns = review["spec"]["namespace"].as_str().unwrap_or_default();
    if ns.is_empty() {
        return Err(Box::new(Status::bad_request("no namespace on request")));
    }
    let user = &target.call.user;
    if user.in_group(MASTERS) {
        return Ok(json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }));
    }
    let authorizer = &target.call.server.authorizer;
    let (all, mut errors) = authorizer.rbac.rules_of(user, ns);
    let unknown = authorizer.incomplete_rules(user);
    errors.splice(0..0, unknown.map(str::to_owned));
    let (paths, resources): (Vec<_>, Vec<_>) = all.iter().partition(|rule| !rule.paths.is_empty());
    let values =
        |rules: Vec<&pintle_auth::authorization::rules::Rule>| rules.iter().map(|r| r.to_value()).collect::<Vec<_>>();
    let mut status =
        json!({"resourceRules": values(resources), "nonResourceRules": values(paths), "incomplete": unknown.is_some()});
    if !errors.is_empty() {
        status["incomplete"] = true.into();
        status["evaluationError"] = errors.join(", ").into();
    }
    Ok(status)
}
