//! What all pod actors of a kubelet share.

use crate::api::Api;
use crate::backoff::MaxRestartPeriod;
use crate::cgroups::Cgroups;
use crate::credential_providers::CredentialProviders;
use crate::events::Events;
use crate::eviction::pressure::Pressures;
use crate::hardware::Hardware;
use crate::huge_pages::HugePages;
use crate::image_gc::PulledImages;
use crate::measures::Measures;
use crate::probe::ProbeCounts;
use crate::resize::Allocations;
use crate::shutdown::MachineEnd;
use crate::user_namespaces::UserNamespaces;
use crate::volumes::{Claimed, Mounter};
use pintle_clock::Clock;
use pintle_cri::Runtime;
use pintle_placement::Placement;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The node as its pods see it.
pub struct Host {
    pub runtime: Arc<dyn Runtime>,
    pub api: Arc<dyn Api>,
    pub events: Arc<dyn Events>,
    pub clock: Arc<dyn Clock>,
    pub mounter: Arc<dyn Mounter>,
    pub claimed: Claimed,
    pub hardware: Hardware,
    pub cgroups: Arc<dyn Cgroups>,
    pub probes: ProbeCounts,
    pub measures: Arc<Measures>,
    pub pressures: Pressures,
    pub ending: MachineEnd,
    pub pulled: PulledImages,
    pub allocations: Allocations,
    pub placement: Arc<Placement>,
    pub credential_providers: Option<Arc<CredentialProviders>>,
    pub user_namespaces: UserNamespaces,
    pub settings: Settings,
}

/// What a runtime says of itself.
#[derive(Clone, Debug, Default)]
pub struct RuntimeFacts {
    /// The scheme of its containers' ids.
    pub name: String,
    /// Its usual handler can mount what is below a mount read-only, too.
    pub recursive_read_only: bool,
}

/// The values that never change while the kubelet runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node_name: String,
    pub node_ips: Vec<String>,
    pub runtime: RuntimeFacts,
    pub root_dir: PathBuf,
    pub log_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub resolv_conf: PathBuf,
    /// Bytes.
    pub machine_memory: u64,
    /// Thousandths of a processor.
    pub machine_milli_cpu: u64,
    pub huge_pages: Vec<HugePages>,
    /// Bytes of the machine's memory that are neither reserved nor in huge pages.
    pub allocatable_memory: u64,
    /// Thousandths of a processor that are not reserved.
    pub allocatable_milli_cpu: u64,
    pub max_restart_period: MaxRestartPeriod,
}

impl Host {
    /// Where everything of a pod on this node is.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.settings.root_dir.join("pods").join(uid)
    }

    pub fn volumes_dir(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes")
    }

    /// Where a container's termination messages are.
    pub fn container_dir(&self, uid: &str, name: &str) -> PathBuf {
        self.pod_dir(uid).join("containers").join(name)
    }

    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        self.settings.log_dir.join(crate::reference::log_dir_name(pod))
    }

    /// Whether a uid can be a directory's name: one from outside must not lead elsewhere.
    pub fn is_safe_uid(pod: &Pod) -> bool {
        is_plain_name(pod.uid())
    }
}

/// Whether a text is a single, ordinary path component.
pub fn is_plain_name(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && text.len() < 256 && !text.contains(['/', '\0'])
}
