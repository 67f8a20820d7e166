//! Watches namespaces; deletes the contents of those that are being deleted, pods before all else.

use super::plan::{Progress, status};
use crate::context::Context;
use crate::discovery::{Resource, discover};
use crate::metadata::Metadata;
use pintle_client::{ClientError, DeleteOptions, Propagation, unless_missing};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::{Namespace, Pod};
use pintle_types::{Kind, ObjectKey};
use std::time::Duration;

const WORKERS: usize = 4;
const FINALIZER: &str = "kubernetes";
/// How long to wait before looking again at contents that did not go at once. The end of pods is seen at once.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let namespaces = context.informers.of::<Namespace>();
    let queue: Queue<ObjectKey> = Queue::new();
    let from_namespaces = queue.clone();
    namespaces.on_change(move |change| {
        if change.new().is_some_and(|namespace| namespace.is_deleting()) {
            from_namespaces.add(change.object().key());
        }
    });
    let (ending, from_pods) = (namespaces.clone(), queue.clone());
    context.informers.of::<Pod>().on_change(move |change| {
        let key = ObjectKey::new("", change.object().namespace());
        if change.new().is_none() && ending.get(&key).is_some_and(|namespace| namespace.is_deleting()) {
            from_pods.add(key);
        }
    });
    namespaces.synced().await;
    let reconcile = |key| reconcile(&context, &namespaces, key);
    run_reconciler("namespace-controller", queue, WORKERS, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    namespaces: &Informer<Namespace>,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(namespace) = namespaces.get(&key).filter(|namespace| namespace.is_deleting()) else {
        return Ok(Outcome::Done);
    };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Outcome::Done);
    }
    let progress = empty(context, &key.name).await?;
    let old = namespace.status.clone().unwrap_or_default();
    let new = status(&old, &progress, context.now());
    let mut current = Namespace::clone(&namespace);
    if new != old {
        current.status = Some(new);
        let Some(written) = unless_missing(context.client.update_status(&current).await)? else {
            return Ok(Outcome::Done);
        };
        current = written;
    }
    if !progress.is_complete() {
        return Ok(Outcome::After(LOOK_AGAIN));
    }
    current.spec.get_or_insert_default().finalizers =
        Some(finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect());
    unless_missing(context.client.update_sub(&current, "finalize").await)?;
    Ok(Outcome::Done)
}

/// Deletes everything in a namespace, and tells what is left.
async fn empty(context: &Context, namespace: &str) -> Result<Progress, ClientError> {
    let found = discover(&context.client).await?;
    let mut progress = Progress { undiscovered: found.failed, ..Progress::default() };
    let deletable = |resource: &&Resource| resource.namespaced && resource.can(&["delete", "list"]);
    let is_pods = |resource: &&Resource| resource.group.is_empty() && resource.resource == "pods";
    let resources = || found.resources.iter().filter(deletable);
    // Pods may need the rest (their ConfigMaps, their NetworkPolicies) until they have ended.
    for resource in resources().filter(is_pods) {
        delete_all(context, namespace, resource, &mut progress).await;
    }
    if progress.remaining.is_empty() {
        for resource in resources().filter(|resource| !is_pods(resource)) {
            delete_all(context, namespace, resource, &mut progress).await;
        }
    }
    Ok(progress)
}

async fn delete_all(context: &Context, namespace: &str, resource: &Resource, progress: &mut Progress) {
    if let Err(error) = try_delete_all(context, namespace, resource, progress).await
        && !error.is_not_found()
    {
        progress.failures.push(error.to_string());
    }
}

async fn try_delete_all(
    context: &Context,
    namespace: &str,
    resource: &Resource,
    progress: &mut Progress,
) -> Result<(), ClientError> {
    let (client, collection) = (&context.client, resource.path(namespace, ""));
    let mut objects = Metadata::list(client, &collection).await?;
    if objects.is_empty() {
        return Ok(());
    }
    let options = DeleteOptions { propagation_policy: Some(Propagation::Background), ..DeleteOptions::default() };
    if resource.can(&["deletecollection"]) {
        client.delete_path(&collection, &options).await?;
    } else {
        for object in &objects {
            unless_missing(client.delete_path(&resource.path(namespace, &object.name), &options).await)?;
        }
    }
    objects = Metadata::list(client, &collection).await?;
    if !objects.is_empty() {
        progress.remaining.insert(format!("{}.{}", resource.resource, resource.group), objects.len());
    }
    for finalizer in objects.into_iter().flat_map(|object| object.finalizers) {
        *progress.finalizers.entry(finalizer).or_default() += 1;
    }
    Ok(())
}
