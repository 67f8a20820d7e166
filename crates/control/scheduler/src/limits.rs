//! How many volumes of a driver a node takes: upstream's NodeVolumeLimits.

use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;
use crate::storage::Storage;
use pintle_storage::class_of_claim;
use pintle_types::ObjectKey;
use std::collections::{BTreeSet, HashMap};

/// Volumes that are attached to a node: the driver, and what tells the volume apart.
type Attachments = BTreeSet<(String, String)>;

/// How many volumes of each driver a node takes.
pub(crate) type Limits = HashMap<String, usize>;

/// Whether a node would have more volumes of a driver than it takes.
pub(crate) fn exceeded(pod: &PodInfo, node: &NodeInfo, storage: &Storage) -> bool {
    if pod.claims.is_empty() {
        return false;
    }
    let Some(limits) = storage.limits(&node.name) else { return false };
    let wanted = attachments(pod, storage);
    if !wanted.iter().any(|(driver, _)| limits.contains_key(driver)) {
        return false;
    }
    let held: Attachments = node.pods.values().flat_map(|running| attachments(running, storage)).collect();
    let of = |all: &Attachments, driver: &str| all.iter().filter(|(of, _)| of == driver).count();
    let new: Attachments = wanted.difference(&held).cloned().collect();
    limits.iter().any(|(driver, limit)| {
        let more = of(&new, driver);
        more > 0 && of(&held, driver) + more > *limit
    })
}

fn attachments(pod: &PodInfo, storage: &Storage) -> Attachments {
    pod.claim_keys().filter_map(|claim| attachment(&claim, storage)).collect()
}

/// The volume behind a claim, if a driver attaches it. One that is still to be made counts by its claim.
fn attachment(key: &ObjectKey, storage: &Storage) -> Option<(String, String)> {
    let claim = storage.claim(key)?;
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    if name.is_empty() {
        let class = storage.class(class_of_claim(claim))?;
        return Some((class.provisioner.clone(), format!("{}/{}", key.namespace, key.name)));
    }
    let source = storage.volume(name)?.spec.as_ref()?.csi.as_ref()?;
    Some((source.driver.clone(), source.volume_handle.clone()))
}
