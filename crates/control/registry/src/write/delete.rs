//! Deleting one object.

use super::create::shared;
use super::plan::{Plan, check_options, plan};
use super::{ATTEMPTS, Attempt, Current, MODIFIED, Target, meta, set_revision};
use crate::admission::Operation;
use crate::convert::inward;
use crate::object::Deletion;
use crate::registry::Registry;
use crate::request::{DeleteOptions, Request};
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use pintle_types::status::Details;
use serde_json::Value;

impl Registry {
    pub async fn delete(
        &self,
        by: &Request<'_>,
        def: &ResourceDef,
        ns: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deletion, Status> {
        check_options(options)?;
        let target = Target { by, def, ns, name, sub: "" };
        self.reach_newest().await?;
        let mut current = self.current_in(def, ns, name).await?;
        for _ in 0..ATTEMPTS {
            let old = current.as_ref().ok_or_else(|| target.not_found())?;
            match self.try_delete(&target, old, options).await? {
                Attempt::Done(deletion) => return Ok(deletion),
                Attempt::Stale(newer) => current = inward(def, newer).await?,
            }
        }
        Err(target.conflict(MODIFIED))
    }

    async fn try_delete(
        &self,
        target: &Target<'_>,
        old: &Current,
        options: &DeleteOptions,
    ) -> Result<Attempt<Deletion>, Status> {
        check_preconditions(target.def, &old.value, options)?;
        self.judge(target, Operation::Delete, None, Some(&shared(target, &old.value))).await?;
        match plan(target.def, &old.value, options, self.clock.now_seconds()) {
            Plan::Refuse(why) => Err(target.conflict(why)),
            Plan::Wait => Ok(Attempt::Done(Deletion::Object(target.shown(&old.value).into()))),
            Plan::Mark(marked) => self.mark_deleted(target, marked, old).await,
            Plan::Remove(last) => {
                if !target.by.dry_run
                    && let Attempt::Stale(newer) = self.remove(target, old).await?
                {
                    return Ok(Attempt::Stale(newer));
                }
                Ok(Attempt::Done(answer(target, &last)))
            }
        }
    }

    async fn mark_deleted(
        &self,
        target: &Target<'_>,
        marked: Value,
        old: &Current,
    ) -> Result<Attempt<Deletion>, Status> {
        let mut marked = marked;
        if !target.by.dry_run && marked != *old.value {
            match self.swap(target.def, target.key(), old.revision, &marked).await? {
                Attempt::Stale(newer) => return Ok(Attempt::Stale(newer)),
                Attempt::Done(revision) => set_revision(&mut marked, revision),
            }
        }
        Ok(Attempt::Done(Deletion::Object(target.shown(&marked).into())))
    }
}

/// What is answered about an object that is gone.
fn answer(target: &Target<'_>, last: &Value) -> Deletion {
    if answers_with_object(target.def) {
        return Deletion::Object(target.shown(last).into());
    }
    let details = Details {
        name: target.name.into(),
        group: target.def.group.clone(),
        kind: target.def.resource.clone(),
        uid: meta(last, "uid").into(),
        ..Details::default()
    };
    Deletion::Done(Box::new(Status::success(details)))
}

/// The kinds whose deletion shows the object for the last time.
fn answers_with_object(def: &ResourceDef) -> bool {
    let resource = def.storage.resource.as_str();
    match &*def.storage.group {
        "" => matches!(
            resource,
            "namespaces"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ),
        "apiextensions.k8s.io" => resource == "customresourcedefinitions",
        "storage.k8s.io" => {
            matches!(
                resource,
                "csidrivers" | "csinodes" | "storageclasses" | "volumeattachments" | "volumeattributesclasses"
            )
        }
        "resource.k8s.io" => matches!(resource, "resourceclaims" | "resourceclaimtemplates" | "deviceclasses"),
        _ => false,
    }
}

/// The uid and the resourceVersion that the caller asked for must be the object's.
pub(super) fn check_preconditions(def: &ResourceDef, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let (storage, name) = (&def.storage, meta(old, "name"));
    let conflict = |why: &str| Status::conflict(&storage.group, &storage.kind, name, why);
    let (uid, version) = (meta(old, "uid"), meta(old, "resourceVersion"));
    if let Some(wanted) = wanted.uid.as_deref().filter(|wanted| *wanted != uid) {
        if matches!(&*storage.resource, "namespaces" | "customresourcedefinitions") {
            let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
            return Err(Status::conflict(&def.group, &def.resource, name, &why));
        }
        return Err(conflict(&format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        )));
    }
    match wanted.resource_version.as_deref().filter(|wanted| *wanted != version) {
        None => Ok(()),
        Some(wanted) => Err(conflict(&format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). \
             The object might have been modified"
        ))),
    }
}
