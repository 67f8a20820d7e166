//! Further processes in containers: made first, started later, and known for a while after their end.

use crate::containers::{Container, Status, not_running};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use parking_lot::Mutex;
use pintle_cri::{ByteReader, CriError, ExecRequest, ExecSession, ExitOutcome, TerminalSize};
use pintle_runtime::options::ExecOptions;
use pintle_runtime::{ContainerPhase, ContainerView};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Instances that are known at a time, over all containers: those that have ended make room first.
const MAX_KNOWN: usize = 4096;

/// How long a size waits for its process to start, as in Docker.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecConfig {
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub privileged: bool,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub detach_keys: String,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecPhase {
    #[default]
    Created,
    Running,
    Ended(i32),
}

/// An instance.
pub struct Exec {
    pub id: String,
    pub container_id: String,
    pub config: ExecConfig,
    state: Mutex<ExecState>,
    /// Whether it has its streams, or never will.
    begun: watch::Sender<bool>,
    /// It is in a container of a pod, which has no record here.
    of_pod: bool,
}

#[derive(Default)]
struct ExecState {
    phase: ExecPhase,
    pid: i32,
    resize: Option<mpsc::Sender<TerminalSize>>,
}

impl Exec {
    pub fn phase(&self) -> ExecPhase {
        self.state.lock().phase
    }

    /// 0 before it runs.
    pub fn pid(&self) -> i32 {
        self.state.lock().pid
    }
}

/// Where an instance is to run.
struct Place {
    id: String,
    /// None for a container of a pod.
    container: Option<Arc<Container>>,
}

/// All instances, by id.
#[derive(Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

/// A running process whose streams the caller holds; its end is noted when `ended` is awaited elsewhere already.
pub struct ExecStreams {
    pub stdin: Option<pintle_cri::ByteWriter>,
    pub stdout: Option<ByteReader>,
    pub stderr: Option<ByteReader>,
    /// Resolves when the exit code is known, which clients ask for as soon as the streams end.
    pub ended: oneshot::Receiver<()>,
}

impl Daemon {
    /// Makes an instance; returns its id.
    ///
    /// # Errors
    /// 404 without the container, 409 when it does not run or is paused, 400 without a command.
    pub fn create_exec(&self, wanted: &str, config: ExecConfig) -> Result<String> {
        let place = self.place(wanted)?;
        if config.command.is_empty() {
            return Err(DockerError::invalid("No exec command specified"));
        }
        let id = crate::containers::new_id();
        let told = config.command.join(" ");
        let (container_id, of_pod) = (place.id, place.container.is_none());
        let (state, begun) = (Mutex::default(), watch::Sender::new(false));
        let exec = Exec { id: id.clone(), container_id, config, state, begun, of_pod };
        let mut known = self.execs.0.lock();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, e| !matches!(e.phase(), ExecPhase::Ended(_)));
            // Nobody tells when a container of a pod is removed.
            known.retain(|_, e| !e.of_pod || self.engine.view(&e.container_id).is_ok());
        }
        if known.len() >= MAX_KNOWN {
            return Err(DockerError::conflict("too many exec instances"));
        }
        known.insert(id.clone(), Arc::new(exec));
        drop(known);
        if let Some(container) = place.container {
            container.execs.lock().insert(id.clone());
            self.tell_of(&container, &format!("exec_create: {told}"), &[("execID", &id)]);
        }
        Ok(id)
    }

    /// A running container that processes can be started in: one of Docker's, or one of a pod by its whole id.
    fn place(&self, wanted: &str) -> Result<Place> {
        match self.container(wanted) {
            Ok(container) => {
                check_state(&container)?;
                Ok(Place { id: container.id.clone(), container: Some(container) })
            }
            Err(missing) => {
                self.pod_container(wanted).ok_or(missing)??;
                Ok(Place { id: wanted.to_owned(), container: None })
            }
        }
    }

    /// A container of a pod by its whole id, which must run.
    pub(crate) fn pod_container(&self, id: &str) -> Option<Result<ContainerView>> {
        let view = self.engine.view(id).ok()?;
        Some(if view.phase == ContainerPhase::Running { Ok(view) } else { Err(not_running(id)) })
    }

    /// Refuses an instance that cannot be started: one that is unknown, or in a container that does not run.
    ///
    /// # Errors
    /// 404 without the instance, 409 without the running container.
    pub fn check_exec(&self, id: &str) -> Result<()> {
        self.place(&self.exec(id)?.container_id).map(drop)
    }

    /// An instance by its id.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        let found = self.execs.0.lock().get(id).cloned();
        found.ok_or_else(|| DockerError::not_found(format!("No such exec instance: {id}")))
    }

    /// Starts an instance and gives its streams, those that its configuration names.
    ///
    /// # Errors
    /// 409 when it was started before; 400 with the runtime's words when the program cannot be executed.
    pub async fn start_exec(self: &Arc<Self>, id: &str, size: Option<(u16, u16)>) -> Result<ExecStreams> {
        let exec = self.exec(id)?;
        let container = self.place(&exec.container_id)?.container;
        {
            let mut state = exec.state.lock();
            match state.phase {
                ExecPhase::Created => state.phase = ExecPhase::Running,
                ExecPhase::Running => {
                    return Err(DockerError::conflict(format!("exec command {id} is already running")));
                }
                ExecPhase::Ended(_) => {
                    return Err(DockerError::conflict(format!("exec command {id} has already run")));
                }
            }
        }
        if let Some(container) = &container {
            self.tell_of(container, &format!("exec_start: {}", exec.config.command.join(" ")), &[("execID", id)]);
        }
        let started = self.engine.exec_with(request(&exec, size), &options(&exec.config)).await;
        let (session, pid) = match started {
            Ok(started) => started,
            Err(error) => {
                let (code, error) = failure(&error);
                exec.state.lock().phase = ExecPhase::Ended(code);
                exec.begun.send_replace(true);
                if let Some(container) = &container {
                    container.execs.lock().remove(id);
                }
                return Err(error);
            }
        };
        {
            let mut state = exec.state.lock();
            state.pid = pid;
            state.resize = Some(session.resize.clone());
        }
        exec.begun.send_replace(true);
        Ok(self.note_end(container, &exec, session))
    }

    /// Writes down how the process ends, whoever holds its streams.
    fn note_end(
        self: &Arc<Self>,
        container: Option<Arc<Container>>,
        exec: &Arc<Exec>,
        session: ExecSession,
    ) -> ExecStreams {
        let ExecSession { stdin, stdout, stderr, exit, .. } = session;
        let (daemon, exec) = (Arc::downgrade(self), Arc::clone(exec));
        let (known, ended) = oneshot::channel();
        tokio::spawn(async move {
            let code = match exit.await {
                Ok(ExitOutcome::Code(code)) => code,
                _ => 137,
            };
            {
                let mut state = exec.state.lock();
                state.phase = ExecPhase::Ended(code);
                state.resize = None;
            }
            // Nobody may wait for it.
            let _ = known.send(());
            let Some(container) = container else { return };
            container.execs.lock().remove(&exec.id);
            if let Some(daemon) = daemon.upgrade() {
                daemon.tell_of(&container, "exec_die", &[("execID", &exec.id), ("exitCode", &code.to_string())]);
            }
        });
        ExecStreams { stdin, stdout, stderr, ended }
    }

    /// Tells a process's terminal its size.
    pub async fn resize_exec(&self, id: &str, columns: u16, rows: u16) -> Result<()> {
        let exec = self.exec(id)?;
        // Clients say the size as soon as they are told that the process is about to start.
        let mut begun = exec.begun.subscribe();
        let waited = tokio::time::timeout(START_PATIENCE, begun.wait_for(|begun| *begun)).await;
        waited.map_err(|_| DockerError::internal("timeout waiting for exec session ready"))?.ok();
        let Some(resize) = exec.state.lock().resize.clone() else { return Ok(()) };
        // One that has just ended needs no size.
        let _ = resize.send(TerminalSize { width: columns, height: rows }).await;
        Ok(())
    }

    /// Instances of a container that has gone.
    pub(crate) fn drop_execs(&self, container: &Container) {
        self.execs.0.lock().retain(|_, exec| exec.container_id != container.id);
    }
}

fn check_state(container: &Container) -> Result<()> {
    match container.status() {
        Status::Running => Ok(()),
        Status::Paused => Err(DockerError::conflict(format!(
            "Container {} is paused, unpause the container before exec",
            container.name()
        ))),
        Status::Restarting => Err(DockerError::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(not_running(&container.id)),
    }
}

fn request(exec: &Exec, size: Option<(u16, u16)>) -> ExecRequest {
    let config = &exec.config;
    let size = size.or(config.size).filter(|(columns, rows)| *columns > 0 && *rows > 0);
    ExecRequest {
        container_id: exec.container_id.clone(),
        command: config.command.clone(),
        tty: config.tty,
        size: size.map(|(width, height)| TerminalSize { width, height }),
        stdin: config.stdin,
        stdout: config.stdout,
        stderr: config.stderr,
    }
}

fn options(config: &ExecConfig) -> ExecOptions {
    ExecOptions {
        env: config.env.clone(),
        cwd: PathBuf::from(&config.working_dir),
        user: config.user.clone(),
        privileged: config.privileged,
    }
}

/// The exit code of a process that could not be executed, and Docker's words for it.
fn failure(error: &CriError) -> (i32, DockerError) {
    let text = error.to_string();
    let own = text.rsplit_once("unable to start container process: ").map_or(text.as_str(), |(_, own)| own);
    let has = |parts: &[&str]| parts.iter().any(|part| own.contains(part));
    let code = if has(&["executable file not found", "no such file or directory"]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        255
    };
    if own.starts_with("unable to find user") || own.starts_with("unable to find group") {
        return (126, DockerError::invalid(own));
    }
    let status = if code == 255 { 500 } else { 400 };
    let message = format!("OCI runtime exec failed: exec failed: unable to start container process: {own}");
    (code, DockerError::new(status, message))
}
