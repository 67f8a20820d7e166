//! Keeps priority and fairness in step with its objects, and tells which flow schemas have no priority level.

use crate::follow::{Change, Follower};
use crate::pipeline::Call;
use crate::request::RequestInfo;
use crate::server::Server;
use pintle_auth::User;
use pintle_fairness::{Digest, Target};
use pintle_registry::{AdmitAll, ListOptions, Patch, Request, UserInfo};
use pintle_types::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Objects of a list that one seat stands for, and the widest request; upstream's.
const OBJECTS_OF_SEAT: usize = 100;
const MOST_SEATS: usize = 10;

/// Follows flow schemas and priority levels until `stop`.
pub(crate) async fn start(server: &Arc<Server>, stop: &CancellationToken) -> Result<(), Status> {
    let changed = Arc::new(Notify::new());
    for (resource, schema) in [("prioritylevelconfigurations", false), ("flowschemas", true)] {
        let (known, changed) = (server.fairness.clone(), changed.clone());
        let apply = move |change: Change<'_>| {
            match change {
                Change::Set(object) => known.set(object),
                Change::Gone(object) => {
                    known.remove(schema, object["metadata"]["name"].as_str().unwrap_or_default());
                }
            }
            // All changes that come at a time are put into effect together, by the task below.
            changed.notify_one();
        };
        let follower = Follower::load(server, GROUP, resource, apply).await?;
        server.tasks.spawn(follower.run(stop.clone()));
    }
    server.fairness.settle();
    let (server, stop) = (server.clone(), stop.clone());
    server.clone().tasks.spawn(async move {
        while stop.run_until_cancelled(changed.notified()).await.is_some() {
            server.fairness.settle();
            if let Err(error) = tell_dangling(&server).await {
                tracing::warn!(%error, "the conditions of flow schemas could not be written");
            }
        }
    });
    Ok(())
}

/// Gives every schema its condition `Dangling`, where it has another.
async fn tell_dangling(server: &Server) -> Result<(), Status> {
    let table = server.registry.table();
    let def = table.get(GROUP, "v1", "flowschemas").cloned().ok_or_else(Status::no_such_resource)?;
    let list = server.registry.list(&def, "", &ListOptions::default()).await?;
    for object in &list.items {
        let object = object.to_value();
        let dangling = server.fairness.dangling(&object);
        let wanted = if dangling { "True" } else { "False" };
        let conditions = object["status"]["conditions"].as_array();
        let present = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Dangling"));
        if present.is_some_and(|c| c["status"] == wanted) {
            continue;
        }
        let level = object["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
        let (reason, message) = match dangling {
            true => (
                "NotFound",
                format!(
                    "This FlowSchema references the PriorityLevelConfiguration object named {level:?} but there is no such object"
                ),
            ),
            false => (
                "Found",
                format!(
                    "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"
                ),
            ),
        };
        let now = server.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let condition = json!({
            "type": "Dangling", "status": wanted, "lastTransitionTime": now, "reason": reason, "message": message,
        });
        let configuration = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": name},
            "status": {"conditions": [condition]},
        });
        let user =
            UserInfo { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
        let request = Request::new(&user, &AdmitAll, "api-priority-and-fairness-config-consumer-v1");
        let patch = Patch::Apply { configuration, force: true };
        match server.registry.patch(&request, &def, "", &name, "status", &patch).await {
            // Somebody else changed it: its event brings this task back.
            Err(status) if !matches!(status.code, 404 | 409) => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// A request as flow schemas see it.
pub(crate) fn digest<'a>(info: &'a RequestInfo, user: &'a User) -> Digest<'a> {
    let target = match &info.resource {
        None => Target::Path(&info.path),
        Some(r) => Target::Resource {
            group: &r.group,
            resource: &r.resource,
            subresource: &r.subresource,
            namespace: &r.namespace,
        },
    };
    Digest { user: &user.name, groups: &user.groups, verb: info.verb, target }
}

/// The seats that a request takes: lists as many as they read much.
pub(crate) fn width(call: &Call) -> u32 {
    let Some(path) = call.info.resource.as_ref().filter(|_| call.info.verb == "list") else { return 1 };
    let table = call.server.registry.table();
    let Some(def) = table.get(&path.group, &path.version, &path.resource) else { return 1 };
    let mut count = call.server.registry.count(def);
    if let Ok(Some(limit)) = call.query.number("limit")
        && let Ok(limit) = usize::try_from(limit)
        && limit > 0
    {
        count = count.min(limit);
    }
    count.div_ceil(OBJECTS_OF_SEAT).clamp(1, MOST_SEATS) as u32
}

/// The objects of a new cluster.
pub(crate) fn objects() -> Vec<Value> {
    pintle_fairness::default_levels().into_iter().chain(pintle_fairness::default_schemas()).collect()
}
