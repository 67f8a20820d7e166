//! Says which processors, memory and devices of the machine a container gets, and keeps that over restarts.
//!
//! Devices come from plugins (`devices`, v1beta1 of upstream's device plugin API); processors and memory are given out
//! by the static policies (`cpus`, `memory`); what comes from where is agreed on by hints (`hints`), as upstream's
//! topology manager does it. [`Placement`] joins them. It knows nothing of how pods live: it is asked when one is
//! admitted, when a container is made, and told when a pod is over. What is not used costs nothing: no file is read or
//! written before a policy is static or a plugin registers.

mod checkpoint;
mod cpu_set;
mod cpus;
mod devices;
mod hints;
mod layout;
mod memory;
mod options;
mod placement;
mod pod_resources;
mod take;
#[cfg(test)]
mod tests;

pub use checkpoint::CheckpointError;
pub use cpu_set::{BadCpuSet, CpuSet};
pub use devices::messages as device_plugin;
pub use devices::{Count, DeviceError};
pub use layout::{Cpu, Layout};
pub use options::{BadOption, CpuOptions, Options, Reserved, Scope, TopologyPolicy};
pub use placement::{ContainerAsk, Given, OpenError, Phase, Placement, PodAsk, Refusal};
pub use pod_resources::{PodNames, messages as pod_resources_api};
