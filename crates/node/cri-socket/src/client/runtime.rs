//! The verbs of `RuntimeService`, asked of the other process.

use super::{RemoteRuntime, TIMEOUT, attachment, container, missing, sandbox, sub_paths};
use crate::convert::{Subject, failure, with_user_namespace};
use crate::messages as m;
use async_trait::async_trait;
use pintle_cri::{
    AttachRequest, ByteStream, Container, ContainerConfig, ContainerFilter, ContainerStats, ContainerStatus, CriResult,
    EventStream, ExecRequest, ExecSession, ExecSyncResponse, IdMappings, LinuxContainerResources, PodSandbox,
    PodSandboxConfig, PodSandboxFilter, PodSandboxStatus, RuntimeHandler, RuntimeService, RuntimeStatus,
    VersionResponse,
};
use pintle_streaming::Wants;
use std::sync::Arc;
use std::time::Duration;

/// What the kubelet and the runtime speak to each other.
const KUBELET_API_VERSION: &str = "0.1.0";
const RUNTIME: Subject<'static> = Subject { what: "runtime", id: "" };

fn later(seconds: u64) -> Option<Duration> {
    TIMEOUT.checked_add(Duration::from_secs(seconds))
}

/// CRI counts in signed numbers.
fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn condition(conditions: &[m::RuntimeCondition], kind: &str) -> Result<(), String> {
    match conditions.iter().find(|condition| condition.kind == kind) {
        Some(condition) if condition.status => Ok(()),
        Some(condition) => Err(condition.message.clone()),
        None => Err(format!("the runtime does not say whether it has the condition {kind}")),
    }
}

/// The container's first process, which runtimes tell to those who ask for more.
fn pid(info: &m::ContainerStatusResponse) -> i32 {
    let told = info.info.get("info").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    told.and_then(|told| told["pid"].as_i64()).and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0)
}

/// A container of a pod with users of its own sees the owners of its mounts as they are outside.
fn map_ids(config: &mut m::ContainerConfig, of: &IdMappings) {
    let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    let Some(options) = security.and_then(|security| security.namespace_options.as_mut()) else { return };
    with_user_namespace(options, of);
    let Some(namespace) = &options.userns_options else { return };
    for mount in &mut config.mounts {
        mount.uid_mappings.clone_from(&namespace.uids);
        mount.gid_mappings.clone_from(&namespace.gids);
    }
}

#[async_trait]
impl RuntimeService for RemoteRuntime {
    async fn version(&self) -> CriResult<VersionResponse> {
        let asked = m::VersionRequest { version: KUBELET_API_VERSION.to_owned() };
        let version: m::VersionResponse = self.runtime("Version", asked, RUNTIME).await?;
        Ok(VersionResponse {
            runtime_name: version.runtime_name,
            runtime_version: version.runtime_version,
            runtime_api_version: version.runtime_api_version,
        })
    }

    async fn status(&self) -> CriResult<RuntimeStatus> {
        let told: m::StatusResponse = self.runtime("Status", m::StatusRequest { verbose: false }, RUNTIME).await?;
        let conditions = told.status.unwrap_or_default().conditions;
        let handler = |handler: m::RuntimeHandler| {
            let features = handler.features.unwrap_or_default();
            RuntimeHandler {
                name: handler.name,
                recursive_read_only_mounts: features.recursive_read_only_mounts,
                user_namespaces: features.user_namespaces,
            }
        };
        Ok(RuntimeStatus {
            runtime_ready: condition(&conditions, "RuntimeReady"),
            network_ready: condition(&conditions, "NetworkReady"),
            handlers: told.runtime_handlers.into_iter().map(handler).collect(),
        })
    }

    async fn update_pod_cidrs(&self, cidrs: &[String]) -> CriResult<()> {
        let network_config = Some(m::NetworkConfig { pod_cidr: cidrs.join(",") });
        let asked = m::UpdateRuntimeConfigRequest { runtime_config: Some(m::RuntimeConfig { network_config }) };
        self.runtime("UpdateRuntimeConfig", asked, RUNTIME).await.map(|_: m::UpdateRuntimeConfigResponse| ())
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> CriResult<String> {
        let name = config.metadata.name.clone();
        let asked =
            m::RunPodSandboxRequest { config: Some(config.into()), runtime_handler: runtime_handler.to_owned() };
        // Networks take their time, as upstream knows.
        let (method, timeout) = ("/runtime.v1.RuntimeService/RunPodSandbox", Some(TIMEOUT * 2));
        let made: m::RunPodSandboxResponse = self.call(method, asked, sandbox(&name), timeout).await?;
        Ok(made.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> CriResult<()> {
        let asked = m::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime("StopPodSandbox", asked, sandbox(id)).await.map(|_: m::StopPodSandboxResponse| ())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> CriResult<()> {
        let asked = m::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let _: m::RemovePodSandboxResponse = self.runtime("RemovePodSandbox", asked, sandbox(id)).await?;
        sub_paths::release(self.sub_paths.join(id)).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> CriResult<PodSandboxStatus> {
        let asked = m::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let told: m::PodSandboxStatusResponse = self.runtime("PodSandboxStatus", asked, sandbox(id)).await?;
        let status = told.status.ok_or_else(|| missing("status"))?;
        status.try_into().map_err(|status| failure(status, sandbox(id)))
    }

    async fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> CriResult<Vec<PodSandbox>> {
        let asked = m::ListPodSandboxRequest { filter: Some(filter.into()) };
        let told: m::ListPodSandboxResponse = self.runtime("ListPodSandbox", asked, RUNTIME).await?;
        Ok(told.items.into_iter().map(Into::into).collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        mut config: ContainerConfig,
        sandbox_config: &PodSandboxConfig,
    ) -> CriResult<String> {
        let place = self.sub_paths.join(sandbox_id).join(&config.metadata.name);
        config.mounts = sub_paths::bound(config.mounts, place).await?;
        let name = config.metadata.name.clone();
        let mut config = m::ContainerConfig::from(config);
        map_ids(&mut config, &sandbox_config.id_mappings);
        let asked = m::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config.clone().into()),
        };
        let made: m::CreateContainerResponse = self.runtime("CreateContainer", asked, container(&name)).await?;
        Ok(made.container_id)
    }

    async fn start_container(&self, id: &str) -> CriResult<()> {
        let asked = m::StartContainerRequest { container_id: id.to_owned() };
        self.runtime("StartContainer", asked, container(id)).await.map(|_: m::StartContainerResponse| ())
    }

    async fn stop_container(&self, id: &str, timeout_seconds: u64) -> CriResult<()> {
        let asked = m::StopContainerRequest { container_id: id.to_owned(), timeout: signed(timeout_seconds) };
        let method = "/runtime.v1.RuntimeService/StopContainer";
        let done: CriResult<m::StopContainerResponse> =
            self.call(method, asked, container(id), later(timeout_seconds)).await;
        done.map(|_| ())
    }

    async fn remove_container(&self, id: &str) -> CriResult<()> {
        let asked = m::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime("RemoveContainer", asked, container(id)).await.map(|_: m::RemoveContainerResponse| ())
    }

    async fn container_status(&self, id: &str) -> CriResult<ContainerStatus> {
        let asked = m::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let told: m::ContainerStatusResponse = self.runtime("ContainerStatus", asked, container(id)).await?;
        let pid = pid(&told);
        let status = told.status.ok_or_else(|| missing("status"))?;
        let status = ContainerStatus::try_from(status).map_err(|status| failure(status, container(id)))?;
        let runs = status.state == pintle_cri::ContainerState::Running;
        Ok(ContainerStatus { pid: if runs { pid } else { 0 }, ..status })
    }

    async fn list_containers(&self, filter: ContainerFilter) -> CriResult<Vec<Container>> {
        let asked = m::ListContainersRequest { filter: Some(filter.into()) };
        let told: m::ListContainersResponse = self.runtime("ListContainers", asked, RUNTIME).await?;
        Ok(told.containers.into_iter().map(Into::into).collect())
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> CriResult<()> {
        let asked = m::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources.into()),
            annotations: Default::default(),
        };
        let done: CriResult<m::UpdateContainerResourcesResponse> =
            self.runtime("UpdateContainerResources", asked, container(id)).await;
        done.map(|_| ())
    }

    async fn reopen_container_log(&self, id: &str) -> CriResult<()> {
        let asked = m::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.runtime("ReopenContainerLog", asked, container(id)).await.map(|_: m::ReopenContainerLogResponse| ())
    }

    async fn container_stats(&self, id: &str) -> CriResult<ContainerStats> {
        let asked = m::ContainerStatsRequest { container_id: id.to_owned() };
        let told: m::ContainerStatsResponse = self.runtime("ContainerStats", asked, container(id)).await?;
        told.stats.map(Into::into).ok_or_else(|| missing("statistics"))
    }

    async fn list_container_stats(&self, filter: ContainerFilter) -> CriResult<Vec<ContainerStats>> {
        let filter = m::ContainerStatsFilter {
            id: filter.id.unwrap_or_default(),
            pod_sandbox_id: filter.sandbox_id.unwrap_or_default(),
            label_selector: filter.labels,
        };
        let asked = m::ListContainerStatsRequest { filter: Some(filter) };
        let told: m::ListContainerStatsResponse = self.runtime("ListContainerStats", asked, RUNTIME).await?;
        // One that is about to end may have no numbers any more.
        let whole = told.stats.into_iter().filter(|stats| stats.attributes.is_some() && stats.cpu.is_some());
        Ok(whole.map(Into::into).collect())
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout_seconds: u64) -> CriResult<ExecSyncResponse> {
        let asked =
            m::ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout: signed(timeout_seconds) };
        let timeout = if timeout_seconds == 0 { None } else { later(timeout_seconds) };
        let method = "/runtime.v1.RuntimeService/ExecSync";
        let told: m::ExecSyncResponse = self.call(method, asked, container(id), timeout).await?;
        Ok(ExecSyncResponse { stdout: told.stdout.into(), stderr: told.stderr.into(), exit_code: told.exit_code })
    }

    async fn exec(&self, request: ExecRequest) -> CriResult<ExecSession> {
        let ExecRequest { container_id, command, tty, size: _, stdin, stdout, stderr } = request;
        let stderr = stderr && !tty;
        let id = container_id.clone();
        let asked = m::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr };
        let told: m::ExecResponse = self.runtime("Exec", asked, container(&id)).await?;
        Ok(pintle_streaming::dial_exec(&told.url, Wants { stdin, stdout, stderr, tty }).await?)
    }

    async fn attach(&self, request: AttachRequest) -> CriResult<ExecSession> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        let stderr = stderr && !tty;
        let id = container_id.clone();
        let asked = m::AttachRequest { container_id, stdin, tty, stdout, stderr };
        let told: m::AttachResponse = self.runtime("Attach", asked, container(&id)).await?;
        let session = pintle_streaming::dial_exec(&told.url, Wants { stdin, stdout, stderr, tty }).await?;
        Ok(attachment::watched(session, attachment::not_too_late(Arc::clone(&self.socket), id)))
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> CriResult<ByteStream> {
        let asked = m::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port: vec![port.into()] };
        let told: m::PortForwardResponse = self.runtime("PortForward", asked, sandbox(sandbox_id)).await?;
        Ok(pintle_streaming::dial_port(&told.url, port).await?)
    }

    async fn events(&self) -> CriResult<EventStream> {
        self.logs.look_after();
        Ok(self.events.listen().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_cri::{IdRange, Mount};

    #[test]
    fn every_mount_of_a_pod_with_users_of_its_own_is_mapped() {
        let range = |outside| vec![IdRange { inside: 0, outside, size: 65_536 }];
        let mappings = IdMappings { users: range(131_072), groups: range(196_608) };
        let mounts = ["/a", "/b"].map(|path| Mount { container_path: path.to_owned(), ..Mount::default() });
        let config = ContainerConfig { mounts: mounts.to_vec(), ..ContainerConfig::default() };
        let mut mapped = m::ContainerConfig::from(config.clone());
        map_ids(&mut mapped, &mappings);
        assert_eq!(mapped.mounts.len(), 2);
        for mount in &mapped.mounts {
            assert_eq!((mount.uid_mappings[0].host_id, mount.gid_mappings[0].host_id), (131_072, 196_608));
        }
        let mut plain = m::ContainerConfig::from(config);
        map_ids(&mut plain, &IdMappings::default());
        assert!(plain.mounts.iter().all(|mount| mount.uid_mappings.is_empty()));
    }
}
