//! What happens to containers and sandboxes, told with the state of the whole pod.

use super::Served;
use crate::convert::of_cri;
use crate::messages as m;
use futures::StreamExt;
use pintle_clock::{Clock, SystemClock};
use pintle_cri::{ContainerFilter, EventKind, Runtime, RuntimeEvent};
use pintle_grpc::{Answer, Status};
use std::sync::Arc;

const CREATED: i32 = 0;
const STARTED: i32 = 1;
const STOPPED: i32 = 2;
const DELETED: i32 = 3;

impl Served {
    pub(super) async fn events(&self) -> Result<Answer, Status> {
        let events = self.runtime.events().await.map_err(of_cri)?;
        let runtime = Arc::clone(&self.runtime);
        Ok(Answer::many(events.then(move |event| {
            let runtime = Arc::clone(&runtime);
            async move { Ok(told(runtime.as_ref(), event).await) }
        })))
    }
}

/// Sandboxes are containers to those who listen.
async fn told(runtime: &dyn Runtime, event: RuntimeEvent) -> m::ContainerEventResponse {
    let container_event_type = match event.kind {
        EventKind::ContainerCreated => CREATED,
        EventKind::ContainerStarted | EventKind::SandboxStarted => STARTED,
        EventKind::ContainerStopped | EventKind::SandboxStopped => STOPPED,
        EventKind::ContainerDeleted | EventKind::SandboxDeleted => DELETED,
    };
    let of_pod = ContainerFilter { sandbox_id: Some(event.sandbox_id.clone()), ..ContainerFilter::default() };
    let mut statuses = Vec::new();
    for container in runtime.list_containers(of_pod).await.unwrap_or_default() {
        // One that has gone meanwhile has its own event.
        statuses.extend(runtime.container_status(&container.id).await);
    }
    let sandbox = match runtime.pod_sandbox_status(&event.sandbox_id).await {
        Ok(status) => status.into(),
        // It is gone; whose it was is what listeners need.
        Err(_) => m::PodSandboxStatus {
            id: event.sandbox_id.clone(),
            metadata: Some(m::PodSandboxMetadata { uid: event.pod_uid, ..Default::default() }),
            state: 1,
            ..Default::default()
        },
    };
    m::ContainerEventResponse {
        container_id: if event.container_id.is_empty() { event.sandbox_id } else { event.container_id },
        container_event_type,
        created_at: i64::try_from(SystemClock.unix_nanos()).unwrap_or(i64::MAX),
        pod_sandbox_status: Some(sandbox),
        containers_statuses: statuses.into_iter().map(Into::into).collect(),
    }
}
