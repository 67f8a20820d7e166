//! Watches quotas and what frees something of them, and keeps their status.

use super::counts::Counts;
use super::plan::{self, Present};
use crate::context::Context;
use crate::discovery::discover;
use pintle_client::{Client, ClientError, ListOptions, unless_missing};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_quota::{Resource, parse, to_value};
use pintle_types::k8s::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// What admission charged may never have been stored: it is counted again after this time.
const RECOUNT: Duration = Duration::from_secs(30);
/// A kind that nobody serves may come to be served: its name is looked up again after this time.
const RESYNC: Duration = Duration::from_secs(300);

struct Controller {
    context: Context,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    counts: Counts,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let informers = &context.informers;
    let queue: Queue<ObjectKey> = Queue::new();
    let quotas: Informer<ResourceQuota> = informers.of();
    let (of_namespace, from_counts) = (quotas.clone(), queue.clone());
    let freed = move |namespace: Option<&str>| {
        let quotas = match namespace {
            Some(namespace) => of_namespace.in_namespace(namespace),
            None => of_namespace.list(),
        };
        quotas.iter().for_each(|quota| from_counts.add(quota.key()));
    };
    let controller = Controller {
        counts: Counts::new(context.client.clone(), context.stop.clone(), Arc::new(freed)),
        quotas,
        pods: informers.of(),
        services: informers.of(),
        claims: informers.of(),
        context: context.clone(),
    };
    let from_quotas = queue.clone();
    controller.quotas.on_change(move |change| match change {
        Change::Modified(_, new) if is_counted(new) => from_quotas.add_after(new.key(), RECOUNT),
        other => from_quotas.add(other.object().key()),
    });
    freed_by(&controller.pods, &controller.quotas, &queue, |change| match change {
        Change::Modified(old, new) => is_over(new) && !is_over(old),
        other => other.new().is_none(),
    });
    freed_by(&controller.services, &controller.quotas, &queue, |change| match change {
        Change::Modified(old, new) => old.spec != new.spec,
        other => other.new().is_none(),
    });
    freed_by(&controller.claims, &controller.quotas, &queue, |change| match change {
        Change::Modified(old, new) => old.spec != new.spec,
        other => other.new().is_none(),
    });
    controller.quotas.synced().await;
    controller.pods.synced().await;
    controller.services.synced().await;
    controller.claims.synced().await;
    let reconcile = |key| controller.reconcile(key);
    run_reconciler("resourcequota-controller", queue, 2, reconcile, context.stop.clone()).await;
}

/// Counts the quotas of a namespace again when one of its objects frees something.
fn freed_by<K: Kind>(
    objects: &Informer<K>,
    quotas: &Informer<ResourceQuota>,
    queue: &Queue<ObjectKey>,
    frees: impl Fn(&Change<K>) -> bool + Send + Sync + 'static,
) {
    let (quotas, queue) = (quotas.clone(), queue.clone());
    objects.on_change(move |change| {
        if frees(change) {
            quotas.in_namespace(change.object().namespace()).iter().for_each(|quota| queue.add(quota.key()));
        }
    });
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the status is about the limits as they are now.
fn is_counted(quota: &ResourceQuota) -> bool {
    let wanted = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let counted = quota.status.as_ref().and_then(|status| status.hard.as_ref());
    wanted == counted
}

fn values<K: Kind + serde::Serialize>(objects: Vec<Arc<K>>) -> Vec<Value> {
    objects.iter().filter_map(|object| serde_json::to_value(&**object).ok()).collect()
}

/// The kinds whose objects are looked at, not only counted.
const COUNTED_WHOLE: usize = 3;

fn present(pods: Vec<Value>, services: Vec<Value>, claims: Vec<Value>) -> [Present<'static>; COUNTED_WHOLE] {
    let of = |resource, objects| Present { resource: Resource::new("", resource), objects };
    [of("pods", pods), of("services", services), of("persistentvolumeclaims", claims)]
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ClientError> {
        self.counts.keep(&self.counted_by_all());
        let Some(quota) = self.quotas.get(&key).filter(|quota| !quota.is_deleting()) else { return Ok(Outcome::Done) };
        let value = serde_json::to_value(&*quota)?;
        let counted = plan::counted(&parse(&value["spec"]["hard"]));
        // What can't be counted must not look as if it were gone.
        let Some(known) = self.count(&key.namespace, &counted).await? else { return Ok(Outcome::After(RECOUNT)) };
        let again = if known.len() == counted.len() { Outcome::Done } else { Outcome::After(RESYNC) };
        let now = self.context.now().as_second();
        let of_informers = self.seen(&key.namespace).into_iter().chain(known).collect::<Vec<_>>();
        let (hard, mut used) = plan::status(&value, &of_informers, now);
        if plan::lowers(&parse(&value["status"]["used"]), &used) {
            // An informer that lags has not seen what was just charged: the server itself is asked.
            let known = of_informers.into_iter().skip(COUNTED_WHOLE);
            let stored = self.stored(&key.namespace).await?.into_iter().chain(known).collect::<Vec<_>>();
            used = plan::status(&value, &stored, now).1;
        }
        if parse(&value["status"]["hard"]) == hard && parse(&value["status"]["used"]) == used {
            return Ok(again);
        }
        // With the resourceVersion of the quota that was read before the count: a charge in between is a conflict.
        let mut changed = ResourceQuota::clone(&quota);
        changed.status = serde_json::from_value(json!({"hard": to_value(&hard), "used": to_value(&used)})).ok();
        unless_missing(self.context.client.update_status(&changed).await)?;
        Ok(again)
    }

    /// The objects that are counted by what they ask for, as informers know them.
    fn seen(&self, namespace: &str) -> [Present<'static>; COUNTED_WHOLE] {
        present(
            values(self.pods.in_namespace(namespace)),
            values(self.services.in_namespace(namespace)),
            values(self.claims.in_namespace(namespace)),
        )
    }

    /// The same, as they are stored now.
    async fn stored(&self, namespace: &str) -> Result<[Present<'static>; COUNTED_WHOLE], ClientError> {
        async fn listed<K: Kind + serde::Serialize>(
            client: &Client,
            namespace: &str,
        ) -> Result<Vec<Value>, ClientError> {
            let list = client.list::<K>(namespace, &ListOptions::default()).await?;
            Ok(list.items.iter().filter_map(|object| serde_json::to_value(object).ok()).collect())
        }
        let client = &self.context.client;
        Ok(present(
            listed::<Pod>(client, namespace).await?,
            listed::<Service>(client, namespace).await?,
            listed::<PersistentVolumeClaim>(client, namespace).await?,
        ))
    }

    /// The kinds that quotas count, of all namespaces.
    fn counted_by_all(&self) -> HashSet<(String, String)> {
        let hard = |quota: &ResourceQuota| quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let names = |quota: Arc<ResourceQuota>| plan::counted_names(hard(&quota).keys());
        self.quotas.list().into_iter().flat_map(names).collect()
    }

    /// As many empty objects as there are of each kind, without those that nobody serves; nothing when one of them can't be
    /// counted now.
    async fn count<'a>(
        &self,
        namespace: &str,
        kinds: &'a [(String, String)],
    ) -> Result<Option<Vec<Present<'a>>>, ClientError> {
        if kinds.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let served = discover(&self.context.client).await?.resources;
        let mut found = Vec::new();
        for (group, resource) in kinds {
            let same = |known: &&crate::discovery::Resource| {
                known.group == *group && known.resource == *resource && known.can(&["list", "watch"])
            };
            let Some(known) = served.iter().find(same) else { continue };
            let Some(number) = self.counts.of(known, namespace).await else { return Ok(None) };
            let objects = vec![Value::Null; number];
            found.push(Present { resource: Resource::new(group, resource), objects });
        }
        Ok(Some(found))
    }
}
