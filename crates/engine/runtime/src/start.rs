//! Starts a created container.

use crate::engine::{Container, Engine};
use crate::records::{ContainerPhase, ContainerRecord};
use crate::shim_client::started;
use crate::spec::{self, Surroundings};
use pintle_cri::{ContainerUser, CriError, CriResult, EventKind, NamespaceMode};
use pintle_shim::protocol::{Failure, Request, Started};
use std::path::PathBuf;
use std::sync::Arc;

/// The exit code and reason that containerd gives a container that could not be started.
const START_FAILED: i32 = 128;
const START_ERROR: &str = "StartError";

impl Engine {
    pub(crate) async fn start(&self, id: &str) -> CriResult<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let record = container.record.lock().clone();
        if record.phase != ContainerPhase::Created {
            return Err(CriError::FailedPrecondition(format!(
                "failed to set starting state for container {:?}: container is in {} state",
                record.id,
                state_name(record.phase)
            )));
        }
        let outcome = self.start_process(&record).await?;
        match outcome {
            Ok(started) => self.note_started(&container, started),
            Err(failure) => {
                let message = format!("failed to create container process: {}", failure.message);
                self.note_failed(&container, &message);
                Err(CriError::Internal(message))
            }
        }
    }

    /// The outer error leaves the container as it was.
    async fn start_process(&self, record: &ContainerRecord) -> CriResult<Result<Started, Failure>> {
        let sandbox = self.sandbox(&record.sandbox_id)?;
        let shim = sandbox.shim()?;
        let filter = self.seccomp_program(&record.config.security, record.options.seccomp.as_deref())?;
        let sandbox_record = sandbox.record.lock().clone();
        let surroundings = Surroundings {
            sandbox: &sandbox_record,
            files: self.sandbox_folder.of(&sandbox.id),
            exit_file: self.exit_file(&record.id),
            seccomp: filter,
            pid: self.joined_pid(record)?,
            init: self.init_of(record)?,
        };
        let request = Request::Start(Box::new(spec::container(record, surroundings)?));
        Ok(shim.call(request, Vec::new()).await.and_then(|(answer, _)| started(answer)))
    }

    /// The program that is process 1 before the container's own, where it would be the first.
    pub(crate) fn init_of(&self, record: &ContainerRecord) -> CriResult<Option<PathBuf>> {
        let own_pids =
            record.options.pid_of.is_none() && record.config.security.namespaces.pid == NamespaceMode::Container;
        if !record.options.init || !own_pids {
            return Ok(None);
        }
        if self.config.init_binary.as_os_str().is_empty() {
            return Err(CriError::Unimplemented("an init in containers (--init) is not set up here".to_owned()));
        }
        Ok(Some(self.config.init_binary.clone()))
    }

    /// The pid namespace of another container that this one joins.
    fn joined_pid(&self, record: &ContainerRecord) -> CriResult<Option<PathBuf>> {
        let Some(other) = &record.options.pid_of else { return Ok(None) };
        let other = self.view(other)?;
        if other.pid == 0 {
            return Err(CriError::FailedPrecondition(format!("container {} is not running", other.id)));
        }
        Ok(Some(PathBuf::from(format!("/proc/{}/ns/pid", other.pid))))
    }

    fn note_started(&self, container: &Arc<Container>, started: Started) -> CriResult<()> {
        let saved = self.change_container(container, |record| {
            record.started_at = self.now();
            record.user = Some(user_of(&started));
            // It may have ended before this line: then its exit is what counts.
            if record.phase == ContainerPhase::Created {
                record.phase = ContainerPhase::Running;
                record.pid = started.pid;
            } else {
                record.started_at = record.started_at.min(record.finished_at);
            }
        });
        let sandbox_id = container.record.lock().sandbox_id.clone();
        self.tell(EventKind::ContainerStarted, &container.id, &sandbox_id);
        saved
    }

    fn note_failed(&self, container: &Arc<Container>, message: &str) {
        let saved = self.change_container(container, |record| {
            let now = self.now();
            record.phase = ContainerPhase::Exited;
            record.started_at = now;
            record.finished_at = now;
            record.exit_code = START_FAILED;
            record.reason = START_ERROR.to_owned();
            record.message = message.to_owned();
        });
        if let Err(error) = saved {
            tracing::warn!(container = %container.id, %error, "a failed start is not saved");
        }
        container.ended.send_replace(true);
        let sandbox_id = container.record.lock().sandbox_id.clone();
        self.tell(EventKind::ContainerStopped, &container.id, &sandbox_id);
    }
}

fn user_of(started: &Started) -> ContainerUser {
    ContainerUser {
        uid: started.uid.into(),
        gid: started.gid.into(),
        supplemental_groups: started.groups.iter().map(|gid| i64::from(*gid)).collect(),
    }
}

/// As CRI spells states.
fn state_name(phase: ContainerPhase) -> &'static str {
    match phase {
        ContainerPhase::Creating => "CONTAINER_UNKNOWN",
        ContainerPhase::Created => "CONTAINER_CREATED",
        ContainerPhase::Running => "CONTAINER_RUNNING",
        ContainerPhase::Exited => "CONTAINER_EXITED",
    }
}
