//! The kubelet's PodResources API, v1: which pods have which devices, processors and memory.
//!
//! Source: `k8s.io/kubelet/pkg/apis/podresources/v1/api.proto`; KEP-2043, KEP-2403, KEP-3695.

use crate::cpu_set::CpuSet;
use crate::placement::Placement;
use futures::FutureExt;
use futures::future::BoxFuture;
use messages::{
    AllocatableResourcesResponse, ContainerDevices, ContainerMemory, ContainerResources, GetPodResourcesRequest,
    GetPodResourcesResponse, ListPodResourcesResponse, NUMANode, PodResources, TopologyInfo,
};
use pintle_grpc::{Answer, Call, Code, Limits, Service, Status};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const SOCKET: &str = "kubelet.sock";

/// A pod that runs, and its containers that last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNames {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub containers: Vec<String>,
}

/// What is asked and answered.
pub mod messages {
    pintle_grpc::messages! {
        NUMANode { 1 id: i64, }
        TopologyInfo { 1 nodes: Vec<NUMANode>, }
        ContainerDevices {
            1 resource_name: String,
            2 ids: Vec<String>,
            3 topology: Option<TopologyInfo>,
        }
        ContainerMemory {
            1 memory_type: String,
            2 size: u64,
            3 topology: Option<TopologyInfo>,
        }
        ContainerResources {
            1 name: String,
            2 devices: Vec<ContainerDevices>,
            3 cpu_ids: Vec<i64>,
            4 memory: Vec<ContainerMemory>,
        }
        PodResources {
            1 name: String,
            2 namespace: String,
            3 containers: Vec<ContainerResources>,
        }
        ListPodResourcesRequest {}
        ListPodResourcesResponse { 1 pods: Vec<PodResources>, }
        GetPodResourcesRequest {
            1 pod_name: String,
            2 pod_namespace: String,
        }
        GetPodResourcesResponse { 1 pod: Option<PodResources>, }
        AllocatableResourcesRequest {}
        AllocatableResourcesResponse {
            1 devices: Vec<ContainerDevices>,
            2 cpu_ids: Vec<i64>,
            3 memory: Vec<ContainerMemory>,
        }
    }
}

pub(crate) fn serve<P: Fn() -> Vec<PodNames> + Send + Sync + 'static>(
    placement: Arc<Placement>,
    folder: &Path,
    pods: P,
    stop: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    std::fs::create_dir_all(folder)?;
    let listener = pintle_grpc::bind(&folder.join(SOCKET), 0o600)?;
    let lister = Arc::new(Lister { placement, pods });
    Ok(pintle_grpc::serve(listener, lister, Limits::default(), stop))
}

struct Lister<P> {
    placement: Arc<Placement>,
    pods: P,
}

impl<P: Fn() -> Vec<PodNames> + Send + Sync + 'static> Service for Lister<P> {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>> {
        async move {
            match call.method.as_str() {
                "/v1.PodResourcesLister/List" => {
                    let pods = (self.pods)().iter().map(|pod| self.pod(pod)).collect();
                    Ok(Answer::once(&ListPodResourcesResponse { pods }))
                }
                "/v1.PodResourcesLister/Get" => {
                    let asked: GetPodResourcesRequest = call.request()?;
                    let is_it = |pod: &PodNames| pod.name == asked.pod_name && pod.namespace == asked.pod_namespace;
                    let found = (self.pods)().into_iter().find(is_it);
                    let missing = || {
                        let (name, namespace) = (&asked.pod_name, &asked.pod_namespace);
                        Status::new(Code::UNKNOWN, format!("pod {name} in namespace {namespace} not found"))
                    };
                    let pod = Some(self.pod(&found.ok_or_else(missing)?));
                    Ok(Answer::once(&GetPodResourcesResponse { pod }))
                }
                "/v1.PodResourcesLister/GetAllocatableResources" => Ok(Answer::once(&self.allocatable())),
                other => Err(Status::unknown_method(other)),
            }
        }
        .boxed()
    }
}

fn cpu_ids(set: &CpuSet) -> Vec<i64> {
    set.iter().map(i64::from).collect()
}

fn topology(nodes: &CpuSet) -> Option<TopologyInfo> {
    let nodes: Vec<NUMANode> = nodes.iter().map(|node| NUMANode { id: i64::from(node) }).collect();
    (!nodes.is_empty()).then_some(TopologyInfo { nodes })
}

/// Devices that are near to the same nodes are told together.
fn devices(of: Vec<(String, BTreeMap<String, CpuSet>)>) -> Vec<ContainerDevices> {
    let mut out = Vec::new();
    for (resource_name, ids) in of {
        let mut groups: BTreeMap<CpuSet, Vec<String>> = BTreeMap::new();
        ids.into_iter().for_each(|(id, nodes)| groups.entry(nodes).or_default().push(id));
        for (nodes, ids) in groups {
            out.push(ContainerDevices { resource_name: resource_name.clone(), ids, topology: topology(&nodes) });
        }
    }
    out
}

fn memory(nodes: &CpuSet, size: u64) -> ContainerMemory {
    ContainerMemory { memory_type: "memory".to_owned(), size, topology: topology(nodes) }
}

impl<P> Lister<P> {
    fn pod(&self, pod: &PodNames) -> PodResources {
        let placement = &self.placement;
        let container = |name: &String| ContainerResources {
            name: name.clone(),
            devices: devices(placement.devices.ids(&pod.uid, name)),
            cpu_ids: placement.cpus.as_ref().and_then(|c| c.lock().of(&pod.uid, name).map(cpu_ids)).unwrap_or_default(),
            memory: placement
                .memory
                .as_ref()
                .and_then(|m| m.lock().of(&pod.uid, name))
                .map_or_else(Vec::new, |(nodes, size)| vec![memory(&nodes, size)]),
        };
        PodResources {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            containers: pod.containers.iter().map(container).collect(),
        }
    }

    fn allocatable(&self) -> AllocatableResourcesResponse {
        let placement = &self.placement;
        let of_nodes = |memory_of: &crate::memory::Memory| {
            let nodes = memory_of.allocatable().iter();
            nodes.map(|(node, bytes)| memory(&CpuSet::from_iter([*node]), *bytes)).collect()
        };
        AllocatableResourcesResponse {
            devices: devices(placement.devices.all()),
            cpu_ids: placement.cpus.as_ref().map(|cpus| cpu_ids(&cpus.lock().assignable())).unwrap_or_default(),
            memory: placement.memory.as_ref().map(|memory| of_nodes(&memory.lock())).unwrap_or_default(),
        }
    }
}
