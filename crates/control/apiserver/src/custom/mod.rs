//! Custom resources: definitions come and go, and with them what is served.
//!
//! A definition is accepted when its names are free, served from then on, and, when it is deleted, its objects go
//! first. Source: apiextensions-apiserver's naming, establishing and finalizing controllers.

mod columns;
mod conversion;
mod definition;
mod names;
mod scale;
mod strategy;

use crate::follow::{Change, Follower};
use crate::server::Server;
use futures::StreamExt;
use names::Taken;
use parking_lot::Mutex;
use pintle_kinds::ResourceDef;
use pintle_registry::{
    AdmitAll, DeleteOptions, EventKind, GetOptions, ListOptions, Patch, Request, UserInfo, WatchOptions,
};
use pintle_types::Status;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "apiextensions.k8s.io";
const RESOURCE: &str = "customresourcedefinitions";
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const MANAGER: &str = "kube-apiserver";

/// The definitions there are, and what of them is served.
#[derive(Default)]
pub(crate) struct Definitions {
    /// The names of those that changed. Definitions are large: they are read one at a time when their turn comes.
    changed: Mutex<BTreeSet<String>>,
    /// By name: group, plural name and generation of what is served.
    served: Mutex<BTreeMap<String, Served>>,
    wake: Notify,
}

#[derive(Clone, PartialEq)]
struct Served {
    group: String,
    resource: String,
    uid: String,
    generation: i64,
    /// The names that were accepted.
    names: Value,
}

impl Served {
    /// As a definition wants it; which names it gets is decided elsewhere.
    fn of(definition: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let spec = &definition["spec"];
        Self {
            group: text(&spec["group"]),
            resource: text(&spec["names"]["plural"]),
            uid: text(&definition["metadata"]["uid"]),
            generation: definition["metadata"]["generation"].as_i64().unwrap_or_default(),
            names: Value::Null,
        }
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

impl Definitions {
    fn note(&self, change: Change<'_>) {
        let (Change::Set(definition) | Change::Gone(definition)) = change;
        self.changed.lock().insert(name_of(definition).to_owned());
        self.wake.notify_one();
    }

    /// Serves what there is, and follows changes until `stop`.
    pub async fn start(server: &Arc<Server>, stop: &CancellationToken) -> Result<(), Status> {
        let noting = server.clone();
        let follower = Follower::load(server, GROUP, RESOURCE, move |c| noting.definitions.note(c)).await?;
        server.definitions.settle(server).await;
        server.tasks.spawn(follower.run(stop.clone()));
        let (server, stop) = (server.clone(), stop.clone());
        let tracker = server.tasks.clone();
        tracker.spawn(async move {
            while stop.run_until_cancelled(server.definitions.wake.notified()).await.is_some() {
                server.definitions.settle(&server).await;
            }
        });
        Ok(())
    }

    /// Takes the definitions that changed, one by one. One that fails is told in the log and in its status alone:
    /// the others must not suffer from it.
    async fn settle(&self, server: &Arc<Server>) {
        loop {
            let Some(name) = self.changed.lock().pop_first() else { return };
            let result = self.settle_one(server, &name).await;
            if let Err(error) = result {
                tracing::warn!(definition = name, %error, "a custom resource definition could not be put into effect");
            }
        }
    }

    async fn settle_one(&self, server: &Arc<Server>, name: &str) -> Result<(), Status> {
        let definition = current(server, name).await?;
        let uid = definition.as_ref().map(|d| d["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
        // Another one of the same name may have come in its place; the objects of the old one are not the new one's.
        if self.served.lock().get(name).is_some_and(|served| Some(&served.uid) != uid.as_ref()) {
            self.withdraw(server, name).await?;
        }
        match &definition {
            None => Ok(()),
            Some(definition) if definition["metadata"]["deletionTimestamp"].is_string() => {
                // A server that starts must know the objects again that it is to delete.
                if is_true(definition, "Established") && !self.served.lock().contains_key(name) {
                    let names = definition["status"]["acceptedNames"].clone();
                    self.put_into_service(server, definition, Served { names, ..Served::of(definition) }).await?;
                }
                self.finalize(server, definition).await
            }
            Some(definition) => self.take(server, definition).await,
        }
    }

    async fn take(&self, server: &Arc<Server>, definition: &Value) -> Result<(), Status> {
        let name = name_of(definition);
        let mut wanted = Served::of(definition);
        let taken = self.taken(server, name, &wanted.group);
        let (names, said) = names::accept(&definition["spec"]["names"], &definition["status"]["acceptedNames"], &taken);
        wanted.names = names;
        let free = said["status"] == "True";
        // What was established once stays so, under the names that it got.
        let established = free || is_true(definition, "Established");
        let status = status_of(definition, &wanted.names, said, established);
        if established {
            self.put_into_service(server, definition, wanted).await?;
        }
        set_status(server, definition, &status).await
    }

    /// Serves what a definition says, unless that is served already.
    async fn put_into_service(&self, server: &Arc<Server>, definition: &Value, wanted: Served) -> Result<(), Status> {
        let name = name_of(definition);
        let known = self.served.lock().get(name).cloned();
        if known.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if known.is_none_or(|known| known.generation != wanted.generation) {
            let defs = definition::resources(&Arc::downgrade(server), definition);
            serve(server, Some((&wanted.group, &wanted.resource)), defs).await?;
        }
        self.served.lock().insert(name.to_owned(), wanted);
        Ok(())
    }

    /// The names that a definition can't have: those of the other definitions of its group, and of built-in kinds.
    fn taken(&self, server: &Server, name: &str, group: &str) -> Taken {
        let mut taken = Taken::default();
        for def in server.registry.table().iter().filter(|d| d.schema.is_none() && d.group == group) {
            taken.add(&json!({
                "plural": def.resource, "singular": def.singular, "shortNames": def.short_names,
                "kind": def.kind, "listKind": def.list_kind,
            }));
        }
        let served = self.served.lock();
        served.iter().filter(|(other, s)| *other != name && s.group == group).for_each(|(_, s)| taken.add(&s.names));
        taken
    }

    async fn withdraw(&self, server: &Server, name: &str) -> Result<(), Status> {
        let Some(served) = self.served.lock().remove(name) else { return Ok(()) };
        // Usually none is left: the finalizer saw to it. A definition deleted with all others has none.
        delete_objects(server, &served.group, &served.resource).await?;
        serve(server, Some((&served.group, &served.resource)), Vec::new()).await?;
        self.reconsider(server, &served.group).await
    }

    /// Takes up the definitions of a group that did not get their names: some may be free now.
    async fn reconsider(&self, server: &Server, group: &str) -> Result<(), Status> {
        let table = server.registry.table();
        let def = table.get(GROUP, "v1", RESOURCE).ok_or_else(Status::no_such_resource)?;
        let all = server.registry.list(def, "", &ListOptions::default()).await?;
        for definition in all.items.iter().map(|item| item.to_value()) {
            if definition["spec"]["group"] == group && !is_true(&definition, "NamesAccepted") {
                self.note(Change::Set(&definition));
            }
        }
        Ok(())
    }

    /// Deletes the objects of a definition that is being deleted, then lets it go.
    async fn finalize(&self, server: &Arc<Server>, definition: &Value) -> Result<(), Status> {
        let finalizers = definition["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(());
        }
        let spec = &definition["spec"];
        let text = |v: &'static str, of: &Value| of[v].as_str().unwrap_or_default().to_owned();
        let (group, resource) = (text("group", spec), text("plural", &spec["names"]));
        delete_objects(server, &group, &resource).await?;
        if let Some(def) = still_has_objects(server, &group, &resource).await? {
            server.tasks.spawn(finalize_later(server.clone(), def, definition.clone()));
            return Ok(());
        }
        let left: Vec<Value> = finalizers.into_iter().filter(|f| f != FINALIZER).collect();
        patch(server, name_of(definition), "", json!({"metadata": {"finalizers": left}})).await
    }
}

/// A definition as it is now; nothing when it is gone.
async fn current(server: &Server, name: &str) -> Result<Option<Value>, Status> {
    let table = server.registry.table();
    let def = table.get(GROUP, "v1", RESOURCE).ok_or_else(Status::no_such_resource)?;
    match server.registry.get(def, "", name, &GetOptions::default()).await {
        Ok(definition) => Ok(Some(definition.to_value())),
        Err(status) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

async fn delete_objects(server: &Server, group: &str, resource: &str) -> Result<(), Status> {
    let table = server.registry.table();
    let Some(def) = table.preferred(group, resource).filter(|d| d.schema.is_some()) else { return Ok(()) };
    let (user, options) = (user(), DeleteOptions::default());
    let request = Request::new(&user, &AdmitAll, MANAGER);
    server.registry.delete_collection(&request, def, "", &options, &ListOptions::default()).await.map(|_| ())
}

/// The definition of a resource of which objects are left: their finalizers hold them.
async fn still_has_objects(server: &Server, group: &str, resource: &str) -> Result<Option<Arc<ResourceDef>>, Status> {
    let table = server.registry.table();
    let Some(def) = table.preferred(group, resource).filter(|d| d.schema.is_some()) else { return Ok(None) };
    let left = server.registry.list(def, "", &ListOptions { limit: 1, ..ListOptions::default() }).await?;
    Ok((!left.items.is_empty()).then(|| def.clone()))
}

/// Takes a definition up again when one of the objects that held it is gone.
async fn finalize_later(server: Arc<Server>, def: Arc<ResourceDef>, definition: Value) {
    let gone = async {
        let Ok(mut events) = server.registry.watch(&def, "", &WatchOptions::default()).await else { return };
        // The last one may have gone before the watch began.
        if let Ok(None) = still_has_objects(&server, &def.group, &def.resource).await {
            return;
        }
        while let Some(event) = events.next().await {
            if event.kind == EventKind::Deleted {
                return;
            }
        }
    };
    if server.stopping().run_until_cancelled(gone).await.is_some() {
        server.definitions.note(Change::Set(&definition));
    }
}

fn user() -> UserInfo {
    UserInfo { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..UserInfo::default() }
}

/// Puts definitions into service, in place of all versions of a resource.
async fn serve(server: &Server, instead: Option<(&str, &str)>, defs: Vec<ResourceDef>) -> Result<(), Status> {
    let mut table = (*server.registry.table()).clone();
    if let Some((group, resource)) = instead {
        table = table.without(group, resource);
    }
    server.registry.set_table(Arc::new(table.with(defs))).await?;
    server.aggregation.served_changed();
    Ok(())
}

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> Value {
    let status = if status { "True" } else { "False" };
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

fn is_true(definition: &Value, kind: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

/// The status of a definition: its names, and what else is to be said of it.
fn status_of(definition: &Value, accepted: &Value, names: Value, established: bool) -> Value {
    let established = match established {
        true => condition("Established", true, "InitialNamesAccepted", "the initial names have been accepted"),
        false => condition("Established", false, "NotAccepted", "not all names are accepted"),
    };
    let mut conditions = vec![names, established];
    conditions.extend(approval(definition));
    json!({"acceptedNames": accepted, "conditions": conditions})
}

/// Whether a definition in one of the community's groups was approved (KEP-1111).
fn approval(definition: &Value) -> Option<Value> {
    let state = pintle_kinds::approval_of(definition)?;
    Some(condition("KubernetesAPIApprovalPolicyConformant", state.approved, state.reason, &state.message))
}

/// Writes a status, unless it is there.
async fn set_status(server: &Server, definition: &Value, wanted: &Value) -> Result<(), Status> {
    let mut status = wanted.clone();
    let now = server.clock.now_seconds().to_string();
    let old = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        let before = old.iter().find(|o| o["type"] == condition["type"] && o["status"] == condition["status"]);
        condition["lastTransitionTime"] = before.map_or(json!(now), |o| o["lastTransitionTime"].clone());
    }
    let name = name_of(definition);
    let differs = status.as_object().into_iter().flatten().any(|(field, value)| definition["status"][field] != *value);
    if differs {
        patch(server, name, "status", json!({"status": status})).await?;
    }
    Ok(())
}

async fn patch(server: &Server, name: &str, sub: &str, change: Value) -> Result<(), Status> {
    let table = server.registry.table();
    let def = table.get(GROUP, "v1", RESOURCE).ok_or_else(Status::no_such_resource)?;
    let user = user();
    let request = Request::new(&user, &AdmitAll, MANAGER);
    match server.registry.patch(&request, def, "", name, sub, &Patch::Merge(change)).await {
        Err(status) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}
