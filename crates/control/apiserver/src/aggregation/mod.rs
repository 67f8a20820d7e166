//! The API services: local ones are kept in step with what is served, others are checked and passed requests to.

mod check;
pub(crate) mod documents;
mod proxy;
mod register;

use crate::follow::{Change, Follower};
use crate::pipeline::Call;
use crate::server::Server;
use parking_lot::Mutex;
use pintle_aggregator::{Address, Aggregator, Known, ServiceRef, Spec, local_condition, resolve};
use pintle_registry::{AdmitAll, GetOptions, Patch, Request, UserInfo};
use pintle_types::Status;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use proxy::proxy;

const GROUP: &str = "apiregistration.k8s.io";
const RESOURCE: &str = "apiservices";
const MANAGER: &str = "kube-apiserver";
/// On APIServices that the server made itself.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// What is known of the APIServices.
#[derive(Default)]
pub(crate) struct Aggregation {
    /// Those that other servers answer.
    pub others: Aggregator,
    /// Documents of other servers.
    pub documents: documents::Documents,
    /// By name, what changed since it was last looked at.
    changed: Mutex<BTreeMap<String, Option<Value>>>,
    /// By name: the label and the spec of every APIService there is.
    present: Mutex<BTreeMap<String, (String, Value)>>,
    wake: Notify,
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

impl Aggregation {
    fn note(&self, change: Change<'_>) {
        let (name, state) = match change {
            Change::Set(object) => (name_of(object), Some(object.clone())),
            Change::Gone(object) => (name_of(object), None),
        };
        self.changed.lock().insert(name.to_owned(), state);
        self.wake.notify_one();
    }

    /// Called when what is served changed.
    pub fn served_changed(&self) {
        self.wake.notify_one();
    }

    /// Follows the APIServices until `stop`. Definitions of custom resources are served already.
    pub async fn start(server: &Arc<Server>, stop: &CancellationToken) -> Result<(), Status> {
        let noting = server.clone();
        let follower = Follower::load(server, GROUP, RESOURCE, move |c| noting.aggregation.note(c)).await?;
        server.aggregation.settle(server).await;
        server.tasks.spawn(follower.run(stop.clone()));
        let (server, stop) = (server.clone(), stop.clone());
        let tracker = server.tasks.clone();
        tracker.spawn(async move {
            register::sync(&server, &server.aggregation.present).await;
            while stop.run_until_cancelled(server.aggregation.wake.notified()).await.is_some() {
                server.aggregation.settle(&server).await;
                register::sync(&server, &server.aggregation.present).await;
            }
        });
        Ok(())
    }

    async fn settle(&self, server: &Arc<Server>) {
        loop {
            let Some((name, state)) = self.changed.lock().pop_first() else { return };
            let Some(object) = state else {
                self.others.remove(&name);
                self.present.lock().remove(&name);
                continue;
            };
            let label = object["metadata"]["labels"][AUTOMANAGED].as_str().unwrap_or_default().to_owned();
            self.present.lock().insert(name.clone(), (label, object["spec"].clone()));
            let spec = Spec::read(&object);
            let local = spec.service.is_none();
            if let Some(known) = self.others.set(spec, server.config.front_proxy.as_deref()) {
                server.tasks.spawn(check::run(server.clone(), known));
            }
            if local && let Err(error) = set_condition(server, &name, &object, local_condition()).await {
                tracing::warn!(api_service = name, %error, "the status of an APIService could not be written");
            }
        }
    }
}

/// The server that answers a request, if it is another one.
pub(crate) fn target(call: &Call) -> Option<Arc<Known>> {
    let others = &call.server.aggregation.others;
    if others.is_empty() {
        return None;
    }
    let mut segments = call.info.path.trim_start_matches('/').split('/');
    if segments.next() != Some("apis") {
        return None;
    }
    let (group, version) = (segments.next()?, segments.next()?);
    if group.is_empty() || version.is_empty() { None } else { others.find(group, version) }
}

/// Where a service is reached now.
pub(crate) async fn place(server: &Server, service: &ServiceRef) -> Result<Address, String> {
    let found = check::backing(server, service).await.map_err(|status| status.message)?;
    let choice = rand::random_range(0..usize::MAX);
    resolve(service, found.service.as_ref(), &found.slices, choice).map_err(|e| e.to_string())
}

fn user() -> UserInfo {
    UserInfo { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..UserInfo::default() }
}

/// Writes the condition `Available`, unless it is there.
async fn set_condition(server: &Server, name: &str, object: &Value, condition: Value) -> Result<(), Status> {
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut wanted = condition;
    let place = conditions.iter().position(|c| c["type"] == wanted["type"]);
    let same_status = place.map(|at| &conditions[at]).filter(|old| old["status"] == wanted["status"]);
    wanted["lastTransitionTime"] = match same_status {
        Some(old) => old["lastTransitionTime"].clone(),
        None => server.clock.now_seconds().to_string().into(),
    };
    match place {
        Some(at) if conditions[at] == wanted => return Ok(()),
        Some(at) => conditions[at] = wanted,
        None => conditions.push(wanted),
    }
    let table = server.registry.table();
    let def = table.get(GROUP, "v1", RESOURCE).ok_or_else(Status::no_such_resource)?;
    let user = user();
    let request = Request::new(&user, &AdmitAll, MANAGER);
    let change = Patch::Merge(json!({"status": {"conditions": conditions}}));
    match server.registry.patch(&request, def, "", name, "status", &change).await {
        Err(status) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// An APIService as it is now.
async fn current(server: &Server, name: &str) -> Option<Value> {
    let table = server.registry.table();
    let def = table.get(GROUP, "v1", RESOURCE)?;
    Some(server.registry.get(def, "", name, &GetOptions::default()).await.ok()?.to_value())
}
