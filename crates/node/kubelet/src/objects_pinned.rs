//! The config maps and secrets that one pod keeps pinned.

use crate::api::ObjectRef;
use crate::memory::Memory;
use crate::objects::Pins;
use crate::volumes::references;
use pintle_types::k8s::api::core::v1::Pod;
use std::collections::BTreeSet;

/// What is pinned now. Dropping it lets go.
#[derive(Default)]
pub struct Pinned {
    wanted: BTreeSet<ObjectRef>,
    pins: Pins,
}

impl Pinned {
    /// Pins what the pod refers to, if that is not what is pinned already.
    pub fn pin(&mut self, memory: &Memory, pod: &Pod) {
        let wanted = references(pod);
        if wanted != self.wanted {
            // The new pins are made before the old ones go, so that shared watches live on.
            self.pins = memory.host.api.pin(&wanted, &memory.wake);
            self.wanted = wanted;
        }
    }
}
