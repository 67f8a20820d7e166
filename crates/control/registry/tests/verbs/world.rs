//! A registry of its own for each test, and short words for its verbs.

use pintle_clock::ManualClock;
use pintle_kinds::{ResourceDef, Table};
use pintle_registry::{
    AdmitAll, DeleteOptions, Deletion, GetOptions, List, ListOptions, Object, Options, Patch, Registry, Request,
    UserInfo, Watch, WatchOptions, Written,
};
use pintle_store::{EmbeddedStore, Store};
use pintle_types::Status;
use pintle_types::selector::{FieldSelector, LabelSelector};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub const NS: &str = "default";

pub struct World {
    pub store: Arc<dyn Store>,
    pub table: Arc<Table>,
    pub clock: Arc<ManualClock>,
    pub registry: Arc<Registry>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().expect("store"));
        Self::over(store, options).await
    }

    /// Another registry over the same store.
    pub async fn over(store: Arc<dyn Store>, options: Options) -> Self {
        let table = Table::builtin();
        let clock = ManualClock::new("2026-01-02T03:04:05Z".parse().expect("time"));
        let registry = Registry::open(store.clone(), table.clone(), clock.clone(), options).await.expect("registry");
        Self { store, table, clock, registry }
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// `pods`, or `deployments.apps`, in the preferred version.
    pub fn def(&self, resource: &str) -> Arc<ResourceDef> {
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        self.table.preferred(group, resource).expect("a known resource").clone()
    }

    pub async fn create(&self, resource: &str, object: Value) -> Result<Value, Status> {
        let by = requester();
        let def = self.def(resource);
        self.registry.create(&by.request(), &def, namespace(&def), object).await.map(|o| o.to_value())
    }

    pub async fn get(&self, resource: &str, name: &str) -> Result<Value, Status> {
        let def = self.def(resource);
        let object = self.registry.get(&def, namespace(&def), name, &GetOptions::default()).await;
        object.map(|o| o.to_value())
    }

    pub async fn update(&self, resource: &str, sub: &str, object: Value) -> Result<Value, Status> {
        let (by, def) = (requester(), self.def(resource));
        let name = object["metadata"]["name"].as_str().expect("name").to_owned();
        let written = self.registry.update(&by.request(), &def, namespace(&def), &name, sub, object).await;
        written.map(|w| w.object.to_value())
    }

    pub async fn patch(&self, resource: &str, name: &str, sub: &str, patch: Patch) -> Result<Written, Status> {
        let (by, def) = (requester(), self.def(resource));
        self.registry.patch(&by.request(), &def, namespace(&def), name, sub, &patch).await
    }

    pub async fn merge(&self, resource: &str, name: &str, sub: &str, patch: Value) -> Result<Value, Status> {
        self.patch(resource, name, sub, Patch::Merge(patch)).await.map(|w| w.object.to_value())
    }

    pub async fn delete(&self, resource: &str, name: &str, options: Value) -> Result<Deletion, Status> {
        let (by, def) = (requester(), self.def(resource));
        let options: DeleteOptions = serde_json::from_value(options).expect("options");
        self.registry.delete(&by.request(), &def, namespace(&def), name, &options).await
    }

    pub async fn post(&self, resource: &str, name: &str, sub: &str, body: Value) -> Result<Object, Status> {
        let (by, def) = (requester(), self.def(resource));
        self.registry.create_subresource(&by.request(), &def, namespace(&def), name, sub, body).await
    }

    pub async fn list(&self, resource: &str, options: ListOptions) -> Result<List, Status> {
        let def = self.def(resource);
        self.registry.list(&def, namespace(&def), &options).await
    }

    pub async fn watch(&self, resource: &str, options: WatchOptions) -> Result<Watch, Status> {
        let def = self.def(resource);
        self.registry.watch(&def, namespace(&def), &options).await
    }
}

fn namespace(def: &ResourceDef) -> &'static str {
    if def.namespaced { NS } else { "" }
}

/// Who makes the requests of the tests.
pub struct Requester(UserInfo);

pub fn requester() -> Requester {
    Requester(UserInfo { name: "tester".into(), ..UserInfo::default() })
}

impl Requester {
    pub fn request(&self) -> Request<'_> {
        Request::new(&self.0, &AdmitAll, "tester")
    }
}

pub fn labels(text: &str) -> LabelSelector {
    LabelSelector::parse(text).expect("selector")
}

pub fn fields(text: &str) -> FieldSelector {
    FieldSelector::parse(text).expect("selector")
}

pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

pub fn labelled(name: &str, label: &str) -> Value {
    let mut object = config_map(name, "v");
    object["metadata"]["labels"] = json!({"app": label});
    object
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
           "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
           "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web"}},
                                 "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("resourceVersion").parse().expect("number")
}

pub fn names(list: &List) -> Vec<String> {
    let name = |object: &Object| object.to_value()["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    list.items.iter().map(name).collect()
}
