//! Hears of policies, pods and namespaces, and keeps the kernel in step.
//!
//! Idle (no policy: one watch, no table) → following (pods and namespaces are watched) → programmed (all three lists
//! are read). The last policy leads back to idle.

use crate::facts::{Labels, Pod, Policy, RawObject, RawPod, policy};
use crate::feed::{Changed, Feed};
use crate::kernel::{Error, Kernel};
use crate::plan::{Changes, Plan};
use pintle_client::Client;
use pintle_informer::{Source, reflect};
use pintle_netlink::nft::Family;
use pintle_types::k8s::api::networking::v1::NetworkPolicy;
use pintle_types::{Kind, ObjectKey};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// How long after a refusal the whole table is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long a pod's start may wait for its policies.
const GUARD_WAIT: Duration = Duration::from_secs(2);

/// What is to be known of the node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node, as pods have it.
    pub node_name: String,
    /// The families of the pods' addresses: each has a table of its own.
    pub families: Vec<Family>,
}

/// A pod whose processes are about to start.
#[derive(Clone, Debug, Default)]
pub struct NewPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    pub addresses: Vec<IpAddr>,
}

/// Lets pods start only when their policies are in place. Cheap to clone; without policies nobody waits.
#[derive(Clone, Default)]
pub struct Guard {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    announced: Mutex<Vec<(NewPod, oneshot::Sender<()>)>>,
    wake: Arc<Notify>,
    is_running: AtomicBool,
}

impl Guard {
    /// Tells of a pod that got its addresses, and waits until what isolates it is in the kernel: at most two seconds,
    /// because a node without its API server must start pods as well.
    pub async fn admit(&self, pod: NewPod) {
        if !self.shared.is_running.load(Ordering::Acquire) {
            return;
        }
        let (name, (done, waiting)) = (format!("{}/{}", pod.namespace, pod.name), oneshot::channel());
        self.shared.announced.lock().unwrap_or_else(PoisonError::into_inner).push((pod, done));
        self.shared.wake.notify_one();
        if tokio::time::timeout(GUARD_WAIT, waiting).await.is_err() {
            tracing::warn!(pod = name, "the pod starts before its network policies are known");
        }
    }

    fn take(&self) -> Vec<(NewPod, oneshot::Sender<()>)> {
        std::mem::take(&mut *self.shared.announced.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The policies of a node.
pub struct Policies {
    config: Config,
    client: Client,
    guard: Guard,
    plan: Plan,
    kernel: Option<Kernel>,
    /// The kernel's table is not known to be what the plan says: at start, and after a refusal.
    unknown: bool,
    following: Option<Following>,
    /// Addresses of pods that the API server does not tell yet.
    announced: HashMap<ObjectKey, NewPod>,
}

/// What is watched while there are policies.
struct Following {
    pods: Arc<Feed<Pod>>,
    namespaces: Arc<Feed<Labels>>,
    stop: CancellationToken,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Policies {
    /// `client` needs to list and watch networkpolicies, pods and namespaces.
    ///
    /// # Errors
    /// When the kernel can't be spoken to: the caller's network namespace is the one that is guarded.
    pub fn open(config: Config, client: Client, guard: Guard) -> Result<Self, Error> {
        Ok(Self {
            client,
            guard,
            plan: Plan::default(),
            kernel: Some(Kernel::open(&config.families)?),
            config,
            unknown: true,
            following: None,
            announced: HashMap::new(),
        })
    }

    /// Follows policies until `stop`. The rules stay in the kernel then, so that a restart opens nothing.
    ///
    /// # Errors
    /// When a thread that speaks to the kernel dies. A refused transaction is tried again as a whole.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let wake = Arc::clone(&self.guard.shared.wake);
        let policies = Feed::new("networkpolicies", Arc::clone(&wake), Box::new(decode_policy));
        self.follow("/apis/networking.k8s.io/v1/networkpolicies", policies.clone(), &stop);
        self.guard.shared.is_running.store(true, Ordering::Release);
        loop {
            let waiting = self.guard.take();
            let result = self.round(&policies, &waiting, &stop).await;
            let failed = match result {
                Ok(true) => {
                    // They start now, and not with the next change.
                    drop(waiting);
                    false
                }
                Ok(false) => {
                    // Not all lists are read: who waits for its policies waits on.
                    let mut announced = self.guard.shared.announced.lock().unwrap_or_else(PoisonError::into_inner);
                    announced.extend(waiting);
                    false
                }
                Err(Error::Kernel(error)) => {
                    drop(waiting);
                    tracing::error!(%error, retry_seconds = RETRY.as_secs(), "cannot program network policies");
                    true
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = wake.notified(), if !failed => {}
                () = tokio::time::sleep(RETRY), if failed => {}
                () = stop.cancelled() => break,
            }
        }
        self.guard.shared.is_running.store(false, Ordering::Release);
        drop(self.guard.take());
        Ok(())
    }

    /// Takes what changed and brings the kernel up to date; false while lists are missing.
    async fn round(
        &mut self,
        policies: &Feed<Policy>,
        new_pods: &[(NewPod, oneshot::Sender<()>)],
        stop: &CancellationToken,
    ) -> Result<bool, Error> {
        if !policies.is_synced() {
            return Ok(false);
        }
        for (key, changed) in policies.take() {
            self.plan.set_policy(&key, changed.facts);
        }
        if !self.plan.has_policies() {
            return self.rest().await.map(|()| true);
        }
        if self.following.is_none() {
            self.following = Some(self.begin(stop));
        }
        let Some(following) = self.following.as_ref().filter(|f| f.pods.is_synced() && f.namespaces.is_synced()) else {
            return Ok(false);
        };
        for (key, changed) in following.namespaces.take() {
            self.plan.set_namespace(&key.name, changed.facts);
        }
        let pods = following.pods.take();
        for (key, changed) in pods {
            self.take_pod(key, changed);
        }
        for (pod, _) in new_pods {
            self.announce(pod);
        }
        self.commit().await.map(|()| true)
    }

    /// No policies: nothing is watched, and there is no table.
    async fn rest(&mut self) -> Result<(), Error> {
        let was_there = self.following.take().is_some() || self.unknown;
        self.announced.clear();
        if was_there {
            self.plan = Plan::default();
            self.unknown = true;
            self.blocking(Kernel::remove).await?;
            // An empty plan and no table agree; the first policy makes the table anew.
            self.unknown = false;
        }
        Ok(())
    }

    fn begin(&mut self, stop: &CancellationToken) -> Following {
        let wake = &self.guard.shared.wake;
        let node = self.config.node_name.clone();
        let pods: Arc<Feed<Pod>> = Feed::new(
            "pods",
            Arc::clone(wake),
            Box::new(move |bytes| {
                let mut raw: RawPod = serde_json::from_slice(bytes)?;
                let meta = crate::facts::RawMeta {
                    namespace: std::mem::take(&mut raw.metadata.namespace),
                    name: std::mem::take(&mut raw.metadata.name),
                    uid: raw.metadata.uid.clone(),
                    resource_version: std::mem::take(&mut raw.metadata.resource_version),
                    labels: None,
                };
                Ok((meta, raw.facts(&node)))
            }),
        );
        let namespaces: Arc<Feed<Labels>> = Feed::new(
            "namespaces",
            Arc::clone(wake),
            Box::new(|bytes| {
                let mut raw: RawObject = serde_json::from_slice(bytes)?;
                let labels = raw.metadata.labels.take().unwrap_or_default();
                Ok((raw.metadata, Some(labels)))
            }),
        );
        let stop = stop.child_token();
        self.follow("/api/v1/pods", pods.clone(), &stop);
        self.follow("/api/v1/namespaces", namespaces.clone(), &stop);
        self.unknown = true;
        Following { pods, namespaces, stop }
    }

    fn follow<T: Send + 'static>(&self, path: &str, feed: Arc<Feed<T>>, stop: &CancellationToken) {
        let json = "application/json";
        let source = Source { path: path.into(), accept: json.into(), watch_accept: json.into(), ..Source::default() };
        tokio::spawn(reflect(self.client.clone(), source, feed, stop.clone()));
    }

    fn take_pod(&mut self, key: ObjectKey, changed: Changed<Pod>) {
        let Changed { uid, mut facts } = changed;
        if let Some(announced) = self.announced.get(&key) {
            match &mut facts {
                // Its predecessor of the same name went, or still goes.
                None if !uid.is_empty() && uid != announced.uid => return,
                Some(pod) if pod.uid != announced.uid => return,
                Some(pod) if pod.addresses.is_empty() => pod.addresses.clone_from(&announced.addresses),
                _ => drop(self.announced.remove(&key)),
            }
        }
        self.plan.set_pod(&key, facts);
    }

    fn announce(&mut self, new: &NewPod) {
        let key = ObjectKey::new(&new.namespace, &new.name);
        let known = self.plan.pod(&key).filter(|pod| pod.uid == new.uid);
        if known.is_some_and(|pod| !pod.addresses.is_empty()) {
            return;
        }
        let mut pod = known.cloned().unwrap_or_else(|| Pod {
            uid: new.uid.clone(),
            labels: new.labels.clone(),
            ..Pod::default()
        });
        pod.local = true;
        pod.addresses.clone_from(&new.addresses);
        self.announced.insert(key.clone(), new.clone());
        self.plan.set_pod(&key, Some(pod));
    }

    async fn commit(&mut self) -> Result<(), Error> {
        let changes = self.plan.take_changes();
        if !self.unknown {
            if changes.is_empty() {
                return Ok(());
            }
            match self.blocking(move |kernel| kernel.change(&changes)).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Thread(_)) => return Err(error),
                // Somebody changed our table. Putting it back as a whole is the answer to whatever it was.
                Err(error) => tracing::warn!(%error, "the policy table is not as it was left; replacing it"),
            }
        }
        self.unknown = true;
        let everything: Changes = self.plan.everything();
        self.blocking(move |kernel| kernel.replace(&everything)).await?;
        self.unknown = false;
        Ok(())
    }

    async fn blocking(
        &mut self,
        work: impl FnOnce(&mut Kernel) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let Some(mut kernel) = self.kernel.take() else { return Ok(()) };
        let (kernel, result) = tokio::task::spawn_blocking(move || {
            let result = work(&mut kernel);
            (kernel, result)
        })
        .await?;
        self.kernel = Some(kernel);
        result
    }
}

fn decode_policy(bytes: &[u8]) -> serde_json::Result<(crate::facts::RawMeta, Option<Policy>)> {
    let object = NetworkPolicy::decode(bytes).map_err(|error| error.source)?;
    let meta = crate::facts::RawMeta {
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        labels: None,
    };
    Ok((meta, Some(policy(&object))))
}
