//! Tells people what happened to a pod, as events on it or on one of its containers.

use crate::reference::{ContainerKind, field_path};
use pintle_informer::{EventType, Recorder, reference};
use pintle_types::k8s::api::core::v1::Pod;

/// Takes events about pods.
pub trait Events: Send + Sync + 'static {
    fn pod(&self, pod: &Pod, warning: bool, reason: &str, message: String);
    fn container(&self, pod: &Pod, kind: ContainerKind, name: &str, warning: bool, reason: &str, message: String);
}

impl Events for Recorder {
    fn pod(&self, pod: &Pod, warning: bool, reason: &str, message: String) {
        self.event_on(reference(pod), event_type(warning), reason, message);
    }

    fn container(&self, pod: &Pod, kind: ContainerKind, name: &str, warning: bool, reason: &str, message: String) {
        let mut on = reference(pod);
        on.field_path = Some(field_path(kind, name));
        self.event_on(on, event_type(warning), reason, message);
    }
}

fn event_type(warning: bool) -> EventType {
    if warning { EventType::Warning } else { EventType::Normal }
}
