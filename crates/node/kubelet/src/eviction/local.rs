//! Finds pods that use more of the node's disk than they may. Pure.

use crate::reference::{lasting_containers, spec};
use crate::stats::PodUse;
use pintle_types::k8s::api::core::v1::{Container, EmptyDirVolumeSource, Pod};
use pintle_types::quantity::Quantity;

const RESOURCE: &str = "ephemeral-storage";

fn bytes(quantity: &Quantity) -> u64 {
    u64::try_from(quantity.units()).unwrap_or(0)
}

fn limit(container: &Container) -> Option<Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE).map(Quantity::from)
}

/// The limit of a volume that is held here; one in memory is held by its filesystem as well.
fn size_limit(source: &EmptyDirVolumeSource) -> Option<Quantity> {
    source.size_limit.as_ref().map(Quantity::from).filter(|limit| !limit.is_zero())
}

/// Whether a pod has a limit that must be looked after at all.
pub fn has_limits(pod: &Pod) -> bool {
    let volumes = spec(pod).volumes.iter().flatten();
    volumes.filter_map(|v| v.empty_dir.as_ref()).any(|e| size_limit(e).is_some())
        || lasting_containers(pod).any(|(_, c)| limit(c).is_some())
}

/// Why a pod must go, in upstream's words, if it must.
pub fn excess(pod: &Pod, usage: &PodUse) -> Option<String> {
    volume(pod, usage).or_else(|| whole(pod, usage)).or_else(|| container(pod, usage))
}

fn volume(pod: &Pod, usage: &PodUse) -> Option<String> {
    spec(pod).volumes.iter().flatten().find_map(|volume| {
        let limit = size_limit(volume.empty_dir.as_ref()?)?;
        let used = usage.volumes.iter().find(|v| v.name == volume.name)?.size.bytes;
        let name = &volume.name;
        (used > bytes(&limit))
            .then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.to_string()))
    })
}

/// A pod has a limit when all its containers have one.
fn whole(pod: &Pod, usage: &PodUse) -> Option<String> {
    let limits: Option<Vec<Quantity>> = spec(pod).containers.iter().map(limit).collect();
    let total = limits?.into_iter().reduce(|a, b| a + b)?;
    (usage.ephemeral().bytes > bytes(&total))
        .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "))
}

fn container(pod: &Pod, usage: &PodUse) -> Option<String> {
    usage.containers.iter().find_map(|used| {
        let (_, container) = lasting_containers(pod).find(|(_, c)| c.name == used.name)?;
        let limit = limit(container)?;
        let name = &used.name;
        (used.root.bytes + used.log.bytes > bytes(&limit))
            .then(|| format!("Container {name} exceeded its local ephemeral storage limit {:?}. ", limit.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use crate::stats::disk_usage::DiskUse;
    use crate::stats::{ContainerUse, VolumeUse};
    use serde_json::{Value, json};

    fn check(resources: Value, volume: u64, layer: u64, expected: Option<&str>) {
        let pod = pod(json!({
            "containers": [{"name": "c", "resources": resources}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
        }));
        assert!(has_limits(&pod));
        let size = |bytes| DiskUse { bytes, inodes: 1 };
        let usage = PodUse {
            containers: vec![ContainerUse { name: "c".into(), root: size(layer), ..Default::default() }],
            volumes: vec![VolumeUse { name: "v".into(), size: size(volume), ephemeral: true, ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(excess(&pod, &usage).as_deref(), expected);
    }

    #[test]
    fn limits_are_held() {
        let limited = json!({"limits": {"ephemeral-storage": "2Mi"}});
        check(json!({}), 1 << 20, 1 << 30, None);
        check(json!({}), (1 << 20) + 1, 0, Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "));
        check(limited.clone(), 1 << 20, 1 << 20, None);
        let total = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ";
        check(limited, 1 << 20, 2 << 20, Some(total));
    }
}
