//! A runtime whose calls are counted and timed, by upstream's names of them.

use crate::measures::Measures;
use async_trait::async_trait;
use pintle_cri::*;
use std::sync::Arc;
use tokio::time::Instant;

/// Passes everything on to another runtime.
pub struct Measured {
    runtime: Arc<dyn Runtime>,
    measures: Arc<Measures>,
}

impl Measured {
    pub fn new(runtime: Arc<dyn Runtime>, measures: Arc<Measures>) -> Self {
        Self { runtime, measures }
    }

    async fn timed<T>(&self, operation: &str, call: impl Future<Output = CriResult<T>> + Send) -> CriResult<T> {
        let began = Instant::now();
        let result = call.await;
        self.measures.called(operation, began.elapsed(), result.is_err());
        result
    }
}

#[async_trait]
impl RuntimeService for Measured {
    async fn version(&self) -> CriResult<VersionResponse> {
        self.timed("version", self.runtime.version()).await
    }

    async fn status(&self) -> CriResult<RuntimeStatus> {
        self.timed("status", self.runtime.status()).await
    }

    async fn update_pod_cidrs(&self, cidrs: &[String]) -> CriResult<()> {
        self.timed("update_runtime_config", self.runtime.update_pod_cidrs(cidrs)).await
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> CriResult<String> {
        self.timed("run_podsandbox", self.runtime.run_pod_sandbox(config, runtime_handler)).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> CriResult<()> {
        self.timed("stop_podsandbox", self.runtime.stop_pod_sandbox(id)).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> CriResult<()> {
        self.timed("remove_podsandbox", self.runtime.remove_pod_sandbox(id)).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> CriResult<PodSandboxStatus> {
        self.timed("podsandbox_status", self.runtime.pod_sandbox_status(id)).await
    }

    async fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> CriResult<Vec<PodSandbox>> {
        self.timed("list_podsandbox", self.runtime.list_pod_sandbox(filter)).await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> CriResult<String> {
        self.timed("create_container", self.runtime.create_container(sandbox_id, config, sandbox_config)).await
    }

    async fn start_container(&self, id: &str) -> CriResult<()> {
        self.timed("start_container", self.runtime.start_container(id)).await
    }

    async fn stop_container(&self, id: &str, timeout_seconds: u64) -> CriResult<()> {
        self.timed("stop_container", self.runtime.stop_container(id, timeout_seconds)).await
    }

    async fn remove_container(&self, id: &str) -> CriResult<()> {
        self.timed("remove_container", self.runtime.remove_container(id)).await
    }

    async fn container_status(&self, id: &str) -> CriResult<ContainerStatus> {
        self.timed("container_status", self.runtime.container_status(id)).await
    }

    async fn list_containers(&self, filter: ContainerFilter) -> CriResult<Vec<Container>> {
        self.timed("list_containers", self.runtime.list_containers(filter)).await
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> CriResult<()> {
        self.timed("update_container", self.runtime.update_container_resources(id, resources)).await
    }

    async fn reopen_container_log(&self, id: &str) -> CriResult<()> {
        self.timed("reopen_container_log", self.runtime.reopen_container_log(id)).await
    }

    async fn container_stats(&self, id: &str) -> CriResult<ContainerStats> {
        self.timed("container_stats", self.runtime.container_stats(id)).await
    }

    async fn list_container_stats(&self, filter: ContainerFilter) -> CriResult<Vec<ContainerStats>> {
        self.timed("list_container_stats", self.runtime.list_container_stats(filter)).await
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout_seconds: u64) -> CriResult<ExecSyncResponse> {
        self.timed("exec_sync", self.runtime.exec_sync(id, command, timeout_seconds)).await
    }

    async fn exec(&self, request: ExecRequest) -> CriResult<ExecSession> {
        self.timed("exec", self.runtime.exec(request)).await
    }

    async fn attach(&self, request: AttachRequest) -> CriResult<ExecSession> {
        self.timed("attach", self.runtime.attach(request)).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> CriResult<ByteStream> {
        self.timed("port_forward", self.runtime.port_forward(sandbox_id, port)).await
    }

    async fn events(&self) -> CriResult<EventStream> {
        // Upstream does not count what is there for as long as the runtime.
        self.runtime.events().await
    }
}

#[async_trait]
impl ImageService for Measured {
    async fn list_images(&self) -> CriResult<Vec<Image>> {
        self.timed("list_images", self.runtime.list_images()).await
    }

    async fn image_status(&self, image: &str) -> CriResult<Option<Image>> {
        self.timed("image_status", self.runtime.image_status(image)).await
    }

    async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> CriResult<String> {
        self.timed("pull_image", self.runtime.pull_image(image, auth)).await
    }

    async fn remove_image(&self, image: &str) -> CriResult<()> {
        self.timed("remove_image", self.runtime.remove_image(image)).await
    }

    async fn image_fs_info(&self) -> CriResult<FilesystemUsage> {
        self.timed("image_fs_info", self.runtime.image_fs_info()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRuntime;

    #[tokio::test]
    async fn calls_are_counted_with_those_that_failed() {
        let measures = Arc::new(Measures::default());
        let runtime = Measured::new(FakeRuntime::new(pintle_clock::system()), Arc::clone(&measures));
        runtime.version().await.unwrap();
        runtime.version().await.unwrap();
        runtime.start_container("nobody").await.unwrap_err();
        let text = measures.render();
        for line in [
            "kubelet_runtime_operations_total{operation_type=\"version\"} 2",
            "kubelet_runtime_operations_total{operation_type=\"start_container\"} 1",
            "kubelet_runtime_operations_errors_total{operation_type=\"start_container\"} 1",
            "kubelet_runtime_operations_duration_seconds_count{operation_type=\"version\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("errors_total{operation_type=\"version\"}"), "{text}");
    }
}
