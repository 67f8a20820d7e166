//! Namespaces whose levels change: wrong labels are refused, and pods that the new level would refuse are told of.

use super::configuration::Configuration;
use super::policy::{Level, Policies, Policy};
use pintle_registry::{Attributes, ListOptions, Operation, Registry};
use pintle_types::Status;
use pintle_types::field::ErrorList;
use pintle_types::names::GroupKind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many pods are looked at, for so long.
const MAX_PODS: usize = 3000;
const PATIENCE: Duration = Duration::from_secs(1);

/// Errors of fields as upstream's plugin joins them.
pub(super) fn shown(errors: &ErrorList) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
}

/// What a namespace with other labels means for the pods in it.
pub(super) async fn judge(
    configuration: &Configuration,
    registry: &Registry,
    attributes: &mut Attributes<'_>,
) -> Result<(), Status> {
    let labels = |object: Option<&Value>| {
        Policies::of(&object.unwrap_or(&Value::Null)["metadata"]["labels"], &configuration.defaults)
    };
    let (new, errors) = labels(attributes.object.as_ref());
    let (old, old_errors) = labels(attributes.old_object.as_deref());
    let created = attributes.operation == Operation::Create;
    if !errors.is_empty() && (created || shown(&errors) != shown(&old_errors)) {
        let kind = GroupKind { group: String::new(), kind: "Namespace".into() };
        return Err(Status::invalid(&kind, attributes.name, &errors));
    }
    let (before, after) = (old.enforce, new.enforce);
    let relaxed = after.version == before.version && after.level <= before.level;
    if created
        || after == before
        || after.level == Level::Privileged
        || relaxed
        || configuration.namespaces.iter().any(|name| name == attributes.name)
    {
        return Ok(());
    }
    match warnings(configuration, registry, attributes.name, after).await {
        Ok(warnings) => attributes.warnings.extend(warnings),
        Err(_) => {
            let told = "failed to list pods while checking new PodSecurity enforce level";
            attributes.warnings.push(told.into());
        }
    }
    Ok(())
}

async fn warnings(
    configuration: &Configuration,
    registry: &Registry,
    namespace: &str,
    policy: Policy,
) -> Result<Vec<String>, Status> {
    let began = std::time::Instant::now();
    let table = registry.table();
    let def = table.get("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
    let pods = registry.list(def, namespace, &ListOptions::default()).await?;
    let (total, mut checked) = (pods.items.len(), 0);
    // By what is wrong: the first pod by name, and how many there are.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.items.iter().take(MAX_PODS) {
        checked += 1;
        let pod = pod.to_value();
        if !configuration.lets_off_class(&pod["spec"]) {
            note(&mut found, &pod, policy);
        }
        if began.elapsed() > PATIENCE {
            break;
        }
    }
    let mut told = Vec::new();
    if checked < total {
        told.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        told.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{policy}\""
        ));
    }
    let mut each: Vec<String> = found.into_iter().map(|(why, (name, count))| line(&name, count, &why)).collect();
    each.sort();
    told.extend(each);
    Ok(told)
}

fn note(found: &mut BTreeMap<String, (String, usize)>, pod: &Value, policy: Policy) {
    let violations = policy.violations(&pod["metadata"], &pod["spec"]);
    if violations.is_empty() {
        return;
    }
    let why = violations.into_iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ");
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let entry = found.entry(why).or_insert_with(|| (name.to_owned(), 0));
    entry.1 += 1;
    if name < entry.0.as_str() {
        name.clone_into(&mut entry.0);
    }
}

fn line(name: &str, count: usize, why: &str) -> String {
    match count {
        1 => format!("{name}: {why}"),
        2 => format!("{name} (and 1 other pod): {why}"),
        more => format!("{name} (and {} other pods): {why}", more - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_by_what_is_wrong_with_them() {
        assert_eq!(line("a", 1, "x"), "a: x");
        assert_eq!(line("a", 2, "x"), "a (and 1 other pod): x");
        assert_eq!(line("a", 4, "x"), "a (and 3 other pods): x");
    }
}
