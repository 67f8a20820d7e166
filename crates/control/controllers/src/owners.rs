//! The start of controllers that own pods: what wakes them, and what they wait to see.

use crate::batches;
use crate::context::Context;
use crate::expectations::Expectations;
use crate::ownership::{BY_CONTROLLER, ORPHANS, controller_of, index_by_owner, owner_key};
use pintle_client::{ClientError, ListOptions};
use pintle_informer::{Change, Informer, Outcome, Queue, run_reconciler};
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::selector::LabelSelector;
use pintle_types::{Kind, ObjectKey};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Until the cache is looked at again, for a pod that the server has and the cache has not. Its arrival wakes the owner
/// earlier; one that is gone before the cache sees it wakes nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Owners of a kind and their pods, with the queue of the owners to look at.
pub struct Owners<K: Kind> {
    pub objects: Informer<K>,
    pub pods: Informer<Pod>,
    pub queue: Queue<ObjectKey>,
    /// The creations and deletions of pods that the controller asked for and that were not seen yet.
    pub expectations: Expectations,
}

impl<K: Kind> Owners<K> {
    /// Watches owners and pods. An owner is woken by what happens to it, to its pods, to one that it loses, and to one
    /// without an owner that it `selects`.
    pub fn watch(context: &Context, selects: fn(&K, &Pod) -> bool) -> Arc<Self> {
        let owners = Arc::new(Self {
            objects: context.informers.of(),
            pods: context.informers.of(),
            queue: Queue::new(),
            expectations: Expectations::default(),
        });
        index_by_owner(&owners.pods);
        let queue = owners.queue.clone();
        owners.objects.on_change(move |change| queue.add(change.object().key()));
        let hearing = Arc::downgrade(&owners);
        owners.pods.on_change(move |change| {
            if let Some(owners) = hearing.upgrade() {
                owners.pod_changed(change, selects);
            }
        });
        owners
    }

    /// Reconciles owners until `stop`, once all of them and their pods are known.
    pub async fn run<F, Fut>(&self, name: &'static str, workers: usize, reconcile: F, stop: CancellationToken)
    where
        F: Fn(ObjectKey) -> Fut + Sync,
        Fut: Future<Output = Result<Outcome, ClientError>> + Send,
    {
        self.objects.synced().await;
        self.pods.synced().await;
        run_reconciler(name, self.queue.clone(), workers, reconcile, stop).await;
    }

    /// The pods of an owner.
    pub fn pods_of(&self, owner: &K) -> Vec<Arc<Pod>> {
        self.pods.by_index(BY_CONTROLLER, owner.uid())
    }

    /// The pods without an owner that might be this one's.
    pub fn orphans_near(&self, owner: &K) -> Vec<Arc<Pod>> {
        self.pods.by_index(ORPHANS, owner.namespace())
    }

    /// Asks for `count` pods of an owner, which are expected already. Returns how many were created, and the first error.
    /// A request without an answer may have made a pod: [`Self::settled`] then finds out.
    pub async fn create<F, Fut>(&self, key: &ObjectKey, count: usize, request: F) -> (usize, Option<ClientError>)
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<(), ClientError>>,
    {
        let one = |at: usize| {
            let asked = request(at);
            async move {
                let result = asked.await;
                if result.as_ref().is_err_and(ClientError::is_undecided) {
                    self.expectations.doubt(key);
                }
                result
            }
        };
        let (created, error) = batches::slow_start(count, one).await;
        self.expectations.created_many(key, count - created);
        (created, error)
    }

    /// Whether all pods that were created and deleted for an owner have been seen, so that more may be. Ask before the
    /// pods are read: what is seen meanwhile is missing among those.
    pub async fn settled(&self, context: &Context, owner: &K, selector: &LabelSelector) -> Result<bool, ClientError> {
        let key = owner.key();
        if self.expectations.is_doubtful(&key) {
            let of_owner = ListOptions::labels(selector.to_string());
            let there = context.client.list::<Pod>(owner.namespace(), &of_owner).await?;
            let owned = |pod: &&Pod| controller_of(&pod.metadata).is_some_and(|known| known.uid == owner.uid());
            let is_known = |pod: &Pod| self.pods.get(&pod.key()).is_some_and(|known| known.uid() == pod.uid());
            if !there.items.iter().filter(owned).all(is_known) {
                self.look_again(key);
                return Ok(false);
            }
            self.expectations.certain(&key);
        }
        Ok(self.has_seen_all(key))
    }

    /// Whether all pods that were created and deleted for an owner have been seen. If not, the owner is looked at again
    /// when they are given up.
    pub fn has_seen_all(&self, key: ObjectKey) -> bool {
        let left = self.expectations.left(&key);
        if let Some(left) = left {
            self.queue.add_after(key, left);
        }
        left.is_none()
    }

    /// Looks at an owner once more soon, for a pod of its that the server has.
    pub fn look_again(&self, key: ObjectKey) {
        self.queue.add_after(key, LOOK_AGAIN);
    }

    fn pod_changed(&self, change: &Change<Pod>, selects: fn(&K, &Pod) -> bool) {
        let pod = change.object();
        let owner = owner_key::<K>(&pod.metadata);
        let before = change.old().and_then(|old| owner_key::<K>(&old.metadata));
        before.filter(|before| Some(before) != owner.as_ref()).into_iter().for_each(|key| self.queue.add(key));
        let Some(key) = owner else {
            if change.new().is_some() && controller_of(&pod.metadata).is_none() {
                let near = self.objects.in_namespace(pod.namespace());
                near.iter().filter(|object| selects(object, pod)).for_each(|object| self.queue.add(object.key()));
            }
            return;
        };
        // One that is first seen when it is being deleted was created, too.
        if matches!(change, Change::Added(_)) {
            self.expectations.created(&key);
        }
        if change.new().is_none() || pod.is_deleting() {
            self.expectations.deleted(&key, pod.uid());
        }
        self.queue.add(key);
    }
}
