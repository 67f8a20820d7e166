//! Tests of plans, statuses and whole lives of pods.

mod api_server;
mod devices;
mod life;
mod machine;
mod objects;
mod plans;
mod preemption;
mod shutdown;
mod statuses;
mod whole;

use crate::labels;
use crate::observed::Observed;
use crate::reference::{ephemeral_containers, lasting_containers};
use pintle_cri::{ContainerState, ContainerStatus, PodSandboxStatus, SandboxState};
use pintle_types::k8s::api::core::v1::Pod;

/// What the runtime has, in short: `+` a ready sandbox, `-` one that is not, then words such as `web=run`,
/// `web=exit3`, `web=created`, `web=making`, `web=unknown`; a later word for the same name is a newer container.
pub fn observed(pod: &Pod, text: &str) -> Observed {
    let mut observed = Observed::default();
    for (at, word) in text.split_whitespace().enumerate() {
        let at = at as i64 + 1;
        match word.split_once('=') {
            None => observed.sandboxes.insert(0, sandbox(word == "+", at)),
            Some((name, state)) => {
                let attempt = observed.containers.iter().filter(|c| c.metadata.name == name).count() as u32;
                observed.containers.insert(0, container(pod, name, state, attempt, at));
            }
        }
    }
    observed
}

fn sandbox(ready: bool, at: i64) -> PodSandboxStatus {
    PodSandboxStatus {
        id: format!("sandbox{at}"),
        state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
        created_at: at * 1_000_000_000,
        ips: if ready { vec!["10.42.0.5".into()] } else { vec![] },
        ..Default::default()
    }
}

fn container(pod: &Pod, name: &str, state: &str, attempt: u32, at: i64) -> ContainerStatus {
    let ephemeral = ephemeral_containers(pod);
    let all = lasting_containers(pod).map(|(_, c)| c).chain(ephemeral.iter().map(|(c, _)| c));
    let annotations = all.into_iter().find(|c| c.name == name).map(|c| labels::annotations_of_container(pod, c));
    let mut status = ContainerStatus {
        id: format!("{name}{attempt}"),
        created_at: at * 1_000_000_000,
        started_at: at * 1_000_000_000,
        image: "i".into(),
        image_ref: "sha256:i".into(),
        annotations: annotations.unwrap_or_default(),
        ..Default::default()
    };
    status.metadata.name = name.into();
    status.metadata.attempt = attempt;
    status.state = match state {
        "run" => ContainerState::Running,
        "created" => ContainerState::Created,
        "unknown" => ContainerState::Unknown,
        "making" => {
            status.started_at = 0;
            ContainerState::Unknown
        }
        exit => {
            status.exit_code = exit.strip_prefix("exit").and_then(|c| c.parse().ok()).expect("a state that is known");
            status.finished_at = (at + 1) * 1_000_000_000;
            ContainerState::Exited
        }
    };
    status
}
