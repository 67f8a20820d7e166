//! Single config maps and secrets, watched one by one while pods that run here refer to them; and all trust bundles of
//! the cluster, while a pod wants some.
//!
//! A watch of all of them would hold the whole cluster's secrets on every node. Each object has one watch however
//! many pods pin it; the watch ends with the last pin.

use crate::api::{ApiError, ObjectRef};
use parking_lot::Mutex;
use pintle_client::{Client, EventType, RawEvent, resource_path};
use pintle_informer::{Sink, Source, reflect};
use pintle_types::k8s::api::certificates::v1beta1::ClusterTrustBundle;
use pintle_types::k8s::api::core::v1::{ConfigMap, Secret};
use pintle_types::{DecodeError, Kind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long a reader waits for the first answer of a watch.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// The trust bundles of the cluster, by name.
pub type TrustBundles = Arc<BTreeMap<String, ClusterTrustBundle>>;

#[derive(Clone)]
enum Object {
    ConfigMap(Arc<ConfigMap>),
    Secret(Arc<Secret>),
    TrustBundles(TrustBundles),
}

impl Object {
    /// With what one object of a list or watch adds to those that are known.
    fn joined(self, known: Option<Self>) -> Self {
        match (self, known) {
            (Self::TrustBundles(new), Some(Self::TrustBundles(mut known))) => {
                let all = Arc::make_mut(&mut known);
                all.extend(new.iter().map(|(name, bundle)| (name.clone(), bundle.clone())));
                Self::TrustBundles(known)
            }
            (new, _) => new,
        }
    }

    /// What is left when an object of the watch goes.
    fn without(self, known: Option<Self>) -> Option<Self> {
        match (self, known) {
            (Self::TrustBundles(gone), Some(Self::TrustBundles(mut known))) => {
                Arc::make_mut(&mut known).retain(|name, _| !gone.contains_key(name));
                Some(Self::TrustBundles(known))
            }
            _ => None,
        }
    }
}

/// What is known of an object: nothing yet, that it is absent, or its newest state.
type Known = Option<Option<Object>>;

/// Keeps the watches alive that it was made for.
#[derive(Default)]
pub struct Pins {
    /// Held only to be dropped.
    _pins: Vec<Pin>,
}

struct Pin {
    watched: Arc<Watched>,
    waker: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.watched.wakers.lock().remove(&self.waker);
    }
}

/// One object and its watch.
struct Watched {
    what: ObjectRef,
    known: watch::Sender<Known>,
    wakers: Mutex<HashMap<u64, Arc<Notify>>>,
    stop: CancellationToken,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The watched objects of a node.
pub struct Objects {
    client: Client,
    watched: Mutex<HashMap<ObjectRef, Weak<Watched>>>,
    next_waker: std::sync::atomic::AtomicU64,
}

impl Objects {
    pub fn new(client: Client) -> Self {
        Self { client, watched: Mutex::default(), next_waker: 0.into() }
    }

    /// Watches these objects until the pins are dropped.
    pub fn pin(&self, wanted: &BTreeSet<ObjectRef>, wake: &Arc<Notify>) -> Pins {
        let mut all = self.watched.lock();
        all.retain(|_, watched| watched.strong_count() > 0);
        let pins = wanted.iter().map(|what| {
            let found = all.get(what).and_then(Weak::upgrade);
            let watched = found.unwrap_or_else(|| {
                let watched = self.begin(what);
                all.insert(what.clone(), Arc::downgrade(&watched));
                watched
            });
            let waker = self.next_waker.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            watched.wakers.lock().insert(waker, Arc::clone(wake));
            Pin { watched, waker }
        });
        Pins { _pins: pins.collect() }
    }

    fn begin(&self, what: &ObjectRef) -> Arc<Watched> {
        let of_core = |plural, namespace, name| {
            (resource_path("", "v1", plural, namespace, "", ""), format!("metadata.name={name}"))
        };
        let (path, field_selector) = match what {
            ObjectRef::ConfigMap { namespace, name } => of_core(ConfigMap::plural(), namespace, name),
            ObjectRef::Secret { namespace, name } => of_core(Secret::plural(), namespace, name),
            ObjectRef::TrustBundles => {
                (resource_path("certificates.k8s.io", "v1beta1", "clustertrustbundles", "", "", ""), String::new())
            }
        };
        let stop = CancellationToken::new();
        let watched = Arc::new(Watched {
            what: what.clone(),
            known: watch::Sender::new(None),
            wakers: Mutex::default(),
            stop: stop.clone(),
        });
        let source = Source { path, accept: "application/json".into(), field_selector, ..Default::default() };
        let sink = Arc::new(OneObject { watched: Arc::downgrade(&watched), listed: Mutex::new(None) });
        // The task ends when the last pin drops the watched object, which cancels its token.
        tokio::spawn(reflect(self.client.clone(), source, sink, stop));
        watched
    }

    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        let what = ObjectRef::ConfigMap { namespace: namespace.into(), name: name.into() };
        match self.known(&what).await? {
            Some(Some(Object::ConfigMap(found))) => Ok(found),
            Some(_) => Err(ApiError::NotFound(format!("configmap {name:?} not found"))),
            None => Ok(Arc::new(self.client.get(namespace, name).await?)),
        }
    }

    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        let what = ObjectRef::Secret { namespace: namespace.into(), name: name.into() };
        match self.known(&what).await? {
            Some(Some(Object::Secret(found))) => Ok(found),
            Some(_) => Err(ApiError::NotFound(format!("secret {name:?} not found"))),
            None => Ok(Arc::new(self.client.get(namespace, name).await?)),
        }
    }

    /// Those of the cluster; only pods that want some may ask, after they pinned them.
    pub async fn trust_bundles(&self) -> Result<TrustBundles, ApiError> {
        match self.known(&ObjectRef::TrustBundles).await? {
            Some(Some(Object::TrustBundles(found))) => Ok(found),
            Some(_) => Ok(TrustBundles::default()),
            None => Err(ApiError::Other("the trust bundles of the cluster are not watched".to_owned())),
        }
    }

    /// What a watch knows of the object; nothing when it is not watched.
    async fn known(&self, what: &ObjectRef) -> Result<Known, ApiError> {
        let Some(watched) = self.watched.lock().get(what).and_then(Weak::upgrade) else { return Ok(None) };
        let mut known = watched.known.subscribe();
        let first = tokio::time::timeout(FIRST_ANSWER, known.wait_for(Option::is_some)).await;
        match first {
            Ok(Ok(known)) => Ok(known.clone()),
            _ => Err(ApiError::Other(format!(
                "failed to sync {} cache: timed out waiting for the condition",
                match what {
                    ObjectRef::ConfigMap { .. } => "configmap",
                    ObjectRef::Secret { .. } => "secret",
                    ObjectRef::TrustBundles => "clustertrustbundle",
                }
            ))),
        }
    }
}

/// The sink of one object's watch.
struct OneObject {
    watched: Weak<Watched>,
    listed: Mutex<Option<Object>>,
}

impl OneObject {
    fn decode(&self, bytes: &[u8]) -> Option<(Object, Option<String>)> {
        let watched = self.watched.upgrade()?;
        let result = match watched.what {
            ObjectRef::ConfigMap { .. } => ConfigMap::decode(bytes).map(|mut object| {
                object.metadata.managed_fields = None;
                let version = object.metadata.resource_version.clone();
                (Object::ConfigMap(Arc::new(object)), version)
            }),
            ObjectRef::Secret { .. } => Secret::decode(bytes).map(|mut object| {
                object.metadata.managed_fields = None;
                let version = object.metadata.resource_version.clone();
                (Object::Secret(Arc::new(object)), version)
            }),
            ObjectRef::TrustBundles => trust_bundle(bytes),
        };
        result.inspect_err(|error| tracing::warn!(%error, "an object that a pod refers to can't be read")).ok()
    }

    /// What the watch knows now.
    fn now(&self) -> Option<Object> {
        self.watched.upgrade().and_then(|watched| watched.known.borrow().clone().flatten())
    }

    fn publish(&self, object: Option<Object>) {
        let Some(watched) = self.watched.upgrade() else { return };
        watched.known.send_replace(Some(object));
        for waker in watched.wakers.lock().values() {
            waker.notify_one();
        }
    }
}

fn trust_bundle(bytes: &[u8]) -> Result<(Object, Option<String>), DecodeError> {
    let decoded: Result<ClusterTrustBundle, _> = serde_json::from_slice(bytes);
    let mut bundle = decoded.map_err(|source| DecodeError { kind: "ClusterTrustBundle", source })?;
    bundle.metadata.managed_fields = None;
    let version = bundle.metadata.resource_version.clone();
    let name = bundle.metadata.name.clone().unwrap_or_default();
    Ok((Object::TrustBundles(Arc::new(BTreeMap::from([(name, bundle)]))), version))
}

impl Sink for OneObject {
    fn list_begins(&self) {
        *self.listed.lock() = None;
    }

    fn listed(&self, object: &[u8]) {
        if let Some((object, _)) = self.decode(object) {
            let mut listed = self.listed.lock();
            *listed = Some(object.joined(listed.take()));
        }
    }

    fn list_ends(&self) {
        let listed = self.listed.lock().take();
        self.publish(listed);
    }

    fn event(&self, event: &RawEvent) -> Option<String> {
        match event.event_type {
            EventType::Added | EventType::Modified => {
                let (object, version) = self.decode(&event.object)?;
                self.publish(Some(object.joined(self.now())));
                version
            }
            EventType::Deleted => {
                let gone = self.decode(&event.object).map(|(gone, _)| gone);
                self.publish(gone.and_then(|gone| gone.without(self.now())));
                event.resource_version().ok()
            }
            _ => event.resource_version().ok(),
        }
    }
}
