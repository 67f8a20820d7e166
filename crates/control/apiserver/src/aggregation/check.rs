//! Checks one APIService for as long as it is there: at every change of its service and endpoints, and now and then.

use super::{current, set_condition};
use crate::server::Server;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Request};
use pintle_aggregator::{Address, Condition, Known, ServiceRef, judge, resolve};
use pintle_client::empty_body;
use pintle_registry::{GetOptions, ListOptions, Watch, WatchOptions};
use pintle_types::Status;
use pintle_types::selector::{FieldSelector, LabelSelector};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Between checks while all is well.
const CALM: Duration = Duration::from_secs(30);
/// After the first failure; doubled at each further one, up to [`CALM`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longer answers count as failures.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_DISCOVERY_BYTES: usize = 4 << 20;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the cluster knows of a service.
pub(super) struct Backing {
    pub service: Option<Value>,
    pub slices: Vec<Value>,
}

/// Checks until the APIService is gone or another.
pub(super) async fn run(server: Arc<Server>, known: Arc<Known>) {
    let stop = server.stopping();
    let checking = async {
        let Some(service) = known.spec.service.clone() else { return };
        let mut retry = FIRST_RETRY;
        let mut watches = None;
        while server.aggregation.others.is_current(&known) {
            if watches.is_none() {
                watches = watch(&server, &service).await.ok();
            }
            let condition = check(&server, &known, &service).await;
            let pause = if condition.available { CALM } else { retry };
            retry = if condition.available { FIRST_RETRY } else { (retry * 2).min(CALM) };
            write(&server, &known, &condition).await;
            tokio::select! {
                () = known.replaced.notified() => {}
                () = tokio::time::sleep(pause) => {}
                event = next(&mut watches) => if event.is_none() { watches = None },
            }
        }
    };
    // Stopping is the only other way out.
    let _ = stop.run_until_cancelled(checking).await;
}

type Watches = (Watch, Watch);

async fn next(watches: &mut Option<Watches>) -> Option<()> {
    let Some((services, slices)) = watches else { return std::future::pending().await };
    tokio::select! {
        event = services.next() => event.map(drop),
        event = slices.next() => event.map(drop),
    }
}

/// Events from now on: of the service, and of its slices.
async fn watch(server: &Server, service: &ServiceRef) -> Result<Watches, Status> {
    let table = server.registry.table();
    let services = table.get("", "v1", "services").ok_or_else(Status::no_such_resource)?;
    let slices = table.get("discovery.k8s.io", "v1", "endpointslices").ok_or_else(Status::no_such_resource)?;
    let from_now = || WatchOptions { send_initial_events: Some(false), ..WatchOptions::default() };
    let one = WatchOptions { fields: name_is(&service.name)?, ..from_now() };
    let of_it = WatchOptions { labels: slices_of(&service.name)?, ..from_now() };
    let services = server.registry.watch(services, &service.namespace, &one).await?;
    Ok((services, server.registry.watch(slices, &service.namespace, &of_it).await?))
}

fn name_is(name: &str) -> Result<FieldSelector, Status> {
    FieldSelector::parse(&format!("metadata.name={name}")).map_err(Status::internal)
}

fn slices_of(name: &str) -> Result<LabelSelector, Status> {
    LabelSelector::parse(&format!("{SERVICE_NAME}={name}")).map_err(Status::internal)
}

/// A service with its slices, as they are now.
pub(super) async fn backing(server: &Server, service: &ServiceRef) -> Result<Backing, Status> {
    let table = server.registry.table();
    let services = table.get("", "v1", "services").ok_or_else(Status::no_such_resource)?;
    let slices = table.get("discovery.k8s.io", "v1", "endpointslices").ok_or_else(Status::no_such_resource)?;
    let found = match server.registry.get(services, &service.namespace, &service.name, &GetOptions::default()).await {
        Ok(found) => Some(found.to_value()),
        Err(status) if status.code == 404 => None,
        Err(status) => return Err(status),
    };
    let options = ListOptions { labels: slices_of(&service.name)?, ..ListOptions::default() };
    let slices = server.registry.list(slices, &service.namespace, &options).await?;
    Ok(Backing { service: found, slices: slices.items.iter().map(|s| s.to_value()).collect() })
}

async fn check(server: &Server, known: &Known, service: &ServiceRef) -> Condition {
    let backing = match backing(server, service).await {
        Ok(backing) => backing,
        Err(status) => return noted(known, Condition::failed_check(&service.host(), &status.message), None),
    };
    if let Some(condition) = judge(service, backing.service.as_ref(), &backing.slices) {
        return noted(known, condition, None);
    }
    let found = resolve(service, backing.service.as_ref(), &backing.slices, rand::random_range(0..usize::MAX));
    match found {
        Err(error) => noted(known, Condition::failed_check(&service.host(), &error.to_string()), None),
        Ok(address) => match ask(known, &address).await {
            Ok(discovery) => noted(known, Condition::passed(), discovery),
            Err(condition) => noted(known, condition, None),
        },
    }
}

fn noted(known: &Known, condition: Condition, discovery: Option<Value>) -> Condition {
    known.note(condition.clone(), discovery);
    condition
}

/// Asks the server for the discovery of its version.
async fn ask(known: &Known, address: &Address) -> Result<Option<Value>, Condition> {
    let path = known.spec.discovery_path();
    let url = format!("https://{address}{path}");
    let failed = |why: &str| Condition::failed_check(&url, why);
    let remote = known.remote.as_ref().map_err(|e| failed(&e.to_string()))?;
    let mut request = Request::new(empty_body());
    *request.uri_mut() = path.parse().map_err(|_| failed("the path is no URI"))?;
    let headers = request.headers_mut();
    headers.insert("x-remote-user", HeaderValue::from_static("system:kube-aggregator"));
    headers.insert("x-remote-group", HeaderValue::from_static("system:masters"));
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
    let answer: http::Response<Bytes> = remote
        .fetch(address, request, MAX_DISCOVERY_BYTES, PATIENCE)
        .await
        .map_err(|e| failed(&format!("Get {url:?}: {e}")))?;
    let code = answer.status().as_u16();
    if !(200..300).contains(&code) {
        return Err(failed(&format!("bad status from {url}: {code}")));
    }
    Ok(serde_json::from_slice(answer.body()).ok())
}

async fn write(server: &Server, known: &Arc<Known>, condition: &Condition) {
    let name = &known.spec.name;
    let Some(object) = current(server, name).await else { return };
    if let Err(error) = set_condition(server, name, &object, condition.to_value()).await {
        tracing::warn!(api_service = name, %error, "the status of an APIService could not be written");
    }
}
