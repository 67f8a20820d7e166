//! Adopts and releases pods on the server, as labels and selectors say.

use crate::context::Context;
use crate::ownership::{Claim, adoption, claim, controller_ref, release};
use pintle_client::{ClientError, Patch, PatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::selector::LabelSelector;
use serde_json::{Value, json};
use std::sync::Arc;

/// The pods of an owner, after adopting and releasing those that changed sides.
pub async fn claim_pods<K: Kind>(
    context: &Context,
    owner: &K,
    selector: &LabelSelector,
    owned: Vec<Arc<Pod>>,
    orphans: Vec<Arc<Pod>>,
) -> Result<Vec<Arc<Pod>>, ClientError> {
    claim_held_pods(context, owner, selector, owned, orphans, None).await
}

/// The same for an owner that holds its pods by a `finalizer`, which comes and goes with the ownership.
pub async fn claim_held_pods<K: Kind>(
    context: &Context,
    owner: &K,
    selector: &LabelSelector,
    owned: Vec<Arc<Pod>>,
    orphans: Vec<Arc<Pod>>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<Pod>>, ClientError> {
    let Claim { mut owned, adopt, release: go } = claim(selector, owner.is_deleting(), owned, orphans);
    if !adopt.is_empty() {
        // The cache may not know yet that the owner is being deleted, or is another one of the same name.
        let fresh: K = context.client.get(owner.namespace(), owner.name()).await?;
        if fresh.uid() != owner.uid() || fresh.is_deleting() {
            return Ok(owned);
        }
    }
    let reference = controller_ref(owner);
    for pod in adopt {
        let mut patch = adoption(&reference, pod.uid());
        if let Some(finalizer) = finalizer {
            patch["metadata"]["finalizers"] = json!([finalizer]);
        }
        if patch_pod(context, &pod, patch).await? {
            owned.push(pod);
        }
    }
    for pod in go {
        let mut patch = release(owner.uid(), pod.uid());
        if let Some(finalizer) = finalizer {
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        patch_pod(context, &pod, patch).await?;
    }
    Ok(owned)
}

/// False when the pod is gone, or another one of the same name by now.
async fn patch_pod(context: &Context, pod: &Pod, patch: Value) -> Result<bool, ClientError> {
    let options = PatchOptions::default();
    match context.client.patch::<Pod>(pod.namespace(), pod.name(), Patch::Strategic(patch), &options).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() || error.is_invalid() => Ok(false),
        Err(error) => Err(error),
    }
}
