//! What a PUT or PATCH makes of an object: the new object, in the version of the request.

use super::{Target, manager, meta, metadata_mut};
use crate::read::PlainStatus;
use crate::registry::Registry;
use crate::request::{FieldValidation, Patch};
use pintle_schema::apply::{ApplyError, apply};
use pintle_schema::patch::PatchError;
use pintle_schema::{TypeRef, check, patch};
use pintle_types::field::{FieldError, Path};
use pintle_types::names::GroupKind;
use pintle_types::status::{Cause, Details};
use pintle_types::{Reason, Status};
use serde_json::Value;

pub(super) enum Body<'a> {
    Put(&'a Value),
    Patch(&'a Patch),
}

impl Body<'_> {
    /// Whether the body creates the object when it is absent.
    pub(super) fn creates(&self, target: &Target<'_>) -> bool {
        match self {
            Self::Put(_) => target.sub.is_empty() && target.def.strategy.allow_create_on_update(),
            Self::Patch(patch) => target.sub.is_empty() && matches!(patch, Patch::Apply { .. }),
        }
    }

    /// The new object with its managed fields; `old` is what is there, complete, in the version of the request.
    pub(super) fn make(&self, registry: &Registry, target: &Target<'_>, old: Option<&Value>) -> Result<Value, Status> {
        let mut new = match self {
            Self::Put(object) => (*object).clone(),
            Self::Patch(Patch::Apply { configuration, force }) => {
                let mut new = applied(registry, target, old, configuration, *force)?;
                metadata_mut(&mut new).entry("name").or_insert_with(|| target.name.into());
                super::create::check_namespace(target, &mut new)?;
                target.complete(&mut new);
                return Ok(new);
            }
            Self::Patch(patch) => {
                let Some(old) = old else { return Err(target.not_found()) };
                patched(target, target.def.type_ref(), old, patch)?
            }
        };
        super::create::check_namespace(target, &mut new)?;
        target.complete(&mut new);
        registry.record_manager(target, old, &mut new);
        Ok(new)
    }
}

/// The name in a body must be that of the path.
pub(super) fn check_name(target: &Target<'_>, object: &Value) -> Result<(), Status> {
    let (own, name) = (meta(object, "name"), target.name);
    if own.is_empty() {
        let why = format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
        return Err(Status::bad_request(why));
    }
    if own != name {
        let why = format!("the name of the object ({own}) does not match the name on the URL ({name})");
        return Err(Status::bad_request(why));
    }
    Ok(())
}

fn applied(
    registry: &Registry,
    target: &Target<'_>,
    old: Option<&Value>,
    configuration: &Value,
    force: bool,
) -> Result<Value, Status> {
    let ty = target.def.type_ref().ok_or_else(|| Status::internal("the kind has no schema to apply with"))?;
    check_configuration(target, configuration)?;
    let (api_version, time) = (target.def.api_version(), registry.now());
    let by = manager(target, &api_version, &time);
    apply(ty, old, configuration.clone(), by, force, target.def.strategy.reset_fields(target.sub)).map_err(apply_status)
}

/// A configuration may leave out the name and the namespace of the path, but not contradict them.
fn check_configuration(target: &Target<'_>, configuration: &Value) -> Result<(), Status> {
    if !meta(configuration, "name").is_empty() {
        check_name(target, configuration)?;
    }
    super::create::contradicts_namespace(target, configuration)
}

pub(super) fn apply_status(error: ApplyError) -> Status {
    let message = error.to_string();
    match error {
        ApplyError::BadRequest(message) => Status::bad_request(message),
        ApplyError::Typed(message) => Status::plain_internal(message),
        ApplyError::Conflicts(conflicts) => {
            let cause = |conflict: pintle_schema::apply::Conflict| Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {}", conflict.manager),
                field: conflict.field,
            };
            let causes = conflicts.into_iter().map(cause).collect();
            Status::failure(409, Reason::Conflict, message).with_details(Details { causes, ..Details::default() })
        }
    }
}

/// Applies a patch that is no apply, and checks that the result is still an object of its kind.
pub(super) fn patched(
    target: &Target<'_>,
    ty: Option<TypeRef<'_>>,
    old: &Value,
    patch: &Patch,
) -> Result<Value, Status> {
    let mut new = old.clone();
    let done = match (patch, ty) {
        (Patch::Json(operations), _) => patch::json(&mut new, operations),
        (Patch::Merge(patch), _) => patch::merge(&mut new, patch),
        (Patch::Strategic(patch), Some(ty)) => patch::strategic(ty, &mut new, patch),
        (Patch::Strategic(_), None) | (Patch::Apply { .. }, _) => {
            Err(PatchError::Malformed("the kind does not support this kind of patch".into()))
        }
    };
    done.map_err(patch_status)?;
    if let Some(ty) = ty {
        check_patched(target, ty, &mut new, patch)?;
    }
    Ok(new)
}

fn patch_status(error: PatchError) -> Status {
    match error {
        PatchError::Malformed(message) => Status::bad_request(message),
        PatchError::Internal(message) => Status::plain_internal(message),
        PatchError::Invalid { shown, detail } => invalid_patch(shown, &detail),
        PatchError::TooLarge { .. } => Status::failure(413, Reason::RequestEntityTooLarge, error.to_string()),
        // Upstream hides what is wrong behind these words.
        PatchError::Rejected(_) => {
            Status::failure(422, Reason::Invalid, "the server rejected our request due to an error in our request")
                .with_details(Details::default())
        }
    }
}

fn check_patched(target: &Target<'_>, ty: TypeRef<'_>, new: &mut Value, patch: &Patch) -> Result<(), Status> {
    let shown = || match patch {
        Patch::Strategic(patch) => go_syntax(patch),
        _ => new_json(new),
    };
    if let Err(why) = check::types(ty, new) {
        return Err(invalid_patch(shown(), &why));
    }
    if target.by.field_validation == FieldValidation::Ignore {
        check::unknown_fields(ty, new);
        return Ok(());
    }
    let shown = (target.by.field_validation == FieldValidation::Strict).then(shown);
    let unknown = check::unknown_fields(ty, new);
    match shown {
        Some(shown) if !unknown.is_empty() => {
            Err(invalid_patch(shown, &format!("strict decoding error: {}", unknown.join(", "))))
        }
        _ => {
            unknown.into_iter().for_each(|warning| target.by.warn(warning));
            Ok(())
        }
    }
}

fn new_json(value: &Value) -> String {
    value.to_string()
}

fn invalid_patch(shown: String, why: &str) -> Status {
    let error = FieldError::invalid(&Path::new("patch"), shown, why);
    Status::invalid(&GroupKind::default(), "", &vec![error])
}

/// A tree as Go's `%+v` prints it: `map[a:b c:[1 2]]`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_syntax).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}:{}", go_syntax(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trees_print_as_go_prints_them() {
        let value = json!({"spec": {"b": [1, "x", null], "a": true}});
        assert_eq!(go_syntax(&value), "map[spec:map[a:true b:[1 x <nil>]]]");
    }
}
