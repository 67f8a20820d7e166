//! The verbs of `RuntimeService`.

use super::{Served, done, in_chunks};
use crate::convert::of_cri;
use crate::messages as m;
use pintle_cri::{AttachRequest, CriError, ExecRequest};
use pintle_grpc::{Answer, Call, Status};
use std::collections::BTreeMap;

const API_VERSION: &str = "v1";
/// The version of the kubelet's own protocol, as containerd answers.
const KUBELET_API_VERSION: &str = "0.1.0";
const CGROUPFS: i32 = 1;

fn id(of: &str, what: &str) -> Result<(), Status> {
    if of.is_empty() { Err(Status::invalid(format!("the {what} is missing"))) } else { Ok(()) }
}

impl Served {
    pub(super) async fn runtime_call(&self, verb: &str, call: &Call) -> Result<Answer, Status> {
        match verb {
            "Version" | "Status" | "RuntimeConfig" | "UpdateRuntimeConfig" | "UpdatePodSandboxResources" => {
                self.about_runtime(verb, call).await
            }
            "RunPodSandbox" | "StopPodSandbox" | "RemovePodSandbox" | "PodSandboxStatus" | "ListPodSandbox"
            | "StreamPodSandboxes" => self.about_sandboxes(verb, call).await,
            "CreateContainer"
            | "StartContainer"
            | "StopContainer"
            | "RemoveContainer"
            | "ContainerStatus"
            | "ListContainers"
            | "StreamContainers"
            | "UpdateContainerResources"
            | "ReopenContainerLog" => self.about_containers(verb, call).await,
            "ExecSync" | "Exec" | "Attach" | "PortForward" => self.about_processes(verb, call).await,
            "GetContainerEvents" => self.events().await,
            "CheckpointContainer" => Err(of_cri(CriError::Unimplemented("a checkpoint of a container".to_owned()))),
            _ => self.about_usage(verb, call).await,
        }
    }

    async fn about_runtime(&self, verb: &str, call: &Call) -> Result<Answer, Status> {
        match verb {
            "Version" => done(self.runtime.version().await.map(|version| m::VersionResponse {
                version: KUBELET_API_VERSION.to_owned(),
                runtime_name: version.runtime_name,
                runtime_version: version.runtime_version,
                runtime_api_version: API_VERSION.to_owned(),
            })),
            "Status" => self.status(call.request()?).await,
            "RuntimeConfig" => {
                let linux = Some(m::LinuxRuntimeConfiguration { cgroup_driver: CGROUPFS });
                Ok(Answer::once(&m::RuntimeConfigResponse { linux }))
            }
            "UpdateRuntimeConfig" => self.update_config(call.request()?).await,
            // The kubelet has set them on the pod's cgroup; nothing else follows from them.
            _ => Ok(Answer::once(&m::UpdatePodSandboxResourcesResponse {})),
        }
    }

    async fn update_config(&self, asked: m::UpdateRuntimeConfigRequest) -> Result<Answer, Status> {
        let cidrs = asked.runtime_config.and_then(|config| config.network_config).unwrap_or_default().pod_cidr;
        let cidrs: Vec<String> =
            cidrs.split(',').map(|cidr| cidr.trim().to_owned()).filter(|c| !c.is_empty()).collect();
        if !cidrs.is_empty() {
            self.runtime.update_pod_cidrs(&cidrs).await.map_err(of_cri)?;
        }
        Ok(Answer::once(&m::UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, _: m::StatusRequest) -> Result<Answer, Status> {
        let status = self.runtime.status().await.map_err(of_cri)?;
        let condition = |kind: &str, reason: &str, state: Result<(), String>| m::RuntimeCondition {
            kind: kind.to_owned(),
            status: state.is_ok(),
            reason: if state.is_ok() { String::new() } else { reason.to_owned() },
            message: state.err().unwrap_or_default(),
        };
        let handler = |handler: pintle_cri::RuntimeHandler| m::RuntimeHandler {
            name: handler.name,
            features: Some(m::RuntimeHandlerFeatures {
                recursive_read_only_mounts: handler.recursive_read_only_mounts,
                user_namespaces: handler.user_namespaces,
            }),
        };
        let conditions = vec![
            condition("RuntimeReady", "RuntimeNotReady", status.runtime_ready),
            condition("NetworkReady", "NetworkPluginNotReady", status.network_ready),
        ];
        Ok(Answer::once(&m::StatusResponse {
            status: Some(m::RuntimeStatus { conditions }),
            info: BTreeMap::new(),
            runtime_handlers: status.handlers.into_iter().map(handler).collect(),
            features: Some(m::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        }))
    }

    async fn about_sandboxes(&self, verb: &str, call: &Call) -> Result<Answer, Status> {
        let runtime = &self.runtime;
        match verb {
            "RunPodSandbox" => {
                let asked: m::RunPodSandboxRequest = call.request()?;
                let config = asked.config.ok_or_else(|| Status::invalid("the sandbox config is missing"))?;
                let made = runtime.run_pod_sandbox(config.try_into()?, &asked.runtime_handler).await;
                done(made.map(|pod_sandbox_id| m::RunPodSandboxResponse { pod_sandbox_id }))
            }
            "StopPodSandbox" => {
                let asked: m::StopPodSandboxRequest = call.request()?;
                id(&asked.pod_sandbox_id, "sandbox's id")?;
                done(runtime.stop_pod_sandbox(&asked.pod_sandbox_id).await.map(|()| m::StopPodSandboxResponse {}))
            }
            "RemovePodSandbox" => {
                let asked: m::RemovePodSandboxRequest = call.request()?;
                id(&asked.pod_sandbox_id, "sandbox's id")?;
                done(runtime.remove_pod_sandbox(&asked.pod_sandbox_id).await.map(|()| m::RemovePodSandboxResponse {}))
            }
            "PodSandboxStatus" => {
                let asked: m::PodSandboxStatusRequest = call.request()?;
                let status = runtime.pod_sandbox_status(&asked.pod_sandbox_id).await;
                done(
                    status.map(|status| m::PodSandboxStatusResponse {
                        status: Some(status.into()),
                        ..Default::default()
                    }),
                )
            }
            "ListPodSandbox" => {
                let asked: m::ListPodSandboxRequest = call.request()?;
                let items = runtime.list_pod_sandbox(asked.filter.unwrap_or_default().into()).await;
                done(
                    items.map(|items| m::ListPodSandboxResponse { items: items.into_iter().map(Into::into).collect() }),
                )
            }
            _ => {
                let asked: m::StreamPodSandboxesRequest = call.request()?;
                let items = runtime.list_pod_sandbox(asked.filter.unwrap_or_default().into()).await.map_err(of_cri)?;
                Ok(in_chunks(items, |items| m::StreamPodSandboxesResponse {
                    pod_sandboxes: items.into_iter().map(Into::into).collect(),
                }))
            }
        }
    }

    async fn about_containers(&self, verb: &str, call: &Call) -> Result<Answer, Status> {
        let runtime = &self.runtime;
        match verb {
            "CreateContainer" => {
                let asked: m::CreateContainerRequest = call.request()?;
                let config = asked.config.ok_or_else(|| Status::invalid("the container config is missing"))?;
                let sandbox = asked.sandbox_config.ok_or_else(|| Status::invalid("the sandbox config is missing"))?;
                let (config, sandbox) = (config.try_into()?, sandbox.try_into()?);
                let made = runtime.create_container(&asked.pod_sandbox_id, config, &sandbox).await;
                done(made.map(|container_id| m::CreateContainerResponse { container_id }))
            }
            "StartContainer" => {
                let asked: m::StartContainerRequest = call.request()?;
                done(runtime.start_container(&asked.container_id).await.map(|()| m::StartContainerResponse {}))
            }
            "StopContainer" => {
                let asked: m::StopContainerRequest = call.request()?;
                id(&asked.container_id, "container's id")?;
                let seconds = u64::try_from(asked.timeout).unwrap_or(0);
                done(runtime.stop_container(&asked.container_id, seconds).await.map(|()| m::StopContainerResponse {}))
            }
            "RemoveContainer" => {
                let asked: m::RemoveContainerRequest = call.request()?;
                id(&asked.container_id, "container's id")?;
                done(runtime.remove_container(&asked.container_id).await.map(|()| m::RemoveContainerResponse {}))
            }
            "ContainerStatus" => {
                let asked: m::ContainerStatusRequest = call.request()?;
                let status = runtime.container_status(&asked.container_id).await;
                done(status.map(|status| {
                    let told = serde_json::json!({ "pid": status.pid }).to_string();
                    let info = asked.verbose.then(|| ("info".to_owned(), told));
                    m::ContainerStatusResponse { status: Some(status.into()), info: info.into_iter().collect() }
                }))
            }
            "ListContainers" => {
                let asked: m::ListContainersRequest = call.request()?;
                let found = runtime.list_containers(asked.filter.unwrap_or_default().into()).await;
                done(
                    found.map(|found| m::ListContainersResponse {
                        containers: found.into_iter().map(Into::into).collect(),
                    }),
                )
            }
            "StreamContainers" => {
                let asked: m::StreamContainersRequest = call.request()?;
                let found = runtime.list_containers(asked.filter.unwrap_or_default().into()).await.map_err(of_cri)?;
                Ok(in_chunks(found, |found| m::StreamContainersResponse {
                    containers: found.into_iter().map(Into::into).collect(),
                }))
            }
            "UpdateContainerResources" => {
                let asked: m::UpdateContainerResourcesRequest = call.request()?;
                let resources = asked.linux.ok_or_else(|| Status::invalid("the resources are missing"))?;
                let updated = runtime.update_container_resources(&asked.container_id, resources.into()).await;
                done(updated.map(|()| m::UpdateContainerResourcesResponse {}))
            }
            _ => {
                let asked: m::ReopenContainerLogRequest = call.request()?;
                done(runtime.reopen_container_log(&asked.container_id).await.map(|()| m::ReopenContainerLogResponse {}))
            }
        }
    }

    async fn about_processes(&self, verb: &str, call: &Call) -> Result<Answer, Status> {
        match verb {
            "ExecSync" => {
                let asked: m::ExecSyncRequest = call.request()?;
                let seconds = u64::try_from(asked.timeout).unwrap_or(0);
                let done_with = self.runtime.exec_sync(&asked.container_id, &asked.cmd, seconds).await;
                done(done_with.map(|answer| m::ExecSyncResponse {
                    stdout: answer.stdout.into(),
                    stderr: answer.stderr.into(),
                    exit_code: answer.exit_code,
                }))
            }
            "Exec" => {
                let asked: m::ExecRequest = call.request()?;
                self.running(&asked.container_id).await?;
                let url = self.streams.exec(ExecRequest {
                    container_id: asked.container_id,
                    command: asked.cmd,
                    tty: asked.tty,
                    size: None,
                    stdin: asked.stdin,
                    stdout: asked.stdout,
                    stderr: asked.stderr,
                });
                Ok(Answer::once(&m::ExecResponse { url: url.await? }))
            }
            "Attach" => {
                let asked: m::AttachRequest = call.request()?;
                self.running(&asked.container_id).await?;
                let url = self.streams.attach(AttachRequest {
                    container_id: asked.container_id,
                    stdin: asked.stdin,
                    tty: asked.tty,
                    stdout: asked.stdout,
                    stderr: asked.stderr,
                });
                Ok(Answer::once(&m::AttachResponse { url: url.await? }))
            }
            _ => {
                let asked: m::PortForwardRequest = call.request()?;
                self.runtime.pod_sandbox_status(&asked.pod_sandbox_id).await.map_err(of_cri)?;
                let url = self.streams.port_forward(asked.pod_sandbox_id).await?;
                Ok(Answer::once(&m::PortForwardResponse { url }))
            }
        }
    }

    /// Streams are opened to running containers only.
    async fn running(&self, id: &str) -> Result<(), Status> {
        let status = self.runtime.container_status(id).await.map_err(of_cri)?;
        if status.state == pintle_cri::ContainerState::Running {
            return Ok(());
        }
        let state = format!("{:?}", status.state).to_uppercase();
        Err(of_cri(CriError::FailedPrecondition(format!("container is in CONTAINER_{state} state"))))
    }
}
