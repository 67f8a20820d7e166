//! What pods ask of the machine's processors, memory and devices, and what their containers are made with therefore.

use crate::container_status::StartFailure;
use crate::host::Host;
use crate::labels;
use crate::reference::{ContainerKind, is_sidecar, lasting_containers, pod_text};
use crate::resources::{NO_QUOTA, Qos, limit, qos_class, request};
use crate::status::{Ended, is_final};
use pintle_cri::{ContainerConfig, ContainerFilter, ContainerState, Device, LinuxContainerResources, Mount};
use pintle_placement::{ContainerAsk, Given, Phase, PodAsk, PodNames};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, Pod};
use pintle_types::quantity::Quantity;

/// What a pod asks for.
pub fn ask(pod: &Pod) -> PodAsk {
    // Resources of the pod as a whole are no container's own.
    let guaranteed = qos_class(pod) == Qos::Guaranteed && crate::reference::spec(pod).resources.is_none();
    let containers = lasting_containers(pod).map(|(kind, container)| of_container(kind, container)).collect();
    PodAsk { uid: pod.uid().to_owned(), guaranteed, containers }
}

fn of_container(kind: ContainerKind, container: &Container) -> ContainerAsk {
    let resources = container.resources.as_ref();
    let positive = |amount: i64| u64::try_from(amount).unwrap_or(0);
    let limits = resources.and_then(|r| r.limits.as_ref()).into_iter().flatten();
    let extended = limits.filter(|(name, _)| name.contains('/'));
    ContainerAsk {
        name: container.name.clone(),
        phase: match kind {
            ContainerKind::Init if is_sidecar(container) => Phase::Sidecar,
            ContainerKind::Init => Phase::Init,
            _ => Phase::Regular,
        },
        milli_cpu: positive(request(resources, "cpu").map_or(0, |q| q.milli())),
        memory_bytes: positive(limit(resources, "memory").map_or(0, |q| q.units())),
        devices: extended.map(|(name, text)| (name.clone(), positive(Quantity::from(text).units()))).collect(),
    }
}

/// Gives a pod what it asks for, or says why this node does not take it. One that was here before is not asked again.
pub async fn admit(host: &Host, pod: &Pod) -> Option<Ended> {
    if !crate::admission::is_new(pod) {
        return None;
    }
    let shared = host.placement.shared_cpus();
    let refusal = host.placement.admit(&ask(pod)).await.err();
    if host.placement.shared_cpus() != shared {
        share_out(host).await;
    }
    refusal.map(|refusal| Ended { reason: refusal.reason, message: refusal.message })
}

/// Takes back what a pod has.
pub async fn release(host: &Host, uid: &str) {
    retain(host, |other| other != uid).await;
}

/// Takes back what pods have that are not among those.
pub async fn retain(host: &Host, stays: impl Fn(&str) -> bool) {
    if host.placement.retain(stays) {
        share_out(host).await;
    }
}

/// Tells running containers without processors of their own which ones they share now.
async fn share_out(host: &Host) {
    let Some(shared) = host.placement.shared_cpus() else { return };
    let filter = ContainerFilter { state: Some(ContainerState::Running), ..Default::default() };
    let containers = match host.runtime.list_containers(filter).await {
        Ok(containers) => containers,
        Err(error) => return tracing::warn!(%error, "containers can't be told which processors they share"),
    };
    for container in containers {
        let label = |name: &str| container.labels.get(name).map(String::as_str).unwrap_or_default();
        if host.placement.own_cpus(label(labels::POD_UID), label(labels::CONTAINER_NAME)).is_some() {
            continue;
        }
        let resources = LinuxContainerResources { cpuset_cpus: shared.clone(), ..Default::default() };
        if let Err(error) = host.runtime.update_container_resources(&container.id, resources).await {
            tracing::warn!(%error, id = container.id, "a container can't be told which processors it shares");
        }
    }
}

/// Adds to a container's configuration what it was given.
pub async fn apply(
    host: &Host,
    pod: &Pod,
    container: &Container,
    config: &mut ContainerConfig,
) -> Result<(), StartFailure> {
    let given = host.placement.container(pod.uid(), &container.name).await.map_err(|error| {
        tracing::warn!(%error, pod = pod_text(pod), container = container.name, "devices can't be prepared");
        StartFailure { reason: "CreateContainerConfigError".into(), message: error.to_string() }
    })?;
    add(given, config);
    Ok(())
}

fn add(given: Given, config: &mut ContainerConfig) {
    if given.owns_cpus && config.resources.cpu_quota > 0 {
        // It can't use more than it has, and would only be held up on what it has.
        config.resources.cpu_quota = NO_QUOTA;
    }
    config.resources.cpuset_cpus = given.cpus;
    config.resources.cpuset_mems = given.memory_nodes;
    // What the pod says of a variable, a path or an annotation goes before what a plugin says.
    for (name, value) in given.envs {
        if config.envs.iter().all(|(own, _)| *own != name) {
            config.envs.push((name, value));
        }
    }
    for mount in given.mounts {
        if config.mounts.iter().all(|own| own.container_path != mount.container_path) {
            config.mounts.push(Mount {
                container_path: mount.container_path,
                host_path: mount.host_path,
                readonly: mount.read_only,
                ..Default::default()
            });
        }
    }
    config.devices.extend(given.devices.into_iter().map(|device| Device {
        container_path: device.container_path,
        host_path: device.host_path,
        permissions: device.permissions,
    }));
    for (name, value) in given.annotations {
        config.annotations.entry(name).or_insert(value);
    }
    config.cdi_devices = given.cdi;
}

/// A pod as monitors know it; nothing of one that has ended.
pub fn names(pod: &Pod) -> Option<PodNames> {
    let ended = is_final(pod.status.as_ref().and_then(|status| status.phase.as_deref()));
    let lasting =
        |(kind, container): &(ContainerKind, &Container)| *kind == ContainerKind::Regular || is_sidecar(container);
    (!ended).then(|| PodNames {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        containers: lasting_containers(pod).filter(lasting).map(|(_, c)| c.name.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use pintle_placement::device_plugin::{DeviceMount, DeviceSpec};
    use serde_json::json;

    #[test]
    fn requests_of_pods_are_read() {
        let limits = json!({"cpu": "2", "memory": "1Gi", "example.com/key": "3"});
        let pod = pod(json!({
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"limits": limits}}],
            "containers": [{"name": "c", "resources": {"limits": limits}}]}));
        let asked = ask(&pod);
        assert!(asked.guaranteed);
        assert_eq!(asked.containers[0].phase, Phase::Sidecar);
        let container = &asked.containers[1];
        assert_eq!((container.milli_cpu, container.memory_bytes), (2000, 1 << 30));
        assert_eq!(container.devices, [("example.com/key".to_owned(), 3)].into());
        assert_eq!(names(&pod).unwrap().containers, ["s", "c"]);
    }

    #[test]
    fn what_the_pod_says_goes_first() {
        let text = |text: &str| text.to_owned();
        let given = Given {
            cpus: text("2-3"),
            owns_cpus: true,
            envs: [(text("A"), text("plugin")), (text("B"), text("plugin"))].into(),
            mounts: vec![DeviceMount { container_path: text("/m"), host_path: text("/h"), read_only: true }],
            devices: vec![DeviceSpec {
                container_path: text("/dev/k"),
                host_path: text("/dev/null"),
                permissions: text("rw"),
            }],
            cdi: vec![text("vendor.com/class=one")],
            ..Given::default()
        };
        let mut config = ContainerConfig { envs: vec![(text("A"), text("pod"))], ..Default::default() };
        config.resources.cpu_quota = 200_000;
        add(given, &mut config);
        assert_eq!(config.resources.cpu_quota, NO_QUOTA);
        assert_eq!(config.envs, [(text("A"), text("pod")), (text("B"), text("plugin"))]);
        assert_eq!((config.resources.cpuset_cpus.as_str(), config.mounts[0].readonly), ("2-3", true));
        assert_eq!((config.devices[0].container_path.as_str(), config.cdi_devices.len()), ("/dev/k", 1));
    }
}
