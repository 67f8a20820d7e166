//! Serves the runtime half of CRI; each verb is in the module of its noun.

use crate::engine::Engine;
use crate::options::{ContainerOptions, Owner, SandboxOptions};
use crate::sandboxes::HANDLERS;
use async_trait::async_trait;
use pintle_cri::{
    AttachRequest, ByteStream, Container, ContainerConfig, ContainerFilter, ContainerStats, ContainerStatus, CriError,
    CriResult, EventStream, ExecRequest, ExecSession, ExecSyncResponse, LinuxContainerResources, PodSandbox,
    PodSandboxConfig, PodSandboxFilter, PodSandboxStatus, RuntimeHandler, RuntimeService, RuntimeStatus,
    VersionResponse,
};
use tokio::sync::broadcast::error::RecvError;

#[async_trait]
impl RuntimeService for Engine {
    async fn version(&self) -> CriResult<VersionResponse> {
        Ok(VersionResponse {
            runtime_name: "pintle".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self) -> CriResult<RuntimeStatus> {
        let network_ready = self.network.ready().await;
        Ok(RuntimeStatus { runtime_ready: Ok(()), network_ready, handlers: HANDLERS.map(handler).to_vec() })
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> CriResult<String> {
        self.run_sandbox(config, runtime_handler, SandboxOptions::default()).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> CriResult<()> {
        self.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> CriResult<()> {
        self.remove_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> CriResult<PodSandboxStatus> {
        self.sandbox_status(id)
    }

    async fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> CriResult<Vec<PodSandbox>> {
        Ok(self.sandbox_list(&filter))
    }

    /// The sandbox's configuration is the one that it was made with.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        _sandbox_config: &PodSandboxConfig,
    ) -> CriResult<String> {
        if let Some(device) = config.cdi_devices.first() {
            return Err(CriError::Unimplemented(format!("the CDI device {device:?} of this runtime")));
        }
        self.create(sandbox_id, config, ContainerOptions::default()).await
    }

    async fn start_container(&self, id: &str) -> CriResult<()> {
        self.start(id).await
    }

    async fn stop_container(&self, id: &str, timeout_seconds: u64) -> CriResult<()> {
        self.stop_by_id(id, timeout_seconds).await
    }

    async fn remove_container(&self, id: &str) -> CriResult<()> {
        self.remove(id).await
    }

    async fn container_status(&self, id: &str) -> CriResult<ContainerStatus> {
        self.status_of(id)
    }

    async fn list_containers(&self, filter: ContainerFilter) -> CriResult<Vec<Container>> {
        Ok(self.container_list(&filter))
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> CriResult<()> {
        self.update_resources(id, resources).await
    }

    async fn reopen_container_log(&self, id: &str) -> CriResult<()> {
        self.reopen_log(id).await
    }

    async fn container_stats(&self, id: &str) -> CriResult<ContainerStats> {
        self.stats_of(&self.container(id)?).await
    }

    async fn list_container_stats(&self, filter: ContainerFilter) -> CriResult<Vec<ContainerStats>> {
        self.stats_list(&filter).await
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout_seconds: u64) -> CriResult<ExecSyncResponse> {
        self.run_sync(id, command, timeout_seconds).await
    }

    async fn exec(&self, request: ExecRequest) -> CriResult<ExecSession> {
        self.run_session(request).await
    }

    async fn attach(&self, request: AttachRequest) -> CriResult<ExecSession> {
        Ok(self.attach_since(request).await?.0)
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> CriResult<ByteStream> {
        self.connect_to_port(sandbox_id, port).await
    }

    async fn events(&self) -> CriResult<EventStream> {
        let engine = self.this.clone();
        let events = futures::stream::unfold((self.events.subscribe(), engine), |(mut receiver, engine)| async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => {
                        let owner = engine.upgrade().map(|e| e.owner_of(&event.sandbox_id)).unwrap_or_default();
                        if owner == Owner::Cri {
                            return Some((event, (receiver, engine)));
                        }
                    }
                    // A listener that is too slow asks for the state; the events it lost would say no more.
                    Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "a listener is too slow for runtime events"),
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(Box::pin(events))
    }
}

fn handler(name: &str) -> RuntimeHandler {
    RuntimeHandler { name: name.to_owned(), recursive_read_only_mounts: true, user_namespaces: true }
}
