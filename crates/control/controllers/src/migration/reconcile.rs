//! Watches migrations, and carries one out from the first object to the last.

use super::plan::{self, Stage};
use crate::context::Context;
use crate::discovery::{Resource, discover};
use crate::metadata::{LIST, Metadata};
use pintle_client::{ClientError, ListOptions, Patch, PatchOptions};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::storagemigration::v1beta1::StorageVersionMigration;
use pintle_types::{Kind, ObjectKey};
use std::ops::ControlFlow;

const WORKERS: usize = 5;
/// Who applies, by upstream's name; it never comes to own a field.
const MANAGER: &str = "storage-version-migrator-controller";

/// What is served where migrations can be asked for; it is off by default.
const VERSION: &str = "/apis/storagemigration.k8s.io/v1beta1";

/// Runs the controller until the context's stop; at once to its end where migrations are not served.
pub async fn run(context: Context) {
    if context.stop.run_until_cancelled(context.client.serves(VERSION)).await != Some(true) {
        return;
    }
    let migrations = context.informers.of::<StorageVersionMigration>();
    let queue: Queue<ObjectKey> = Queue::new();
    let from_migrations = queue.clone();
    migrations.on_change(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            from_migrations.add(change.object().key());
        }
    });
    migrations.synced().await;
    let reconcile = |key| reconcile(&context, &migrations, key);
    run_reconciler("storage-version-migrator-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    migrations: &Informer<StorageVersionMigration>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(known) = migrations.get(&key) else { return Ok(Outcome::Done) };
    let mut migration = StorageVersionMigration::clone(&known);
    if migration.status.as_ref().is_some_and(plan::is_over) {
        return Ok(Outcome::Done);
    }
    let wanted = &migration.spec.as_ref().map(|spec| spec.resource.clone()).unwrap_or_default();
    let found = discover(&context.client).await?;
    let is_it = |resource: &Resource| resource.group == wanted.group && resource.resource == wanted.resource;
    let Some(resource) = found.resources.into_iter().find(is_it) else {
        set(context, &mut migration, Stage::Failed, "resource does not exist in discovery").await?;
        return Ok(Outcome::Done);
    };
    if migration.status.as_ref().is_none_or(|status| status.resource_version.is_none()) {
        let one = ListOptions { limit: 1, ..ListOptions::default() };
        let page = context.client.list_page(&resource.path("", ""), &one, "", LIST).await?;
        migration.status.get_or_insert_default().resource_version = Some(page.resource_version);
    }
    set(context, &mut migration, Stage::Running, "").await?;
    match rewrite_all(context, &resource).await? {
        ControlFlow::Continue(()) => set(context, &mut migration, Stage::Succeeded, "").await?,
        ControlFlow::Break(error) => {
            tracing::warn!(migration = migration.name(), %error, "a migration failed");
            set(context, &mut migration, Stage::Failed, "migration encountered unhandled error").await?;
        }
    }
    Ok(Outcome::Done)
}

/// Writes the stage down, unless it is there already.
async fn set(
    context: &Context,
    migration: &mut StorageVersionMigration,
    stage: Stage,
    message: &str,
) -> Result<(), ClientError> {
    let before = migration.status.clone().unwrap_or_default();
    let after = plan::at(&before, stage, message, &context.time());
    if after != before || migration.status.is_none() {
        migration.status = Some(after);
        *migration = context.client.update_status(migration).await?;
    }
    Ok(())
}

/// Goes through all objects, a page at a time. Breaks with the refusal of one.
async fn rewrite_all(context: &Context, resource: &Resource) -> Result<ControlFlow<ClientError>, ClientError> {
    let (path, mut token) = (resource.path("", ""), String::new());
    let options = PatchOptions { field_manager: MANAGER.into(), ..PatchOptions::default() };
    loop {
        let page = context.client.list_page(&path, &ListOptions::default(), &token, LIST).await?;
        for item in &page.items {
            let object = Metadata::decode(item)?;
            let patch = Patch::Apply(plan::touch(resource, &object));
            match context.client.patch_path(&resource.path(&object.namespace, &object.name), &patch, &options).await {
                // It was changed, deleted or made anew meanwhile: nothing of the old version is left of it.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error @ ClientError::Status(_)) => return Ok(ControlFlow::Break(error)),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        token = page.continue_token;
        if token.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
    }
}
