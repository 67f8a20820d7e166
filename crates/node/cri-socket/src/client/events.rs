//! What happens in the other process: told by it, or, where it does not tell, seen by looking every second.
//!
//! One task serves all listeners. It begins with the first and ends with the runtime. Looking is upstream's way
//! (the pod lifecycle event generator), and that of runtimes without `GetContainerEvents`, such as containerd 1.6.

use crate::convert::{container_state, sandbox_state};
use crate::messages as m;
use futures::StreamExt;
use pintle_cri::{ContainerState, EventKind, EventStream, RuntimeEvent, SandboxState};
use pintle_grpc::{CallError, Code, SocketClient};
use std::collections::HashMap;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// Between two looks, and between attempts to connect, as upstream's.
const PAUSE: Duration = Duration::from_secs(1);
/// Events that a slow listener may be behind before it loses some.
const BACKLOG: usize = 1024;
const LOOK_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) struct Events {
    socket: Arc<SocketClient>,
    sender: broadcast::Sender<RuntimeEvent>,
    /// Whether events are seen from now on.
    seeing: watch::Sender<bool>,
    begun: Once,
    task: Arc<std::sync::Mutex<Option<tokio::task::AbortHandle>>>,
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Ok(Some(task)) = self.task.lock().map(|mut task| task.take()) {
            task.abort();
        }
    }
}

impl Events {
    pub(super) fn new(socket: Arc<SocketClient>) -> Self {
        let (sender, seeing) = (broadcast::Sender::new(BACKLOG), watch::Sender::new(false));
        Self { socket, sender, seeing, begun: Once::new(), task: Arc::default() }
    }

    /// What happens from now on.
    pub(super) async fn listen(&self) -> EventStream {
        let receiver = self.sender.subscribe();
        self.begun.call_once(|| {
            let follower = Follower {
                socket: Arc::clone(&self.socket),
                sender: self.sender.clone(),
                seeing: self.seeing.clone(),
                seen: None,
                tells: true,
            };
            let task = tokio::spawn(follower.follow()).abort_handle();
            if let Ok(mut place) = self.task.lock() {
                *place = Some(task);
            }
        });
        // The sender is ours, so this cannot fail.
        let _ = self.seeing.subscribe().wait_for(|seeing| *seeing).await;
        futures::stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => return Some((event, receiver)),
                    // A listener that is too slow asks for the state; the events it lost would say no more.
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "a listener is too slow for runtime events");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }
}

/// What was last seen of a container or sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    sandbox_id: String,
    pod_uid: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Container(ContainerState),
    Sandbox(SandboxState),
}

struct Follower {
    socket: Arc<SocketClient>,
    sender: broadcast::Sender<RuntimeEvent>,
    seeing: watch::Sender<bool>,
    /// Nothing before the first look.
    seen: Option<HashMap<String, Seen>>,
    /// Whether the runtime tells of events.
    tells: bool,
}

impl Follower {
    async fn follow(mut self) {
        loop {
            let failed = if self.tells { self.be_told().await } else { self.look().await };
            match failed {
                Err(error) if error.clone().status().code == Code::UNIMPLEMENTED => self.tells = false,
                Err(error) => {
                    tracing::debug!(%error, "the runtime's events can't be had; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(()) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Follows the runtime's own events until they end.
    async fn be_told(&mut self) -> Result<(), CallError> {
        let method = "/runtime.v1.RuntimeService/GetContainerEvents";
        let mut events = self.socket.stream(method, &m::GetEventsRequest {}).await?;
        self.seeing.send_replace(true);
        // What happened while nobody told is seen by a look.
        self.look().await?;
        while let Some(event) = events.next().await? {
            // Nobody may listen at the moment.
            let _ = self.sender.send(told(event));
        }
        Ok(())
    }

    /// Looks at everything, and tells what is different from the last time. The first look tells nothing.
    async fn look(&mut self) -> Result<(), CallError> {
        let now = self.state().await?;
        for event in self.seen.iter().flat_map(|before| differences(before, &now)) {
            // The same.
            let _ = self.sender.send(event);
        }
        self.seen = Some(now);
        self.seeing.send_replace(true);
        Ok(())
    }

    async fn state(&self) -> Result<HashMap<String, Seen>, CallError> {
        let (timeout, prefix) = (Some(LOOK_TIMEOUT), "/runtime.v1.RuntimeService");
        let asked = m::ListPodSandboxRequest { filter: None };
        let sandboxes: m::ListPodSandboxResponse =
            self.socket.call(&format!("{prefix}/ListPodSandbox"), &asked, timeout).await?;
        let asked = m::ListContainersRequest { filter: None };
        let containers: m::ListContainersResponse =
            self.socket.call(&format!("{prefix}/ListContainers"), &asked, timeout).await?;
        let mut all = HashMap::with_capacity(sandboxes.items.len() + containers.containers.len());
        for sandbox in sandboxes.items {
            let (sandbox_id, state) = (sandbox.id.clone(), State::Sandbox(sandbox_state(sandbox.state)));
            let pod_uid = sandbox.metadata.map(|metadata| metadata.uid).unwrap_or_default();
            all.insert(sandbox.id, Seen { sandbox_id, pod_uid, state });
        }
        for container in containers.containers {
            let sandbox_id = container.pod_sandbox_id;
            let pod_uid = all.get(&sandbox_id).map(|sandbox| sandbox.pod_uid.clone()).unwrap_or_default();
            let state = State::Container(container_state(container.state));
            all.insert(container.id, Seen { sandbox_id, pod_uid, state });
        }
        Ok(all)
    }
}

fn differences(before: &HashMap<String, Seen>, now: &HashMap<String, Seen>) -> Vec<RuntimeEvent> {
    let event = |kind, id: &str, seen: &Seen| RuntimeEvent {
        kind,
        container_id: if matches!(seen.state, State::Container(_)) { id.to_owned() } else { String::new() },
        sandbox_id: seen.sandbox_id.clone(),
        pod_uid: seen.pod_uid.clone(),
    };
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id)).map(|(id, seen)| {
        let is_container = matches!(seen.state, State::Container(_));
        event(if is_container { EventKind::ContainerDeleted } else { EventKind::SandboxDeleted }, id, seen)
    });
    let changed = now.iter().filter(|(id, seen)| before.get(*id) != Some(seen)).map(|(id, seen)| {
        let kind = match seen.state {
            State::Container(ContainerState::Created) => EventKind::ContainerCreated,
            State::Container(ContainerState::Running) => EventKind::ContainerStarted,
            State::Container(_) => EventKind::ContainerStopped,
            State::Sandbox(SandboxState::Ready) => EventKind::SandboxStarted,
            State::Sandbox(SandboxState::NotReady) => EventKind::SandboxStopped,
        };
        event(kind, id, seen)
    });
    gone.chain(changed).collect()
}

/// Sandboxes are containers to those who tell.
fn told(event: m::ContainerEventResponse) -> RuntimeEvent {
    let sandbox = event.pod_sandbox_status.unwrap_or_default();
    let of_sandbox = sandbox.id == event.container_id;
    let kind = match (event.container_event_type, of_sandbox) {
        (0, false) => EventKind::ContainerCreated,
        (1, false) => EventKind::ContainerStarted,
        (2, false) => EventKind::ContainerStopped,
        (_, false) => EventKind::ContainerDeleted,
        (0 | 1, true) => EventKind::SandboxStarted,
        (2, true) => EventKind::SandboxStopped,
        (_, true) => EventKind::SandboxDeleted,
    };
    RuntimeEvent {
        kind,
        container_id: if of_sandbox { String::new() } else { event.container_id },
        sandbox_id: sandbox.id,
        pod_uid: sandbox.metadata.map(|metadata| metadata.uid).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: State) -> Seen {
        Seen { sandbox_id: "s".to_owned(), pod_uid: "u".to_owned(), state }
    }

    #[test]
    fn what_is_different_is_told() {
        let sandbox = |state| ("s".to_owned(), seen(State::Sandbox(state)));
        let container = |state| ("c".to_owned(), seen(State::Container(state)));
        let first = HashMap::from([sandbox(SandboxState::Ready)]);
        let second = HashMap::from([sandbox(SandboxState::Ready), container(ContainerState::Running)]);
        let third = HashMap::from([sandbox(SandboxState::NotReady), container(ContainerState::Exited)]);
        let kinds = |before, now| {
            let events = differences(before, now);
            assert!(events.iter().all(|event| event.sandbox_id == "s" && event.pod_uid == "u"));
            let mut kinds: Vec<_> = events.iter().map(|e| format!("{:?} {}", e.kind, e.container_id)).collect();
            kinds.sort();
            kinds
        };
        assert_eq!(kinds(&first, &first), Vec::<String>::new());
        assert_eq!(kinds(&first, &second), ["ContainerStarted c"]);
        assert_eq!(kinds(&second, &third), ["ContainerStopped c", "SandboxStopped "]);
        assert_eq!(kinds(&third, &HashMap::new()), ["ContainerDeleted c", "SandboxDeleted "]);
    }
}
