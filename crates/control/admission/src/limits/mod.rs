//! LimitRanger: what the limit ranges of a namespace give to pods that say nothing, and what they refuse.
//!
//! Source: `plugin/pkg/admission/limitranger` of Kubernetes.

mod check;
mod defaults;
#[cfg(test)]
mod tests;

use pintle_kinds::tree::list;
use pintle_registry::{Attributes, ListOptions, Operation, Registry};
use pintle_types::Status;
use serde_json::Value;

/// Whether the limit ranges have a say in this write.
fn applies(attributes: &Attributes<'_>) -> bool {
    if !attributes.def.group.is_empty() || attributes.namespace.is_empty() {
        return false;
    }
    match (&*attributes.def.resource, attributes.subresource, attributes.operation) {
        // Containers of a pod don't change, but for their resources; and claims grow.
        ("pods", "", Operation::Create) | ("pods", "resize", Operation::Update) => true,
        ("persistentvolumeclaims", "", Operation::Create | Operation::Update) => true,
        _ => false,
    }
}

async fn ranges(registry: &Registry, namespace: &str) -> Result<Vec<Value>, Status> {
    let table = registry.table();
    let def = table.get("", "v1", "limitranges").ok_or_else(Status::no_such_resource)?;
    let found = registry.list(def, namespace, &ListOptions::default()).await?;
    Ok(found.items.iter().map(|range| range.to_value()).collect())
}

/// Gives the containers of a new pod the defaults of the namespace.
pub async fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !applies(attributes) || attributes.def.resource != "pods" {
        return Ok(());
    }
    let ranges = ranges(registry, attributes.namespace).await?;
    let Some(pod) = &mut attributes.object else { return Ok(()) };
    // A resize says what it wants; nothing is added to it.
    if attributes.subresource.is_empty() {
        ranges.iter().for_each(|range| defaults::apply(range, pod));
    }
    Ok(())
}

/// Refuses what exceeds the limits of the namespace; each refused limit is named.
pub async fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    let Some(object) = attributes.object.as_ref().filter(|_| applies(attributes)) else { return Ok(()) };
    for range in ranges(registry, attributes.namespace).await? {
        let mut errors = Vec::new();
        for limit in list(&range["spec"], "limits") {
            match &*attributes.def.resource {
                "pods" => check::pod(limit, object, &mut errors),
                _ => check::claim(limit, object, &mut errors),
            }
        }
        if let Some(why) = aggregate(errors) {
            let def = attributes.def;
            return Err(Status::forbidden(&def.group, &def.resource, attributes.name, &why));
        }
    }
    Ok(())
}

/// Several refusals as upstream joins them: without repetitions, in brackets.
fn aggregate(errors: Vec<String>) -> Option<String> {
    let mut unique: Vec<String> = Vec::new();
    for error in errors {
        if !unique.contains(&error) {
            unique.push(error);
        }
    }
    match unique.len() {
        0 => None,
        1 => unique.pop(),
        _ => Some(format!("[{}]", unique.join(", "))),
    }
}
