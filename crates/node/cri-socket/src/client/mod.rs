//! A runtime over the socket of another process, such as containerd's.

mod attachment;
mod events;
mod images;
mod logs;
mod runtime;
mod sub_paths;

use crate::convert::{Subject, failure};
use events::Events;
use logs::Logs;
use pintle_cri::{CriError, CriResult};
use pintle_grpc::{CallError, Message, SocketClient};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long an ordinary call may take, as upstream's `runtime-request-timeout`.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runtime's endpoint {0:?} is not understood: give a socket such as unix:///run/containerd/containerd.sock")]
pub struct BadEndpoint(String);

/// Another process that runs containers.
pub struct RemoteRuntime {
    socket: Arc<SocketClient>,
    events: Events,
    logs: Logs,
    /// Where parts of volumes are bound before they are handed over.
    sub_paths: PathBuf,
}

impl RemoteRuntime {
    /// Connects with the first call. `state_dir` holds the mounts that are made for the runtime, such as
    /// `/run/pintle/cri`.
    ///
    /// # Errors
    /// The endpoint is no `unix://` address with a path from the root.
    pub fn new(endpoint: &str, state_dir: &Path) -> Result<Self, BadEndpoint> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        if !path.starts_with('/') {
            return Err(BadEndpoint(endpoint.to_owned()));
        }
        let socket = Arc::new(SocketClient::new(path));
        let (events, logs) = (Events::new(Arc::clone(&socket)), Logs::new(Arc::clone(&socket)));
        Ok(Self { socket, events, logs, sub_paths: state_dir.join("sub-paths") })
    }

    /// Has logs of running containers set aside once they are as large as that, from when events are first listened to.
    #[must_use]
    pub fn with_log_limit(mut self, max_bytes: u64) -> Self {
        self.logs.max_bytes = Some(max_bytes);
        self
    }

    async fn runtime<Q: Message, A: Message>(&self, verb: &str, request: Q, subject: Subject<'_>) -> CriResult<A> {
        self.call(&format!("/runtime.v1.RuntimeService/{verb}"), request, subject, Some(TIMEOUT)).await
    }

    async fn image<Q: Message, A: Message>(&self, verb: &str, request: Q, subject: Subject<'_>) -> CriResult<A> {
        self.call(&format!("/runtime.v1.ImageService/{verb}"), request, subject, Some(TIMEOUT)).await
    }

    async fn call<Q: Message, A: Message>(
        &self,
        method: &str,
        request: Q,
        subject: Subject<'_>,
        timeout: Option<Duration>,
    ) -> CriResult<A> {
        let answer = self.socket.call(method, &request, timeout).await;
        answer.map_err(|error: CallError| failure(error.status(), subject))
    }
}

fn container(id: &str) -> Subject<'_> {
    Subject { what: "container", id }
}

fn sandbox(id: &str) -> Subject<'_> {
    Subject { what: "sandbox", id }
}

fn missing(what: &str) -> CriError {
    CriError::Internal(format!("the runtime's answer has no {what}"))
}
