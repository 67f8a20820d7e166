//! Extended resources that nodes have as devices: pods ask for them by an amount, as of what device plugins count.
//!
//! A class of devices says which resource it is; every class is `deviceclass.resource.kubernetes.io/<name>`, too. What a
//! node does not count itself is asked for by a claim that the scheduler makes for the pod. Source: KEP-5004.

use super::devices::Devices;
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, ContainerExtendedResourceRequest, Pod};
use pintle_types::k8s::api::resource::v1::{DeviceClaim, DeviceRequest, ExactDeviceRequest, ResourceClaim};
use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::OwnerReference;
use pintle_types::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every class of devices is a resource of its name below this.
pub(super) const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/";
/// On claims that the scheduler made for such resources.
pub(super) const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// What the claim is called before it is written; not a name that any other could have.
const UNWRITTEN: &str = "<extended-resources>";
/// Upstream's words for a claim of an earlier attempt, and for a resource that a node has in no way.
pub(crate) const STALE: &str = "cannot schedule extended resource claim";
const UNKNOWN: &str = "cannot fit resource";

/// Whether a resource could be devices.
pub(crate) fn is_extended(name: &str) -> bool {
    let foreign = name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.");
    foreign || name.starts_with(IMPLICIT)
}

/// Whether the pod asks for resources that could be devices.
pub(crate) fn may_want(pod: &PodInfo) -> bool {
    pod.requests.others.iter().any(|(name, amount)| *amount > 0 && is_extended(name))
}

/// What a pod asks for, if any of it is devices.
#[derive(Clone, Debug)]
pub(super) struct Extended {
    pod: Arc<Pod>,
    wanted: Vec<(String, i64)>,
    /// The claim of an earlier attempt.
    stale: bool,
}

/// The claim for what a node has as devices, and which container gets what of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Special {
    pub(super) claim: ResourceClaim,
    pub(super) mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Extended {
    pub(super) fn new(pod: &PodInfo, devices: &Devices) -> Option<Self> {
        let asked = pod.requests.others.iter().filter(|(name, amount)| *amount > 0 && is_extended(name));
        let wanted: Vec<(String, i64)> = asked.cloned().collect();
        wanted.iter().any(|(name, _)| devices.class_of(name).is_some()).then(|| Self {
            pod: Arc::clone(&pod.pod),
            wanted,
            stale: devices.special(pod.pod.uid()).is_some(),
        })
    }

    /// The claim for the node; nothing when the node counts all of it itself.
    pub(super) fn claim(&self, node: &NodeInfo, devices: &Devices) -> Result<Option<Special>, &'static str> {
        if self.stale {
            return Err(STALE);
        }
        let mut classes: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, _) in &self.wanted {
            match devices.class_of(name) {
                Some(class) if node.allocatable.other(name) == 0 => drop(classes.insert(name, class)),
                _ if node.allocatable.others.iter().any(|(known, _)| known == name) => {}
                _ => return Err(UNKNOWN),
            }
        }
        if classes.is_empty() {
            return Ok(None);
        }
        let (requests, mappings) = requests(&self.pod, &classes);
        Ok(Some(Special { claim: self.made(requests), mappings }))
    }

    fn made(&self, requests: Vec<DeviceRequest>) -> ResourceClaim {
        let mut claim = ResourceClaim::default();
        let meta = &mut claim.metadata;
        meta.namespace = Some(self.pod.namespace().to_owned());
        meta.name = Some(UNWRITTEN.to_owned());
        // For as long as it has none of its own.
        meta.uid = Some(format!("{UNWRITTEN}{}", self.pod.uid()));
        meta.generate_name = Some(format!("{}-extended-resources-", self.pod.name()));
        meta.annotations = Some(BTreeMap::from([(ANNOTATION.to_owned(), "true".to_owned())]));
        meta.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.pod.name().to_owned(),
            uid: self.pod.uid().to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        claim.spec.devices = Some(DeviceClaim { requests: Some(requests), ..Default::default() });
        claim
    }
}

/// A container, its place among all (those that initialize come first), and whether it ends before others start.
struct Place<'a> {
    index: usize,
    container: &'a Container,
    ends: bool,
}

fn places(pod: &Pod) -> Vec<Place<'_>> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let first = spec.init_containers.iter().flatten();
    let ends = |container: &Container| container.restart_policy.as_deref() != Some("Always");
    let first = first.map(|container| (container, ends(container)));
    let all = first.chain(spec.containers.iter().map(|container| (container, false)));
    all.enumerate().map(|(index, (container, ends))| Place { index, container, ends }).collect()
}

/// A request for devices of one resource, and how many.
#[derive(Clone)]
struct Asked {
    name: String,
    count: i64,
}

/// What a container asks for of a resource, beyond what it can share with containers that start later.
fn ask(place: &Place<'_>, resource: &str, shared: &[&Asked]) -> (Option<Asked>, Vec<ContainerExtendedResourceRequest>) {
    let requests = place.container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let Some(requests) = requests else { return (None, Vec::new()) };
    let wanted = requests.get(resource).map_or(0, |raw| Quantity::from(raw).units());
    let mapping = |request: &str| ContainerExtendedResourceRequest {
        container_name: place.container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request.to_owned(),
    };
    let (mut mappings, mut sum) = (Vec::new(), 0);
    if wanted == 0 {
        return (None, mappings);
    }
    for other in shared {
        sum += other.count;
        mappings.push(mapping(&other.name));
        if sum >= wanted {
            return (None, mappings);
        }
    }
    let at = requests.keys().position(|name| name == resource).unwrap_or(0);
    let name = format!("container-{}-request-{at}", place.index);
    mappings.push(mapping(&name));
    (Some(Asked { name, count: wanted - sum }), mappings)
}

/// The requests of the claim for resources, each with its class, and which container gets what of them.
fn requests(pod: &Pod, classes: &BTreeMap<&str, &str>) -> (Vec<DeviceRequest>, Vec<ContainerExtendedResourceRequest>) {
    let places = places(pod);
    let (mut requests, mut mappings) = (Vec::new(), Vec::new());
    for (resource, class) in classes {
        let mut lasting: Vec<(usize, Asked)> = Vec::new();
        for place in places.iter().filter(|place| !place.ends) {
            let (asked, mapped) = ask(place, resource, &[]);
            lasting.extend(asked.map(|asked| (place.index, asked)));
            mappings.extend(mapped);
        }
        // Those that end early take what the later ones will have; the most that one needs beyond that serves all.
        let (mut most, mut names): (Option<Asked>, BTreeSet<String>) = (None, BTreeSet::new());
        let mut short: Vec<ContainerExtendedResourceRequest> = Vec::new();
        for place in places.iter().filter(|place| place.ends) {
            let later: Vec<&Asked> =
                lasting.iter().filter(|(index, _)| *index >= place.index).map(|(_, asked)| asked).collect();
            let (asked, mapped) = ask(place, resource, &later);
            short.extend(mapped);
            if let Some(asked) = asked {
                names.insert(asked.name.clone());
                if most.as_ref().is_none_or(|most| most.count < asked.count) {
                    most = Some(asked);
                }
            }
        }
        if let Some(most) = &most {
            let own = short.iter_mut().filter(|mapping| names.contains(&mapping.request_name));
            own.for_each(|mapping| mapping.request_name.clone_from(&most.name));
        }
        mappings.extend(short);
        requests
            .extend(most.into_iter().chain(lasting.into_iter().map(|(_, asked)| asked)).map(|it| request(it, class)));
    }
    requests.sort_by(|a: &DeviceRequest, b| a.name.cmp(&b.name));
    (requests, mappings)
}

fn request(asked: Asked, class: &str) -> DeviceRequest {
    let exactly = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: Some("ExactCount".to_owned()),
        count: Some(asked.count),
        ..Default::default()
    };
    DeviceRequest { name: asked.name, exactly: Some(exactly), first_available: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(name: &str, gpus: i64, always: bool) -> Value {
        let requests = json!({ "cpu": "1", "example.com/gpu": gpus.to_string() });
        let mut value = json!({ "name": name, "resources": { "requests": requests } });
        if gpus == 0 {
            value["resources"] = json!({});
        }
        if always {
            value["restartPolicy"] = "Always".into();
        }
        value
    }

    /// Containers that initialize (those with a `!` stay) and others, each `name=amount`; `request=count` of the
    /// claim, and `container=request` of what each gets.
    #[track_caller]
    fn check(first: &[&str], then: &[&str], expected: &[&str], mapped: &[&str]) {
        let each = |all: &[&str]| -> Vec<Value> {
            let parts = all.iter().map(|text| text.split_once('=').unwrap());
            let one = |(name, count): (&str, &str)| {
                container(name.trim_end_matches('!'), count.parse().unwrap(), name.ends_with('!'))
            };
            parts.map(one).collect()
        };
        let pod =
            json!({ "metadata": { "name": "p" }, "spec": { "initContainers": each(first), "containers": each(then) } });
        let pod = Pod::from_value(pod).unwrap();
        let (requests, mappings) = requests(&pod, &BTreeMap::from([("example.com/gpu", "gpu")]));
        let text = |it: &DeviceRequest| format!("{}={}", it.name, it.exactly.as_ref().unwrap().count.unwrap());
        assert_eq!(requests.iter().map(text).collect::<Vec<_>>(), expected);
        let text = |it: &ContainerExtendedResourceRequest| format!("{}={}", it.container_name, it.request_name);
        assert_eq!(mappings.iter().map(text).collect::<Vec<_>>(), mapped);
    }

    #[test]
    fn containers_get_requests_of_their_own_and_share_with_those_that_end_early() {
        const C0: &str = "container-0-request-1";
        check(&[], &["a=2"], &["container-0-request-1=2"], &[&format!("a={C0}")]);
        check(
            &[],
            &["a=1", "b=0", "c=3"],
            &["container-0-request-1=1", "container-2-request-1=3"],
            &["a=container-0-request-1", "c=container-2-request-1"],
        );
        // What the container will have is enough for the one before it.
        check(
            &["i=1"],
            &["a=2"],
            &["container-1-request-1=2"],
            &["a=container-1-request-1", "i=container-1-request-1"],
        );
        // Two that want more share what the hungrier one needs beyond it.
        check(
            &["i=3", "j=4"],
            &["a=2"],
            &["container-1-request-1=2", "container-2-request-1=2"],
            &[
                "a=container-2-request-1",
                "i=container-2-request-1",
                "i=container-1-request-1",
                "j=container-2-request-1",
                "j=container-1-request-1",
            ],
        );
        // A sidecar that runs already has its own.
        check(
            &["s!=1", "i=1"],
            &["a=0"],
            &["container-0-request-1=1", "container-1-request-1=1"],
            &["s=container-0-request-1", "i=container-1-request-1"],
        );
    }

    #[test]
    fn names_tell_what_could_be_devices() {
        for (name, expected) in [
            ("cpu", false),
            ("hugepages-2Mi", false),
            ("example.com/gpu", true),
            ("requests.example.com/gpu", false),
            ("kubernetes.io/x", false),
            ("deviceclass.resource.kubernetes.io/gpu", true),
        ] {
            assert_eq!(is_extended(name), expected, "{name}");
        }
    }
}
