//! Serves the container runtime interface where the settings say, and finds the runtime of the kubelet.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use pintle_cri::Runtime;
use pintle_cri_socket::{CriServer, RemoteRuntime};
use pintle_runtime::Engine;
use std::sync::Arc;

/// Opens the socket for crictl and other kubelets.
pub(crate) fn bind(cluster: &Cluster) -> Result<CriServer> {
    let socket = cluster.settings.cri_socket();
    CriServer::bind(&socket).with_context(|| format!("serve CRI on {}", socket.display()))
}

/// What the kubelet runs pods with: the engine, or the runtime that the settings name.
pub(crate) fn runtime(cluster: &Cluster, engine: &Arc<Engine>) -> Result<Arc<dyn Runtime>> {
    match &cluster.settings.container_runtime_endpoint {
        None => Ok(Arc::clone(engine) as Arc<dyn Runtime>),
        Some(endpoint) => {
            let remote = RemoteRuntime::new(endpoint, &cluster.run("cri")).context("--container-runtime-endpoint")?;
            Ok(Arc::new(remote.with_log_limit(pintle_kubelet::LOG_MAX_BYTES)))
        }
    }
}
