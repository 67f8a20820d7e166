//! An API server that remembers what was told to it.

use crate::api::{Api, ApiError, ObjectRef, Token, TokenWish};
use crate::cgroups::Unmanaged;
use crate::events::Events;
use crate::fake::{FakeRuntime, host::settings};
use crate::hardware::{Directories, Hardware};
use crate::host::Host;
use crate::objects::{Pins, TrustBundles};
use crate::reference::ContainerKind;
use async_trait::async_trait;
use parking_lot::Mutex;
use pintle_clock::Clock;
use pintle_types::k8s::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Statuses by pod, as the patches make them, and who was deleted.
pub struct FakeApi {
    pub statuses: watch::Sender<HashMap<String, Value>>,
    pub deleted: watch::Sender<BTreeSet<String>>,
    pub config_maps: Mutex<HashMap<String, ConfigMap>>,
    pub claims: Mutex<HashMap<String, PersistentVolumeClaim>>,
    pub volumes: Mutex<HashMap<String, PersistentVolume>>,
}

impl FakeApi {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            statuses: watch::Sender::default(),
            deleted: watch::Sender::default(),
            config_maps: Mutex::default(),
            claims: Mutex::default(),
            volumes: Mutex::default(),
        })
    }

    /// Waits until a pod's status is as wanted.
    pub async fn until(&self, pod: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut statuses = self.statuses.subscribe();
        let found = statuses.wait_for(|all| all.get(pod).is_some_and(&is)).await;
        found.expect("the fake outlives the test")[pod].clone()
    }
}

fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else { return };
    if !into.is_object() {
        *into = Value::Object(Default::default());
    }
    for (key, value) in patch {
        match (key.as_str(), value) {
            (_, Value::Null) => drop(into.as_object_mut().map(|o| o.remove(&key))),
            ("conditions", Value::Array(changed)) => {
                let mut list = into["conditions"].as_array().cloned().unwrap_or_default();
                for condition in changed {
                    list.retain(|c| c["type"] != condition["type"]);
                    list.push(condition);
                }
                into["conditions"] = Value::Array(list);
            }
            (name, _) if name.starts_with('$') => {}
            (name, value) => into[name] = value,
        }
    }
}

#[async_trait]
impl Api for FakeApi {
    async fn patch_status(&self, _: &str, name: &str, patch: Value) -> Result<u64, ApiError> {
        self.statuses.send_modify(|all| merge(all.entry(name.to_owned()).or_default(), patch["status"].clone()));
        Ok(0)
    }

    async fn delete_pod(&self, _: &str, name: &str, _: &str) -> Result<(), ApiError> {
        self.deleted.send_if_modified(|all| all.insert(name.to_owned()));
        Ok(())
    }

    async fn config_map(&self, _: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        let found = self.config_maps.lock().get(name).cloned();
        found.map(Arc::new).ok_or_else(|| ApiError::NotFound(format!("configmap {name:?} not found")))
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        Err(ApiError::NotFound(format!("secret {name:?} not found")))
    }

    async fn trust_bundles(&self) -> Result<TrustBundles, ApiError> {
        Ok(TrustBundles::default())
    }

    async fn claim(&self, _: &str, name: &str) -> Result<Arc<PersistentVolumeClaim>, ApiError> {
        let found = self.claims.lock().get(name).cloned();
        found.map(Arc::new).ok_or_else(|| ApiError::NotFound(format!("persistentvolumeclaims {name:?} not found")))
    }

    async fn persistent_volume(&self, name: &str) -> Result<Arc<PersistentVolume>, ApiError> {
        let found = self.volumes.lock().get(name).cloned();
        found.map(Arc::new).ok_or_else(|| ApiError::NotFound(format!("persistentvolumes {name:?} not found")))
    }

    async fn runtime_handler(&self, class: &str) -> Result<String, ApiError> {
        Err(ApiError::NotFound(format!("runtimeclasses.node.k8s.io {class:?} not found")))
    }

    fn pin(&self, _: &BTreeSet<ObjectRef>, _: &Arc<Notify>) -> Pins {
        Pins::default()
    }

    async fn token(&self, wish: &TokenWish) -> Result<Token, ApiError> {
        Ok(Token { text: format!("token of {}", wish.service_account), expires: jiff::Timestamp::MAX })
    }

    fn services(&self, _: &str) -> Vec<Arc<Service>> {
        vec![]
    }
}

/// Events as `Reason message`.
#[derive(Default)]
pub struct FakeEvents(pub Mutex<Vec<String>>);

impl Events for FakeEvents {
    fn pod(&self, _: &Pod, _: bool, reason: &str, message: String) {
        self.0.lock().push(format!("{reason} {message}"));
    }

    fn container(&self, _: &Pod, _: ContainerKind, _: &str, _: bool, reason: &str, message: String) {
        self.0.lock().push(format!("{reason} {message}"));
    }
}

/// Gives out nothing: no plugin is there and no policy asked for.
fn no_placement(root: &Path) -> pintle_placement::Placement {
    let (options, layout) = (pintle_placement::Options::default(), pintle_placement::Layout::default);
    pintle_placement::Placement::open(&options, layout, root).expect("nothing was given out before")
}

/// A host of fakes whose files are below `root`.
pub fn host(
    root: &Path,
    clock: Arc<dyn Clock>,
    runtime: Arc<FakeRuntime>,
    api: Arc<FakeApi>,
    events: Arc<FakeEvents>,
) -> Arc<Host> {
    Arc::new(Host {
        runtime,
        api,
        events,
        clock,
        mounter: Arc::new(Directories),
        hardware: Hardware::Real,
        cgroups: Arc::new(Unmanaged),
        probes: Default::default(),
        claimed: Default::default(),
        measures: Default::default(),
        pressures: Default::default(),
        ending: Default::default(),
        allocations: crate::resize::Allocations::new(2000, 4 << 30),
        pulled: crate::image_gc::PulledImages::new(root),
        user_namespaces: crate::user_namespaces::UserNamespaces::new(settings(root).root_dir.join("pods")),
        placement: Arc::new(no_placement(root)),
        credential_providers: None,
        settings: settings(root),
    })
}
