//! Changing objects, through themselves or through a subresource whose body is the object.

use super::body::{Body, check_name};
use super::create::{already_exists, check_namespace, shared};
use super::{ATTEMPTS, Attempt, Current, MODIFIED, Target, meta, metadata_mut, plan, set_revision, verbatim};
use crate::admission::Operation;
use crate::codec;
use crate::convert::inward;
use crate::object::Written;
use crate::registry::Registry;
use crate::request::{Patch, Request};
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use pintle_types::field::{ErrorKind, FieldError, Path};
use serde_json::Value;

impl Registry {
    /// PUT. `sub` is empty for the object itself, or `status`, `scale`, `finalize` and the like.
    pub async fn update(
        &self,
        by: &Request<'_>,
        def: &ResourceDef,
        ns: &str,
        name: &str,
        sub: &str,
        object: Value,
    ) -> Result<Written, Status> {
        let target = Target { by, def, ns, name, sub };
        let mut object = object;
        check_name(&target, &object)?;
        check_namespace(&target, &mut object)?;
        self.dispatch(&target, &Body::Put(&object)).await
    }

    pub async fn patch(
        &self,
        by: &Request<'_>,
        def: &ResourceDef,
        ns: &str,
        name: &str,
        sub: &str,
        patch: &Patch,
    ) -> Result<Written, Status> {
        self.dispatch(&Target { by, def, ns, name, sub }, &Body::Patch(patch)).await
    }

    async fn dispatch(&self, target: &Target<'_>, body: &Body<'_>) -> Result<Written, Status> {
        if !target.sub.is_empty() && target.def.subresource(target.sub).is_none() {
            return Err(Status::no_such_resource());
        }
        self.reach_newest().await?;
        let mut current = self.current_in(target.def, target.ns, target.name).await?;
        for _ in 0..ATTEMPTS {
            let attempt = match &current {
                Some(old) if target.sub == "scale" => self.change_scale(target, body, old).await?,
                Some(old) => self.change(target, body, old).await?,
                None if body.creates(target) => self.change_absent(target, body).await?,
                None => return Err(target.not_found()),
            };
            match attempt {
                Attempt::Done(written) => return Ok(written),
                Attempt::Stale(newer) => current = inward(target.def, newer).await?,
            }
        }
        Err(target.conflict(MODIFIED))
    }

    /// Makes the object that a PUT or an apply names.
    async fn change_absent(&self, target: &Target<'_>, body: &Body<'_>) -> Result<Attempt<Written>, Status> {
        let new = body.make(self, target, None)?;
        let new = self.admit(target, Operation::Create, new, None).await?;
        match self.create_admitted(target, new).await? {
            Attempt::Done(created) => Ok(Attempt::Done(Written { object: created, created: true })),
            Attempt::Stale(existing) if target.by.dry_run => {
                Err(already_exists(target.def, target.name, existing.as_ref().map(|e| &*e.value)))
            }
            Attempt::Stale(existing) => Ok(Attempt::Stale(existing)),
        }
    }

    async fn change(&self, target: &Target<'_>, body: &Body<'_>, old: &Current) -> Result<Attempt<Written>, Status> {
        let shown = shared(target, &old.value);
        if let Body::Put(object) = body {
            check_uid(target, object, &old.value)?;
        }
        let new = body.make(self, target, Some(&shown))?;
        let mut new = self.admit(target, Operation::Update, new, Some(&shown)).await?;
        target.complete_again(&mut new);
        check_version(target, &new, old)?;
        target.def.to_storage(&mut new);
        self.store_changed(target, new, old).await
    }

    /// Prepares, validates and stores a changed object, given in the stored version's form.
    pub(super) async fn store_changed(
        &self,
        target: &Target<'_>,
        new: Value,
        old: &Current,
    ) -> Result<Attempt<Written>, Status> {
        let mut new = new;
        keep_identity(&mut new, &old.value);
        // A scale is written through the object itself.
        let itself = matches!(target.sub, "" | "scale");
        if itself {
            target.def.prepare_update(&mut new, &old.value);
        } else {
            target.def.prepare_subresource_update(target.sub, &mut new, &old.value);
        }
        target.def.strategy.stamp(target.sub, &mut new, Some(&old.value), self.clock.now_seconds());
        let addresses =
            if itself { self.allocate(target, &mut new, Some(&old.value)).await? } else { Default::default() };
        self.settle(target, &mut new);
        // Upstream looks at metadata twice, and tells the causes twice.
        let mut errors = pintle_kinds::validate_metadata_update(&new, &old.value);
        errors.extend(if itself {
            target.def.validate_update(&new, &old.value)
        } else {
            target.def.validate_subresource_update(target.sub, &new, &old.value)
        });
        errors.extend(self.rewritten(target, &new, old)?);
        target.invalid(target.name, &errors)?;
        let warnings = if itself {
            target.def.strategy.warnings(&new, Some(&old.value))
        } else {
            target.def.strategy.subresource_warnings(target.sub, &new)
        };
        warnings.into_iter().for_each(|warning| target.by.warn(warning));
        if target.sub != "scale" {
            let shown = shared(target, &old.value);
            new = self.judge_stored(target, Operation::Update, new, Some(&shown)).await?;
        }
        self.read_back(target, &mut new);
        set_revision(&mut new, old.revision);
        let done = |object: &Value| {
            let object = target.shown(object).into();
            Ok(Attempt::Done(Written { object, created: false }))
        };
        let stale = || {
            self.store.is_stale(target.def.storage.key(target.ns, target.name).as_bytes())
                || self.is_of_old_version(target)
        };
        if target.by.dry_run || (new == *old.value && !plan::is_finished(target.def, &new) && !stale()) {
            return done(&new);
        }
        if plan::is_finished(target.def, &new) {
            return match self.remove(target, old).await? {
                Attempt::Stale(newer) => Ok(Attempt::Stale(newer)),
                Attempt::Done(_) => done(&new),
            };
        }
        match self.swap_with(target, old.revision, &new, addresses).await? {
            Attempt::Stale(newer) => Ok(Attempt::Stale(newer)),
            Attempt::Done(put) => {
                let object = target.answered(new, &put);
                Ok(Attempt::Done(Written { object, created: false }))
            }
        }
    }
}

impl Registry {
    /// Whether an object is stored in a version that is not the one to store any more, which the converted form of it
    /// does not show.
    fn is_of_old_version(&self, target: &Target<'_>) -> bool {
        let stored = || self.entry(target.def, target.ns, target.name).ok().flatten();
        target.def.strategy.converter().is_some()
            && stored().is_some_and(|entry| !entry.is_of(&target.def.storage.api_version()))
    }

    /// What is wrong when an update writes the verbatim field with other white space than it is stored with.
    fn rewritten(&self, target: &Target<'_>, new: &Value, old: &Current) -> Result<Option<FieldError>, Status> {
        let Some(field) = target.def.strategy.verbatim_field() else { return Ok(None) };
        let given = verbatim(target, new);
        if new.get(field) != old.value.get(field) || given.is_none() && same_but_version(new, &old.value) {
            return Ok(None);
        }
        let stored = self.entry(target.def, target.ns, target.name)?.filter(|entry| entry.revision() == old.revision);
        let before = stored.is_some_and(|entry| codec::has_spaces(entry.stored(), field));
        let now = given.is_some_and(|(_, text)| codec::is_spaced(text));
        let error = || FieldError::invalid(&Path::new(field), new[field].clone(), "field is immutable");
        Ok((before != now).then(error))
    }
}

fn same_but_version(new: &Value, old: &Value) -> bool {
    let mut new = new.clone();
    metadata_mut(&mut new).insert("resourceVersion".into(), old["metadata"]["resourceVersion"].clone());
    new == *old
}

/// A uid in the body must be the object's.
fn check_uid(target: &Target<'_>, object: &Value, old: &Value) -> Result<(), Status> {
    let (asked, uid) = (meta(object, "uid"), meta(old, "uid"));
    if asked.is_empty() || asked == uid {
        return Ok(());
    }
    let key = target.def.storage.key(target.ns, target.name);
    Err(target.conflict(&format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         UID in precondition: {asked}, UID in object meta: {uid}"
    )))
}

/// A resourceVersion in the body must be the object's; some kinds do not allow to leave it out.
pub(super) fn check_version(target: &Target<'_>, new: &Value, old: &Current) -> Result<(), Status> {
    let asked = meta(new, "resourceVersion");
    if matches!(asked, "" | "0") {
        if target.def.strategy.allow_unconditional_update() {
            return Ok(());
        }
        let path = Path::new("metadata").child("resourceVersion");
        let body = "Invalid value: 0: must be specified for an update".to_owned();
        let error = FieldError::new(ErrorKind::Invalid, &path, body);
        return Err(Status::invalid(&target.group_kind(), target.name, &vec![error]));
    }
    if asked == old.revision.to_string() { Ok(()) } else { Err(target.conflict(MODIFIED)) }
}

/// What an update leaves as it is when the body does not tell.
fn keep_identity(new: &mut Value, old: &Value) {
    let metadata = metadata_mut(new);
    metadata.remove("selfLink");
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let given = metadata.get(field).is_some_and(|value| !value.is_null() && value != "");
        // The body has no say in when the object was made, nor in its deletion once that has begun.
        let ours = field != "uid" || !given;
        match old["metadata"].get(field).filter(|value| !value.is_null()) {
            Some(value) if ours => drop(metadata.insert(field.to_owned(), value.clone())),
            None if !given => drop(metadata.remove(field)),
            _ => {}
        }
    }
}
