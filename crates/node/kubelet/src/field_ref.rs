//! Reads the fields of a pod that its containers may know: `fieldRef` and `resourceFieldRef`.

use crate::host::Settings;
use crate::reference::{init_containers, spec};
use crate::resources::limit;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod, ResourceFieldSelector};
use pintle_types::quantity::Quantity;
use std::collections::BTreeMap;

/// A field that is not there to be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
}

/// The value of a field. `ips` are the pod's addresses as its sandbox has them.
pub fn field(pod: &Pod, path: &str, ips: &[String], settings: &Settings) -> Result<String, FieldError> {
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(FieldError::Field(path.into())),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => settings.node_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => settings.node_ips.join(","),
        "status.podIP" => ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => ips.join(","),
        _ => return Err(FieldError::Field(path.into())),
    })
}

/// `metadata.labels['key']`
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// `key="value"` lines, quoted as Go does.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// A container's request or limit in units of the divisor, rounded up. What has no limit may use all that pods can have.
pub fn resource(
    pod: &Pod,
    selector: &ResourceFieldSelector,
    own: Option<&Container>,
    settings: &Settings,
) -> Result<String, FieldError> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        Some(name) => init_containers(pod)
            .iter()
            .chain(&spec(pod).containers)
            .find(|c| c.name == name)
            .ok_or_else(|| FieldError::Container(name.into()))?,
        None => own.ok_or_else(|| FieldError::Container(String::new()))?,
    };
    let unsupported = || FieldError::Resource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let amount = match list {
        "limits" => limit(resources, name).filter(|q| !q.is_zero()).or_else(|| machine(name, settings)),
        "requests" => resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get(name)).map(Quantity::from),
        _ => return Err(unsupported()),
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let divisor = selector.divisor.as_ref().map(Quantity::from).filter(|d| !d.is_zero());
    Ok(divided(amount.unwrap_or(Quantity::ZERO), divisor, name).to_string())
}

fn machine(name: &str, settings: &Settings) -> Option<Quantity> {
    let units =
        |n: u64| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), pintle_types::quantity::Format::BinarySi);
    match name {
        "cpu" => Some(Quantity::from_milli(i64::try_from(settings.allocatable_milli_cpu).unwrap_or(i64::MAX))),
        "memory" => Some(units(settings.allocatable_memory)),
        _ => None,
    }
}

fn divided(amount: Quantity, divisor: Option<Quantity>, name: &str) -> i64 {
    let up = |a: i64, b: i64| if b <= 0 { a } else { a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0) };
    if name == "cpu" {
        up(amount.milli(), divisor.map_or(1000, |d| d.milli()))
    } else {
        up(amount.units(), divisor.map_or(1, |d| d.units()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::json;

    pub fn settings() -> Settings {
        crate::fake::host::settings(std::path::Path::new("/nowhere"))
    }

    #[test]
    fn fields_are_read() {
        let mut pod = pod(json!({"containers": [], "nodeName": "n1", "serviceAccountName": "sa"}));
        pod.metadata.labels = Some([("app".to_owned(), "we\"b".to_owned())].into());
        let ips = ["10.42.0.5".to_owned()];
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.uid", "u1"),
            ("metadata.labels", "app=\"we\\\"b\""),
            ("metadata.labels['app']", "we\"b"),
            ("metadata.annotations['none']", ""),
            ("spec.nodeName", "n1"),
            ("status.podIP", "10.42.0.5"),
            ("status.hostIP", "192.0.2.1"),
        ] {
            assert_eq!(field(&pod, path, &ips, &settings()).as_deref(), Ok(value), "{path}");
        }
        assert!(field(&pod, "spec.containers", &ips, &settings()).is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod(json!({"containers": [{"name": "a", "resources":
            {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}}}]}));
        for (name, divisor, value) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.cpu", Some("1m"), "250"),
            ("requests.cpu", None, "1"),
            ("limits.memory", Some("1Mi"), "100"),
            ("limits.memory", None, "104857600"),
            ("requests.memory", None, "0"),
        ] {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": name, "divisor": divisor})).unwrap();
            let own = &spec(&pod).containers[0];
            assert_eq!(resource(&pod, &selector, Some(own), &settings()).as_deref(), Ok(value), "{name} {divisor:?}");
        }
    }
}
