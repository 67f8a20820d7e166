//! Removes what is left of pods: of those that ended, and of those that vanished while nobody was here.

use crate::host::{Host, is_plain_name};
use crate::labels;
use crate::volumes::{remove_tree, tear_down};
use pintle_cri::{ContainerFilter, CriError, PodSandboxFilter};
use pintle_types::k8s::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How long the containers of a pod that vanished get to end.
const ORPHAN_GRACE_SECONDS: u64 = 1;

/// Unmounts and removes the pod's volumes, and its cgroup. With `everything` also its directory.
pub async fn volumes_and_cgroup(host: &Arc<Host>, uid: &str, everything: bool) -> Result<(), String> {
    if !is_plain_name(uid) {
        return Err(format!("{uid:?} is no uid"));
    }
    let (host, uid) = (Arc::clone(host), uid.to_owned());
    let hardware = host.hardware.clone();
    let work = move || {
        let dir = host.pod_dir(&uid);
        // First the mounts: what is removed below a mount that stayed would be removed for good.
        let mut volumes = tear_down(host.mounter.as_ref(), &dir.join("volumes"));
        if everything {
            volumes = volumes.and_then(|()| remove_tree(&dir));
        }
        volumes.map_err(|e| format!("volumes in {}: {e}", dir.display()))?;
        host.claimed.forget(&uid);
        host.user_namespaces.release(&uid);
        host.cgroups.remove(&uid)
    };
    hardware.blocking(work).await
}

fn gone_is_fine(result: Result<(), CriError>) -> Result<(), String> {
    match result {
        Ok(()) | Err(CriError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Removes containers, sandboxes, directories and logs of a pod. Stops what still runs.
pub async fn pod(host: &Arc<Host>, uid: &str, pod: Option<&Pod>) -> Result<(), String> {
    let runtime = &host.runtime;
    let labels = labels::selector(uid);
    let filter = ContainerFilter { labels: labels.clone(), ..Default::default() };
    for container in runtime.list_containers(filter).await.map_err(|e| e.to_string())? {
        gone_is_fine(runtime.stop_container(&container.id, ORPHAN_GRACE_SECONDS).await)?;
        gone_is_fine(runtime.remove_container(&container.id).await)?;
    }
    let filter = PodSandboxFilter { labels, ..Default::default() };
    let mut names: BTreeSet<String> = pod.map(crate::reference::log_dir_name).into_iter().collect();
    for sandbox in runtime.list_pod_sandbox(filter).await.map_err(|e| e.to_string())? {
        let m = &sandbox.metadata;
        names.insert(format!("{}_{}_{}", m.namespace, m.name, m.uid));
        gone_is_fine(runtime.stop_pod_sandbox(&sandbox.id).await)?;
        gone_is_fine(runtime.remove_pod_sandbox(&sandbox.id).await)?;
    }
    if pod.is_none() {
        names.extend(log_dirs(host).filter(|(_, of)| of == uid).map(|(name, _)| name));
    }
    for name in names.iter().filter(|n| is_plain_name(n)) {
        let dir = host.settings.log_dir.join(name);
        remove_tree(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    // Its directory goes last: by that `pintle reset` knows whose logs are left, should the node end on the way.
    volumes_and_cgroup(host, uid, true).await
}

/// The log directories that are there, each with the uid of its pod.
fn log_dirs(host: &Host) -> impl Iterator<Item = (String, String)> {
    let dirs = std::fs::read_dir(&host.settings.log_dir).into_iter().flatten().flatten();
    let names = dirs.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| {
        let mut parts = name.rsplit('_');
        let uid = parts.next().filter(|uid| is_plain_name(uid))?.to_owned();
        (parts.count() == 2).then_some((name, uid))
    })
}

/// The uids of all pods that something is left of: sandboxes, containers, directories, logs.
pub async fn uids_present(host: &Host) -> Result<BTreeSet<String>, CriError> {
    let of = |labels: &pintle_cri::Labels| labels.get(labels::POD_UID).cloned();
    let mut uids = BTreeSet::new();
    uids.extend(host.runtime.list_pod_sandbox(PodSandboxFilter::default()).await?.iter().filter_map(|s| of(&s.labels)));
    uids.extend(host.runtime.list_containers(ContainerFilter::default()).await?.iter().filter_map(|c| of(&c.labels)));
    let dirs = std::fs::read_dir(host.settings.root_dir.join("pods")).into_iter().flatten().flatten();
    uids.extend(dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    uids.extend(log_dirs(host).map(|(_, uid)| uid));
    Ok(uids)
}
