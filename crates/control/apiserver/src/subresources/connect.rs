//! What is asked of admission though nothing is stored: connections to pods, services and nodes, whose options are the
//! object then, and requests for tokens.

use crate::admission::Chain;
use crate::resources::Target;
use pintle_registry::{Admission, Attributes, Operation, UserInfo};
use pintle_types::Status;
use serde_json::{Value, json};

/// The options of a request: what of `flags` and `texts` it gives. `lists` may come several times.
pub(super) fn options(target: &Target<'_>, flags: &[&str], texts: &[&str], lists: &[&str]) -> Value {
    let query = &target.call.query;
    let mut options = json!({});
    for flag in flags.iter().filter(|flag| query.flag(flag)) {
        options[*flag] = true.into();
    }
    for name in texts.iter().filter(|name| !query.text(name).is_empty()) {
        options[*name] = query.text(name).into();
    }
    for name in lists {
        let given: Vec<&str> = query.all(name).filter(|text| !text.is_empty()).collect();
        if !given.is_empty() {
            options[*name] = given.into();
        }
    }
    options
}

/// Asks admission about a connection; the answer is the options that count.
pub(super) async fn admit(target: &Target<'_>, options: Value) -> Result<Value, Box<Status>> {
    let mut options = options;
    if let Some(kind) = target.def.subresource(&target.path.subresource).and_then(|sub| sub.body.as_ref()) {
        options["kind"] = kind.kind.as_str().into();
        options["apiVersion"] = kind.api_version().into();
    }
    ask(target, Operation::Connect, options, Value::Null, false).await
}

/// Asks admission about an object that is made and answered but not stored; the answer is the object that counts.
pub(super) async fn admit_made(target: &Target<'_>, object: Value, dry_run: bool) -> Result<Value, Box<Status>> {
    let mut options = json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"});
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    ask(target, Operation::Create, object, options, dry_run).await
}

async fn ask(
    target: &Target<'_>,
    operation: Operation,
    object: Value,
    options: Value,
    dry_run: bool,
) -> Result<Value, Box<Status>> {
    let call = target.call;
    let user = UserInfo {
        name: call.user.name.clone(),
        uid: call.user.uid.clone(),
        groups: call.user.groups.clone(),
        extra: call.user.extra.clone(),
    };
    let mut attributes = Attributes {
        operation,
        def: &target.def,
        subresource: &target.path.subresource,
        namespace: &target.path.namespace,
        name: &target.path.name,
        user: &user,
        dry_run,
        object: Some(object),
        old_object: None,
        options,
        warnings: Vec::new(),
        audit: call.audit(),
    };
    let chain = Chain { server: &call.server, deadline: call.deadline };
    let admitted = match chain.mutate(&mut attributes).await {
        Ok(()) => chain.validate(&mut attributes).await,
        refused => refused,
    };
    call.warn(std::mem::take(&mut attributes.warnings));
    admitted?;
    Ok(attributes.object.unwrap_or_default())
}
