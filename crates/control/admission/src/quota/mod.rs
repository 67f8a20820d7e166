//! ResourceQuota: charges what is created to the quotas of its namespace, and refuses what is too much.
//!
//! A charge is written to the quota's status before the object is stored, and only if nobody else wrote it in between;
//! the controller of quotas counts again what was charged and then not stored.
//!
//! Source: `pkg/admission/plugin/resourcequota` of Kubernetes' apiserver.

mod charge;
#[cfg(test)]
mod tests;

use charge::Charge;
use pintle_quota::Resource;
use pintle_registry::{AdmitAll, Attributes, ListOptions, Operation, Registry, Request, UserInfo};
use pintle_types::Status;
use serde_json::Value;

/// How often a charge starts over because somebody else charged the same quota.
const ATTEMPTS: usize = 8;
/// Who writes the charges.
const MANAGER: &str = "kube-apiserver";

/// Whether a write can use more of a quota.
fn applies(attributes: &Attributes<'_>, resource: Resource<'_>) -> bool {
    if attributes.namespace.is_empty() {
        return false;
    }
    let is_pod = resource == Resource::new("", "pods");
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") => resource.changes(),
        (Operation::Update, "resize") => is_pod,
        _ => false,
    }
}

/// Charges a write; `now` in seconds since 1970.
pub async fn charge(registry: &Registry, attributes: &Attributes<'_>, now: i64) -> Result<(), Status> {
    let resource = Resource::new(&attributes.def.storage.group, &attributes.def.storage.resource);
    let Some(object) = attributes.object.as_ref().filter(|_| applies(attributes, resource)) else { return Ok(()) };
    let old = attributes.old_object.as_deref().filter(|_| attributes.operation == Operation::Update);
    let refuse = |why: String| {
        let def = attributes.def;
        Status::forbidden(&def.group, &def.resource, attributes.name, &why)
    };
    let mut charged: Vec<String> = Vec::new();
    let mut conflict = None;
    for _ in 0..ATTEMPTS {
        let quotas = quotas(registry, attributes.namespace).await?;
        if quotas.is_empty() {
            return Ok(());
        }
        let charge = Charge { resource, object, old, now };
        let changed = charge.on(&quotas, &charged).map_err(refuse)?;
        if changed.is_empty() || attributes.dry_run {
            return Ok(());
        }
        conflict = write(registry, attributes.namespace, changed, &mut charged).await?;
        if conflict.is_none() {
            return Ok(());
        }
    }
    conflict.map_or(Ok(()), Err)
}

async fn quotas(registry: &Registry, namespace: &str) -> Result<Vec<Value>, Status> {
    let table = registry.table();
    let def = table.get("", "v1", "resourcequotas").ok_or_else(Status::no_such_resource)?;
    let found = registry.list(def, namespace, &ListOptions::default()).await?;
    Ok(found.items.iter().map(|quota| quota.to_value()).collect())
}

/// Writes the charges. Gives the conflict when a quota was changed in between; what was written until then is noted in
/// `charged`.
async fn write(
    registry: &Registry,
    namespace: &str,
    changed: Vec<Value>,
    charged: &mut Vec<String>,
) -> Result<Option<Status>, Status> {
    let table = registry.table();
    let def = table.get("", "v1", "resourcequotas").ok_or_else(Status::no_such_resource)?;
    let user =
        UserInfo { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..Default::default() };
    let by = Request::new(&user, &AdmitAll, MANAGER);
    let mut conflict = None;
    for quota in changed {
        let name = quota["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match registry.update(&by, def, namespace, &name, "status", quota).await {
            Ok(_) => charged.push(name),
            // A quota that is gone limits nothing.
            Err(status) if status.code == 404 => {}
            Err(status) if status.code == 409 => conflict = Some(status),
            Err(status) => return Err(status),
        }
    }
    Ok(conflict)
}
