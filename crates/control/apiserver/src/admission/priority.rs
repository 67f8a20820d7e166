//! Priority: the class of a pod as a number, and one default class at most.
//!
//! Source: `plugin/pkg/admission/priority` of Kubernetes.

use super::{creates, forbidden};
use crate::server::Server;
use pintle_registry::{Attributes, GetOptions, ListOptions, Operation};
use pintle_types::Status;
use serde_json::Value;

/// Gives a new pod the number and the policy of its class.
pub(super) async fn admit(server: &Server, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !creates(attributes, "pods") {
        return Ok(());
    }
    let Some(mut pod) = attributes.object.take() else { return Ok(()) };
    let result = resolve(server, attributes, &mut pod).await;
    attributes.object = Some(pod);
    result
}

async fn resolve(server: &Server, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    let table = server.registry.table();
    let def = table.get("scheduling.k8s.io", "v1", "priorityclasses").ok_or_else(Status::no_such_resource)?;
    let wanted = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if wanted.is_empty() {
        default_class(server).await?
    } else {
        match server.registry.get(def, "", &wanted, &GetOptions::default()).await {
            Ok(class) => Some(class.to_value()),
            Err(status) if status.code == 404 => {
                return Err(forbidden(attributes, &format!("no PriorityClass with name {wanted} was found")));
            }
            Err(status) => return Err(status),
        }
    };
    let text = |field: &str| class.as_ref().and_then(|c| c[field].as_str()).map(str::to_owned);
    let value = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
    let policy = text("preemptionPolicy").unwrap_or_else(|| "PreemptLowerPriority".into());
    if pod["spec"]["priority"].as_i64().is_some_and(|given| given != value) {
        let why = "the integer value of priority must not be provided in pod spec; priority admission controller \
                   computed {value} from the given PriorityClass name";
        return Err(forbidden(attributes, &why.replace("{value}", &value.to_string())));
    }
    let Some(spec) = pod["spec"].as_object_mut() else { return Ok(()) };
    if spec.get("preemptionPolicy").and_then(Value::as_str).is_some_and(|given| given != policy) {
        let why = "the string value of PreemptionPolicy must not be provided in pod spec; priority admission controller \
                   computed {policy} from the given PriorityClass name";
        return Err(forbidden(attributes, &why.replace("{policy}", &policy)));
    }
    if wanted.is_empty()
        && let Some(class) = &class
    {
        spec.insert("priorityClassName".into(), class["metadata"]["name"].clone());
    }
    spec.insert("priority".into(), value.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// Of the classes marked as the default, the one with the lowest value.
async fn default_class(server: &Server) -> Result<Option<Value>, Status> {
    let table = server.registry.table();
    let def = table.get("scheduling.k8s.io", "v1", "priorityclasses").ok_or_else(Status::no_such_resource)?;
    let list = server.registry.list(def, "", &ListOptions::default()).await?;
    let defaults = list.items.iter().map(|o| o.to_value()).filter(|c| c["globalDefault"] == true);
    Ok(defaults.min_by_key(|c| c["value"].as_i64().unwrap_or_default()))
}

/// Refuses a second default class.
pub(super) async fn one_default(server: &Server, attributes: &Attributes<'_>) -> Result<(), Status> {
    if attributes.def.group != "scheduling.k8s.io" || attributes.def.resource != "priorityclasses" {
        return Ok(());
    }
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    if !writes || attributes.object.as_ref().is_none_or(|c| c["globalDefault"] != true) {
        return Ok(());
    }
    match default_class(server).await? {
        Some(class) if class["metadata"]["name"] != attributes.name => {
            let name = class["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(forbidden(attributes, &why))
        }
        _ => Ok(()),
    }
}
