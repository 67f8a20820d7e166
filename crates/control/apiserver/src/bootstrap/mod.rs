//! What every cluster has from the start: namespaces, roles, priority classes, the service of the API itself.
//!
//! Existing objects are left as they are, but for the roles' rules: somebody may be locked out by them.

mod roles;

use crate::server::Server;
use futures::{StreamExt, TryStreamExt};
use pintle_registry::{AdmitAll, GetOptions, Request, UserInfo};
use pintle_types::Status;
use serde_json::{Value, json};

const MANAGER: &str = "kube-apiserver";
/// Writes under way at a time: they share the store's commits.
const AT_ONCE: usize = 64;

/// Makes what is missing.
pub(crate) async fn run(server: &Server) -> Result<(), Status> {
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"];
    all(server, namespaces.map(|name| object("v1", "Namespace", "", name)).to_vec()).await?;
    all(server, roles::objects()).await?;
    all(server, priority_classes()).await?;
    all(server, crate::flow::objects()).await?;
    all(server, vec![tracking_map(server), service_cidr(server), service(server)]).await?;
    keep(server, authentication_map(server)).await
}

pub(crate) fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

async fn all(server: &Server, objects: Vec<Value>) -> Result<(), Status> {
    futures::stream::iter(objects).map(|object| ensure(server, object)).buffer_unordered(AT_ONCE).try_collect().await
}

struct Place {
    def: std::sync::Arc<pintle_kinds::ResourceDef>,
    namespace: String,
    name: String,
}

fn place(server: &Server, object: &Value) -> Result<Place, Status> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let table = server.registry.table();
    let def = table.by_kind(group, version, &kind).cloned().ok_or_else(Status::no_such_resource)?;
    Ok(Place { def, namespace: text(&object["metadata"]["namespace"]), name: text(&object["metadata"]["name"]) })
}

fn user() -> UserInfo {
    UserInfo { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..UserInfo::default() }
}

/// Makes an object unless it is there. Roles and bindings that lack something get it back.
async fn ensure(server: &Server, object: Value) -> Result<(), Status> {
    let place = place(server, &object)?;
    let found = server.registry.get(&place.def, &place.namespace, &place.name, &GetOptions::default()).await;
    match found {
        Ok(existing) => match restored(&existing.to_value(), &object) {
            Some(wanted) => replace(server, &place, wanted).await,
            None => Ok(()),
        },
        Err(status) if status.code == 404 => {
            let user = user();
            let request = Request::new(&user, &AdmitAll, MANAGER);
            match server.registry.create(&request, &place.def, &place.namespace, object).await {
                Err(status) if status.code != 409 => Err(status),
                _ => Ok(()),
            }
        }
        Err(status) => Err(status),
    }
}

async fn replace(server: &Server, place: &Place, wanted: Value) -> Result<(), Status> {
    let user = user();
    let request = Request::new(&user, &AdmitAll, MANAGER);
    server.registry.update(&request, &place.def, &place.namespace, &place.name, "", wanted).await.map(|_| ())
}

/// The existing role or binding with what it lacks, unless it lacks nothing or asks to be left alone.
fn restored(existing: &Value, wanted: &Value) -> Option<Value> {
    if existing["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] != "true" {
        return None;
    }
    let field = if wanted["roleRef"].is_object() { "subjects" } else { "rules" };
    let have = existing[field].as_array().cloned().unwrap_or_default();
    let missing: Vec<Value> =
        wanted[field].as_array().into_iter().flatten().filter(|item| !have.contains(item)).cloned().collect();
    if missing.is_empty() {
        return None;
    }
    let mut out = existing.clone();
    out[field] = have.into_iter().chain(missing).collect();
    Some(out)
}

/// Makes an object, or gives it these fields if it differs.
pub(crate) async fn keep(server: &Server, object: Value) -> Result<(), Status> {
    let place = place(server, &object)?;
    match server.registry.get(&place.def, &place.namespace, &place.name, &GetOptions::default()).await {
        Err(status) if status.code == 404 => ensure(server, object).await,
        Err(status) => Err(status),
        Ok(existing) => {
            let existing = existing.to_value();
            let mut wanted = existing.clone();
            for (field, value) in object.as_object().into_iter().flatten().filter(|(k, _)| *k != "metadata") {
                wanted[field] = value.clone();
            }
            if wanted == existing { Ok(()) } else { replace(server, &place, wanted).await }
        }
    }
}

fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        let mut class = object("scheduling.k8s.io/v1", "PriorityClass", "", name);
        class["value"] = value.into();
        class["description"] = description.into();
        class["preemptionPolicy"] = "PreemptLowerPriority".into();
        class
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// How extension servers check the certificates of this server's clients.
fn authentication_map(server: &Server) -> Value {
    let mut map = object("v1", "ConfigMap", "kube-system", "extension-apiserver-authentication");
    let proxy = server.auth.front_proxy.as_ref().map(|proxy| &proxy.settings);
    map["data"] = pintle_auth::authentication::front_proxy::published_data(&server.config.authority_pem, proxy);
    map
}

/// Since when the uses of tokens that secrets keep are noted; the cleaner of such tokens asks for it.
fn tracking_map(server: &Server) -> Value {
    let mut map = object("v1", "ConfigMap", "kube-system", "kube-apiserver-legacy-service-account-token-tracking");
    let today = server.clock.now().to_string();
    map["data"] = json!({"since": today.split('T').next()});
    map
}

fn service_cidr(server: &Server) -> Value {
    let mut cidr = object("networking.k8s.io/v1", "ServiceCIDR", "", "kubernetes");
    cidr["spec"] = json!({"cidrs": server.config.service_cidr.split(',').collect::<Vec<_>>()});
    cidr
}

fn service(server: &Server) -> Value {
    let address = server.config.service_address.to_string();
    let mut service = object("v1", "Service", "default", "kubernetes");
    service["metadata"]["labels"] = json!({"component": "apiserver", "provider": "kubernetes"});
    service["spec"] = json!({
        "clusterIP": address, "clusterIPs": [address], "type": "ClusterIP", "sessionAffinity": "None",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": if server.port() == 0 { 443 } else { server.port() }}],
    });
    service
}
