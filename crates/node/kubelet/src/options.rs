//! What may be set of the kubelet, with upstream's defaults.

use crate::backoff::MaxRestartPeriod;
use crate::credential_providers::CredentialProviders;
use crate::eviction::flags::{EvictionFlags, ThresholdError};
use crate::eviction::thresholds::{self, Threshold};
use crate::shutdown::{Paths, ShutdownOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// When unused images are deleted.
#[derive(Clone, Copy, Debug)]
pub struct ImageLimits {
    /// Of their disk in use: from here on they are deleted; 100 is never.
    pub high_percent: u8,
    /// Until it is used this little.
    pub low_percent: u8,
    /// Younger images are kept.
    pub min_age: Duration,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) }
    }
}

/// Settings that a node can do without.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory (or file) of static pods; none without.
    pub static_pods: Option<PathBuf>,
    /// What must be left of the node's resources.
    pub evictions: Vec<Threshold>,
    /// The most that a pod gets to end which goes because of a soft threshold.
    pub eviction_max_pod_grace: Duration,
    /// How long a condition of pressure lasts after its last sign.
    pub pressure_transition: Duration,
    pub images: ImageLimits,
    /// The most that the delay before a container's restart grows to.
    pub max_restart_period: MaxRestartPeriod,
    /// Sysctls beyond the safe ones that pods may set; one that ends in `*` is a prefix.
    pub unsafe_sysctls: Vec<String>,
    /// How processors and memory are given out.
    pub placement: pintle_placement::Options,
    /// The folder of device plugins; none can register without. Who asks for what pods have finds the socket in
    /// `pod-resources` beside it, and plugins that are looked for put theirs into `plugins_registry` there.
    pub device_plugins: Option<PathBuf>,
    /// What pods get of the time before the machine ends.
    pub shutdown: ShutdownOptions,
    /// Where the end of the machine is heard of.
    pub shutdown_paths: Paths,
    /// Who is asked for credentials of images, beside the secrets of pods.
    pub credential_providers: Option<Arc<CredentialProviders>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            static_pods: None,
            evictions: thresholds::defaults(),
            eviction_max_pod_grace: Duration::ZERO,
            pressure_transition: Duration::from_secs(300),
            images: ImageLimits::default(),
            max_restart_period: MaxRestartPeriod::default(),
            unsafe_sysctls: Vec::new(),
            placement: pintle_placement::Options::default(),
            device_plugins: None,
            shutdown: ShutdownOptions::default(),
            shutdown_paths: Paths::default(),
            credential_providers: None,
        }
    }
}

impl Options {
    /// Takes thresholds as upstream's flags have them.
    pub fn evict(mut self, flags: EvictionFlags<'_>) -> Result<Self, ThresholdError> {
        self.evictions = flags.thresholds()?;
        Ok(self)
    }
}
