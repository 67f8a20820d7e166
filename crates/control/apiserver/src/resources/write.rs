//! POST, PUT, PATCH and DELETE: the body, the options, and on to the registry with admission at its side.

use super::read::namespace;
use super::{Target, view};
use crate::admission::Chain;
use crate::decode::{self, Expected, media_type};
use crate::media::{Format, Offers, Shape};
use crate::options::{self, WriteOptions};
use crate::pipeline::Call;
use crate::response::{self, Answer};
use http::StatusCode;
use pintle_kinds::ResourceDef;
use pintle_registry::{DeleteOptions, Deletion, Patch, Request, UserInfo};
use pintle_schema::Schema;
use pintle_schema::decode::Limits;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::{GroupKind, GroupVersionKind};
use pintle_types::status::Details;
use pintle_types::{Reason, Status};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What the registry is told of a write, beside the object.
pub(crate) struct Writer<'a> {
    call: &'a Call,
    user: UserInfo,
    chain: Chain<'a>,
    manager: String,
    options: WriteOptions,
    verbatim: Option<Box<RawValue>>,
}

/// A body, and the text of the field of it that counts as it is written.
pub(crate) struct Received {
    pub object: Value,
    verbatim: Option<Box<RawValue>>,
}

impl<'a> Writer<'a> {
    pub fn new(target: &'a Target<'_>, options: WriteOptions) -> Self {
        let user = &target.call.user;
        let manager = if options.field_manager.is_empty() {
            manager_of_agent(target.call.header("user-agent"))
        } else {
            options.field_manager.clone()
        };
        Self {
            call: target.call,
            user: UserInfo {
                name: user.name.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
            },
            chain: Chain { server: &target.call.server, deadline: target.call.deadline },
            manager,
            options,
            verbatim: None,
        }
    }

    fn of_body(target: &'a Target<'_>, options: WriteOptions, verbatim: Option<Box<RawValue>>) -> Self {
        Self { verbatim, ..Self::new(target, options) }
    }

    pub fn request(&self) -> Request<'_> {
        let mut request = Request::new(&self.user, &self.chain, &self.manager);
        request.dry_run = self.options.dry_run;
        request.audit = self.call.audit();
        request.field_validation = self.options.field_validation;
        request.verbatim = self.verbatim.as_deref();
        request
    }
}

/// The manager's name of clients that give none: their program's.
fn manager_of_agent(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// Decodes the request's body into the kind that its path takes.
pub(crate) async fn body_of(target: &Target<'_>, options: &WriteOptions, sub: &str) -> Result<Value, Box<Status>> {
    Ok(receive(target, options, sub).await?.object)
}

async fn receive(target: &Target<'_>, options: &WriteOptions, sub: &str) -> Result<Received, Box<Status>> {
    let encoding = decode::encoding(&target.call.headers, target.offers())?;
    let bytes = target.call.read_body().await?;
    let (gvk, own) = body_kind(&target.def, sub);
    let ty = if own { target.def.type_ref() } else { Schema::builtin().kind(&gvk.group, &gvk.version, &gvk.kind) };
    let expected = Expected { gvk, ty, validation: options.field_validation };
    let table = target.call.server.registry.table();
    let mut warnings = Vec::new();
    let value = decode::object(&bytes, encoding, &expected, &table, &mut warnings)?;
    target.call.warn(warnings);
    target.call.audit_object(&value);
    let verbatim = match encoding {
        decode::Encoding::Json => target.def.strategy.verbatim_field().and_then(|field| text_of(&bytes, field)),
        _ => None,
    };
    Ok(Received { object: value, verbatim })
}

/// How a body of JSON writes one of its top-level fields.
fn text_of(bytes: &[u8], field: &str) -> Option<Box<RawValue>> {
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(bytes).ok()?;
    fields.get(field).map(|text| RawValue::to_owned(text))
}

/// The kind of a subresource's body, and whether it is the resource's own.
fn body_kind(def: &ResourceDef, sub: &str) -> (GroupVersionKind, bool) {
    match def.subresource(sub).and_then(|s| s.body.clone()) {
        Some(gvk) => (gvk, false),
        None => (def.gvk(), true),
    }
}

pub(crate) async fn create(target: &Target<'_>) -> Answer {
    let format = target.negotiate(Shape::Object)?;
    let options = WriteOptions::read(&target.call.query, "CreateOptions", false)?;
    let Received { object, verbatim } = receive(target, &options, "").await?;
    let writer = Writer::of_body(target, options, verbatim);
    let request = writer.request();
    let created = target.call.server.registry.create(&request, &target.def, namespace(target), object).await;
    target.call.warn(request.take_warnings());
    view::object(target, format, StatusCode::CREATED, &created?)
}

pub(crate) async fn create_subresource(target: &Target<'_>) -> Answer {
    let format = target.negotiate(Shape::Object)?;
    let sub = target.path.subresource.as_str();
    let options = WriteOptions::read(&target.call.query, "CreateOptions", false)?;
    let body = body_of(target, &options, sub).await?;
    post_subresource(target, format, options, sub, &target.path.name, body).await
}

/// Hands a decoded body to a subresource of the object `name`.
pub(crate) async fn post_subresource(
    target: &Target<'_>,
    format: Format,
    options: WriteOptions,
    sub: &str,
    name: &str,
    body: Value,
) -> Answer {
    let writer = Writer::new(target, options);
    let request = writer.request();
    let registry = &target.call.server.registry;
    let done = registry.create_subresource(&request, &target.def, namespace(target), name, sub, body).await;
    target.call.warn(request.take_warnings());
    let mut done = done?.to_value();
    if done["kind"] == "Status" {
        done["code"] = StatusCode::CREATED.as_u16().into();
    }
    view::object(target, format, StatusCode::CREATED, &done.into())
}

pub(crate) async fn update(target: &Target<'_>, sub: &str) -> Answer {
    let format = target.negotiate(Shape::Object)?;
    let options = WriteOptions::read(&target.call.query, "UpdateOptions", false)?;
    let Received { object, verbatim } = receive(target, &options, sub).await?;
    check_name(target, &object)?;
    let writer = Writer::of_body(target, options, verbatim);
    let request = writer.request();
    let (registry, name) = (&target.call.server.registry, &target.path.name);
    let written = registry.update(&request, &target.def, namespace(target), name, sub, object).await;
    target.call.warn(request.take_warnings());
    let written = written?;
    view::object(target, format, code(written.created), &written.object)
}

fn code(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

fn check_name(target: &Target<'_>, object: &Value) -> Result<(), Box<Status>> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let (name, ns) = (text("name"), text("namespace"));
    let wanted = &target.path.name;
    let bad = |message: String| Err(Box::new(Status::bad_request(message)));
    if name.is_empty() {
        return bad(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ));
    }
    if name != wanted {
        return bad(format!("the name of the object ({name}) does not match the name on the URL ({wanted})"));
    }
    let wanted = namespace(target);
    if !wanted.is_empty() && !ns.is_empty() && ns != wanted {
        let message =
            format!("the namespace of the object ({ns}) does not match the namespace on the request ({wanted})");
        return bad(message);
    }
    Ok(())
}

pub(crate) async fn patch(target: &Target<'_>, sub: &str) -> Answer {
    let format = target.negotiate(Shape::Object)?;
    let kind = media_type(&target.call.headers);
    let cbor = target.call.server.config.cbor;
    check_patch_type(&target.def, kind, cbor)?;
    let apply = matches!(kind, APPLY_PATCH | APPLY_PATCH_CBOR);
    let options = WriteOptions::read(&target.call.query, "PatchOptions", apply)?;
    let bytes = target.call.read_body().await?;
    let patch = read_patch(kind, &bytes, options.force)?;
    match &patch {
        Patch::Json(value) | Patch::Merge(value) | Patch::Strategic(value) => target.call.audit_object(value),
        Patch::Apply { configuration, .. } => target.call.audit_object(configuration),
    }
    let writer = Writer::new(target, options);
    let request = writer.request();
    let (registry, name) = (&target.call.server.registry, &target.path.name);
    let written = registry.patch(&request, &target.def, namespace(target), name, sub, &patch).await;
    target.call.warn(request.take_warnings());
    let written = written?;
    view::object(target, format, code(written.created), &written.object)
}

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";
const APPLY_PATCH_CBOR: &str = "application/apply-patch+cbor";
/// Upstream's bound: more operations cost more than an object is worth.
const MAX_OPERATIONS: usize = 10_000;

fn check_patch_type(def: &ResourceDef, kind: &str, cbor: bool) -> Result<(), Box<Status>> {
    let custom = def.schema.is_some();
    let mut known = vec![JSON_PATCH, MERGE_PATCH, APPLY_PATCH];
    known.extend(cbor.then_some(APPLY_PATCH_CBOR));
    match kind {
        kind if known.contains(&kind) => Ok(()),
        STRATEGIC_PATCH if !custom => Ok(()),
        _ if custom => Err(decode::unknown_format(&known.join(", "))),
        _ => {
            let status = Status::failure(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type");
            Err(Box::new(status.with_details(Details::default())))
        }
    }
}

fn read_patch(kind: &str, bytes: &[u8], force: bool) -> Result<Patch, Box<Status>> {
    if kind == APPLY_PATCH_CBOR {
        let configuration = pintle_schema::cbor::decode(bytes, Limits::default())
            .map_err(|e| Box::new(Status::bad_request(format!("error decoding CBOR: {e}"))))?;
        return Ok(Patch::Apply { configuration, force });
    }
    if kind == APPLY_PATCH {
        let decoded = pintle_schema::decode::yaml(bytes, Limits::default())
            .map_err(|e| Box::new(Status::bad_request(format!("error decoding YAML: {e}"))))?;
        return Ok(Patch::Apply { configuration: decoded.value, force });
    }
    let decoded = pintle_schema::decode::json(bytes, Limits::default())
        .map_err(|e| Box::new(Status::bad_request(format!("error decoding patch: {e}"))))?;
    match kind {
        JSON_PATCH => {
            let count = decoded.value.as_array().map_or(0, Vec::len);
            if count > MAX_OPERATIONS {
                let message =
                    format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}");
                return Err(Box::new(Status::failure(413, Reason::RequestEntityTooLarge, message)));
            }
            Ok(Patch::Json(decoded.value))
        }
        MERGE_PATCH => Ok(Patch::Merge(decoded.value)),
        _ => Ok(Patch::Strategic(decoded.value)),
    }
}

pub(crate) async fn delete(target: &Target<'_>) -> Answer {
    let format = target.negotiate(Shape::Object)?;
    let (delete, options) = delete_options(target).await?;
    warn_of_orphans(target, &delete);
    let writer = Writer::new(target, options);
    let request = writer.request();
    let (registry, name) = (&target.call.server.registry, &target.path.name);
    let deletion = registry.delete(&request, &target.def, namespace(target), name, &delete).await;
    target.call.warn(request.take_warnings());
    match deletion? {
        Deletion::Done(status) => Ok(response::status(StatusCode::OK, &status, &target.call.headers)),
        Deletion::Object(object) => view::object(target, format, StatusCode::OK, &object),
    }
}

pub(crate) async fn delete_collection(target: &Target<'_>) -> Answer {
    let format = target.negotiate(Shape::List)?;
    let which = options::list_options(&target.call.query)?;
    let (delete, options) = delete_options(target).await?;
    warn_of_orphans(target, &delete);
    let writer = Writer::new(target, options);
    let request = writer.request();
    let registry = &target.call.server.registry;
    let list = registry.delete_collection(&request, &target.def, namespace(target), &delete, &which).await;
    target.call.warn(request.take_warnings());
    view::list(target, format, &list?)
}

fn warn_of_orphans(target: &Target<'_>, delete: &DeleteOptions) {
    if delete.propagation_policy.is_none() && delete.orphan_dependents.is_none() {
        target.call.warn(target.def.strategy.warning_of_orphans().map(str::to_owned));
    }
}

/// The options of a deletion: the body's if there is one, else the query's.
async fn delete_options(target: &Target<'_>) -> Result<(DeleteOptions, WriteOptions), Box<Status>> {
    let query = &target.call.query;
    let bytes = target.call.read_body().await?;
    let mut errors = ErrorList::new();
    let mut dry_run = options::dry_run(query, &mut errors);
    let mut delete = DeleteOptions {
        grace_period_seconds: query.number("gracePeriodSeconds")?,
        orphan_dependents: query.optional_flag("orphanDependents"),
        propagation_policy: query.get("propagationPolicy").map(str::to_owned),
        ..DeleteOptions::default()
    };
    if !bytes.is_empty() {
        let encoding = decode::encoding(&target.call.headers, Offers { protobuf: true, ..target.offers() })?;
        let value = delete_body(&bytes, encoding)?;
        target.call.audit_object(&value);
        dry_run |= value["dryRun"].as_array().is_some_and(|list| !list.is_empty());
        delete = serde_json::from_value(value).map_err(|e| {
            Box::new(Status::bad_request(format!(
                "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {e}"
            )))
        })?;
    }
    check_propagation(&delete, &mut errors);
    if !errors.is_empty() {
        let kind = GroupKind { group: "meta.k8s.io".into(), kind: "DeleteOptions".into() };
        return Err(Box::new(Status::invalid(&kind, "", &errors)));
    }
    let options =
        WriteOptions { dry_run, field_manager: String::new(), field_validation: Default::default(), force: false };
    Ok((delete, options))
}

fn delete_body(bytes: &[u8], encoding: decode::Encoding) -> Result<Value, Box<Status>> {
    let decoded = match encoding {
        decode::Encoding::Protobuf => return decode::protobuf(bytes, ("v1", "DeleteOptions")),
        decode::Encoding::Cbor => {
            return pintle_schema::cbor::decode(bytes, Limits::default())
                .map_err(|e| Box::new(Status::bad_request(e.to_string())));
        }
        decode::Encoding::Json => pintle_schema::decode::json(bytes, Limits::default()),
        decode::Encoding::Yaml => pintle_schema::decode::yaml(bytes, Limits::default()),
    };
    let value = decoded.map_err(|e| Box::new(Status::bad_request(e.to_string())))?.value;
    if value.is_object() { Ok(value) } else { Err(Box::new(Status::bad_request("the body is no DeleteOptions"))) }
}

fn check_propagation(delete: &DeleteOptions, errors: &mut ErrorList) {
    let path = Path::new("propagationPolicy");
    let policy = delete.propagation_policy.as_deref();
    if policy.is_some() && delete.orphan_dependents.is_some() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid(&path, policy.unwrap_or_default(), detail));
    } else if let Some(other) = policy.filter(|p| !matches!(*p, "Foreground" | "Background" | "Orphan")) {
        errors.push(FieldError::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]));
    }
}
