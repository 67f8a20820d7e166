//! Carries out a preemption: marks the victims, deletes them, and tells everyone concerned.

use crate::pod::PodInfo;
use crate::preemption::{CONDITION, REASON};
use crate::run::NAME;
use pintle_client::{Client, ClientError, DeleteOptions, Patch, PatchOptions, resource_path};
use pintle_informer::{EventType, Recorder};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

/// Who must leave which node.
pub(crate) struct Eviction {
    pub(crate) node: String,
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// Less important pods that the room was promised to before.
    pub(crate) displaced: Vec<Arc<PodInfo>>,
}

fn gone_is_fine<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    result.map(drop).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

impl Eviction {
    /// `now` is the time of the conditions, as objects write it.
    pub(crate) async fn carry_out(
        &self,
        client: &Client,
        recorder: &Recorder,
        pod: &PodInfo,
        now: &str,
    ) -> Result<(), ClientError> {
        // Who leaves already needs no telling.
        for victim in self.victims.iter().filter(|v| !v.pod.is_deleting()) {
            mark(client, pod, victim, now).await?;
            let options = DeleteOptions::of_uid(victim.pod.uid());
            gone_is_fine(client.delete::<Pod>(&victim.key.namespace, &victim.key.name, &options).await)?;
            let message = format!("Preempted by pod {} on node {}", pod.pod.uid(), self.node);
            recorder.event(&*victim.pod, EventType::Normal, "Preempted", message);
        }
        for other in self.displaced.iter().filter(|p| p.nominated().is_some()) {
            patch_status(client, other, json!({ "nominatedNodeName": null })).await?;
        }
        Ok(())
    }
}

/// Says on the victim why it is disrupted, so that budgets and Jobs can tell.
async fn mark(client: &Client, preemptor: &PodInfo, victim: &PodInfo, now: &str) -> Result<(), ClientError> {
    let scheduler = preemptor.spec().scheduler_name.as_deref().unwrap_or(NAME);
    let condition = json!({
        "type": CONDITION, "status": "True", "reason": REASON,
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "observedGeneration": victim.pod.metadata.generation,
        "lastProbeTime": null, "lastTransitionTime": now,
    });
    patch_status(client, victim, json!({ "conditions": [condition] })).await
}

/// Changes something of the pod's status. One that is gone needs no telling.
pub(crate) async fn patch_status(client: &Client, pod: &PodInfo, status: Value) -> Result<(), ClientError> {
    let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.pod.uid() }, "status": status }));
    let path = resource_path("", "v1", "pods", &pod.key.namespace, &pod.key.name, "status");
    // What the pod is then, its watch tells.
    gone_is_fine(client.patch_path(&path, &patch, &PatchOptions::default()).await)
}
