//! Names of pods and containers as messages and paths have them.

use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// `name_namespace(uid)`, the form of upstream's messages.
pub fn pod_text(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}

/// The name of a pod's log directory.
pub fn log_dir_name(pod: &Pod) -> String {
    format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid())
}

/// The three lists in which a pod's containers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    Init,
    Regular,
    Ephemeral,
}

impl ContainerKind {
    /// The word for it in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Init => "init_container",
            Self::Regular => "container",
            Self::Ephemeral => "ephemeral_container",
        }
    }
}

/// The `fieldPath` with which events name a container.
pub fn field_path(kind: ContainerKind, name: &str) -> String {
    match kind {
        ContainerKind::Init => format!("spec.initContainers{{{name}}}"),
        ContainerKind::Regular => format!("spec.containers{{{name}}}"),
        ContainerKind::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
    }
}

/// An init container that keeps running beside the regular ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The spec of a pod; an object without one is treated as having no containers.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
}

/// Seconds that a pod gets to end when nobody says otherwise.
pub fn own_grace(pod: &Pod) -> i64 {
    spec(pod).termination_grace_period_seconds.unwrap_or(30)
}

/// The init containers of a pod.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// The init and regular containers of a pod, in the order in which they start.
pub fn lasting_containers(pod: &Pod) -> impl Iterator<Item = (ContainerKind, &Container)> {
    let init = init_containers(pod).iter().map(|c| (ContainerKind::Init, c));
    init.chain(spec(pod).containers.iter().map(|c| (ContainerKind::Regular, c)))
}

/// The ephemeral containers of a pod, in the form of the others.
pub fn ephemeral_containers(pod: &Pod) -> Vec<(Container, Option<String>)> {
    let list = spec(pod).ephemeral_containers.as_deref().unwrap_or_default();
    list.iter().map(|e| (ephemeral(e), e.target_container_name.clone())).collect()
}

fn ephemeral(e: &EphemeralContainer) -> Container {
    Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        name: e.name.clone(),
        resources: e.resources.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
        restart_policy: Some("Never".into()),
        ..Container::default()
    }
}
