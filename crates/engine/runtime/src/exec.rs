//! Runs further processes in containers, and joins clients to the stdio of their first ones.

use crate::engine::{Container, Engine};
use crate::error::{from_failure, internal};
use crate::options::ExecOptions;
use crate::records::{ContainerPhase, ContainerRecord};
use crate::shim_client::{ShimClient, started};
use crate::spec;
use crate::stdio::{Pipes, Terminal};
use futures::FutureExt;
use pintle_cri::{
    AttachRequest, ByteReader, CriError, CriResult, ExecRequest, ExecSession, ExecSyncResponse, ExitOutcome,
    TerminalSize,
};
use pintle_shim::protocol::{Answer, ExecSpec, Failure, ProcessSpec, Request};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};

/// The most that `exec_sync` keeps of each output, in bytes.
const MAX_OUTPUT: u64 = 16 << 20;
/// How long output may go on after the process has ended, when something else holds its pipes.
const DRAIN: Duration = Duration::from_secs(2);

/// A process that was started.
struct Running {
    shim: Arc<ShimClient>,
    id: String,
    pid: i32,
    controller: Option<OwnedFd>,
    ended: oneshot::Receiver<i32>,
}

/// What of stdio the client wants.
#[derive(Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    size: Option<TerminalSize>,
}

impl Engine {
    pub(crate) async fn run_sync(&self, id: &str, command: &[String], timeout: u64) -> CriResult<ExecSyncResponse> {
        let container = self.container(id)?;
        let wanted = Wanted { stdin: false, stdout: true, stderr: true, tty: false, size: None };
        let (running, pipes) = self.run_process(&container, command, wanted, &ExecOptions::default()).await?;
        let (shim, exec) = (Arc::clone(&running.shim), running.id.clone());
        let collected = collect(running, pipes);
        if timeout == 0 {
            return collected.await;
        }
        match tokio::time::timeout(Duration::from_secs(timeout), collected).await {
            Ok(response) => response,
            Err(_) => {
                // It may have ended just now.
                let _ = shim.ask(Request::SignalExec { exec, signal: libc::SIGKILL }).await;
                Err(CriError::DeadlineExceeded(format!("command {:?}", command.join(" "))))
            }
        }
    }

    pub(crate) async fn run_session(&self, request: ExecRequest) -> CriResult<ExecSession> {
        Ok(self.exec_with(request, &ExecOptions::default()).await?.0)
    }

    /// Runs a process as CRI's `exec` does, with further properties; also returns its number in the machine's pid
    /// namespace.
    pub async fn exec_with(&self, request: ExecRequest, options: &ExecOptions) -> CriResult<(ExecSession, i32)> {
        let container = self.container(&request.container_id)?;
        let wanted = Wanted {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr && !request.tty,
            tty: request.tty,
            size: request.size,
        };
        let (running, pipes) = self.run_process(&container, &request.command, wanted, options).await?;
        let (exit, pid) = (exit_of(running.ended), running.pid);
        let Some(controller) = running.controller else {
            let resize = mpsc::channel(1).0;
            let (stdin, stdout, stderr) = (pipes.stdin, pipes.stdout, pipes.stderr);
            return Ok((ExecSession { stdin, stdout, stderr, resize, exit }, pid));
        };
        let terminal = Terminal::new(controller).map_err(|e| internal("open the terminal", e))?;
        let sized = terminal.clone();
        let resize = on_resize(move |size| {
            sized.resize(size.width, size.height);
            std::future::ready(true)
        });
        let session = ExecSession {
            stdin: request.stdin.then(|| Box::new(terminal.clone()) as _),
            stdout: request.stdout.then(|| Box::new(terminal) as _),
            stderr: None,
            resize,
            exit,
        };
        Ok((session, pid))
    }

    /// Joins a running container; also returns from when on the client gets its output, in nanoseconds since the epoch,
    /// where the shim says it: what the log has from before is not in it.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn attach_since(&self, request: AttachRequest) -> CriResult<(ExecSession, Option<i64>)> {
        let record = self.container(&request.container_id)?.record.lock().clone();
        let shim = self.shim_of(&record)?;
        self.join_in(request, shim).await
    }

    /// Joins a container that is not started yet: the client gets all of its output.
    ///
    /// # Errors
    /// `FailedPrecondition` when its sandbox does not run.
    pub async fn attach_before_start(&self, request: AttachRequest) -> CriResult<ExecSession> {
        let sandbox_id = self.container(&request.container_id)?.record.lock().sandbox_id.clone();
        let shim = self.sandbox(&sandbox_id)?.shim()?;
        Ok(self.join_in(request, shim).await?.0)
    }

    async fn join_in(&self, request: AttachRequest, shim: Arc<ShimClient>) -> CriResult<(ExecSession, Option<i64>)> {
        let container = self.container(&request.container_id)?;
        let record = container.record.lock().clone();
        let tty = record.config.tty;
        let stdin = request.stdin && record.config.stdin;
        let pipes = Pipes::new(stdin, request.stdout, request.stderr && !tty)?;
        let call = Request::Attach {
            container: record.id.clone(),
            stdin,
            stdout: request.stdout,
            stderr: request.stderr && !tty,
        };
        let since = match shim.call(call, pipes.for_process).await.map_err(from_failure)? {
            (Answer::Attached(since), _) => Some(since),
            _ => None,
        };
        let id = record.id.clone();
        let resize = on_resize(move |size| {
            let shim = Arc::clone(&shim);
            let request = Request::Resize { container: id.clone(), columns: size.width, rows: size.height };
            async move { shim.ask(request).await.is_ok() }
        });
        let exit = async move {
            container.wait().await;
            let code = container.record.lock().exit_code;
            Ok(ExitOutcome::Code(code))
        };
        let (stdin, stdout, stderr) = (pipes.stdin, pipes.stdout, pipes.stderr);
        Ok((ExecSession { stdin, stdout, stderr, resize, exit: exit.boxed() }, since))
    }

    /// The shim that holds a running container.
    fn shim_of(&self, record: &ContainerRecord) -> CriResult<Arc<ShimClient>> {
        if record.phase != ContainerPhase::Running {
            let state = format!("{:?}", crate::containers::state(record.phase)).to_uppercase();
            return Err(CriError::FailedPrecondition(format!("container is in CONTAINER_{state} state")));
        }
        self.sandbox(&record.sandbox_id)?.shim()
    }

    async fn run_process(
        &self,
        container: &Arc<Container>,
        command: &[String],
        wanted: Wanted,
        options: &ExecOptions,
    ) -> CriResult<(Running, Pipes)> {
        let record = container.record.lock().clone();
        let shim = self.shim_of(&record)?;
        let sandbox = self.sandbox(&record.sandbox_id)?.record.lock().clone();
        let mut record = record;
        record.config.security.privileged |= options.privileged;
        let filter = self.seccomp_program(&record.config.security, record.options.seccomp.as_deref())?;
        let mut pipes = match wanted.tty {
            true => Pipes::default(),
            false => Pipes::new(wanted.stdin, wanted.stdout, wanted.stderr)?,
        };
        let mut process = ProcessSpec {
            terminal_size: wanted.size.map(|size| (size.width, size.height)),
            ..spec::exec(&record, &sandbox, command, wanted.tty, filter)?
        };
        options.apply(&mut process);
        let spec = ExecSpec {
            id: next_exec(),
            container: record.id.clone(),
            process,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        let id = spec.id.clone();
        let ended = shim.exits.expect(&id);
        let descriptors = std::mem::take(&mut pipes.for_process);
        match shim.call(Request::Exec(Box::new(spec)), descriptors).await {
            Ok((answer, controller)) => {
                let pid = started(answer).map_or(0, |started| started.pid);
                Ok((Running { shim, id, pid, controller, ended }, pipes))
            }
            Err(failure) => {
                shim.exits.forget(&id);
                Err(exec_failed(&id, failure))
            }
        }
    }
}

/// In the words that kubectl's users know from runc below containerd.
fn exec_failed(id: &str, failure: Failure) -> CriError {
    CriError::Internal(format!(
        "failed to exec in container: failed to start exec {id:?}: exec failed: unable to start container process: {}",
        failure.message
    ))
}

/// Unique among all engines that ever talked to a shim: a restart must not meet its predecessor's numbers.
fn next_exec() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", crate::ids::new_id().split_at(16).0, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn exit_of(ended: oneshot::Receiver<i32>) -> futures::future::BoxFuture<'static, CriResult<ExitOutcome>> {
    let gone = |_| CriError::Internal("the sandbox's shim is gone".to_owned());
    async move { ended.await.map(ExitOutcome::Code).map_err(gone) }.boxed()
}

/// Passes sizes on until the client goes or nobody takes them.
fn on_resize<F, R>(mut apply: F) -> mpsc::Sender<TerminalSize>
where
    F: FnMut(TerminalSize) -> R + Send + 'static,
    R: Future<Output = bool> + Send,
{
    let (sender, mut sizes) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            if !apply(size).await {
                return;
            }
        }
    });
    sender
}

async fn collect(running: Running, pipes: Pipes) -> CriResult<ExecSyncResponse> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = {
        let outputs = async { tokio::join!(keep(pipes.stdout, &mut stdout), keep(pipes.stderr, &mut stderr)) };
        tokio::pin!(outputs);
        let ended = running.ended;
        tokio::pin!(ended);
        let code = tokio::select! {
            code = &mut ended => {
                // Output that is still in the pipes counts; a process left behind must not hold up the answer.
                let _ = tokio::time::timeout(DRAIN, &mut outputs).await;
                code
            }
            _ = &mut outputs => ended.await,
        };
        code.map_err(|_| CriError::Internal("the sandbox's shim is gone".to_owned()))?
    };
    Ok(ExecSyncResponse { stdout, stderr, exit_code: code })
}

/// Reads to the end; what is more than the most is read and dropped, so that the process can go on.
async fn keep(reader: Option<ByteReader>, kept: &mut Vec<u8>) {
    let Some(mut reader) = reader else { return };
    // A broken pipe is an end like another.
    let _ = (&mut reader).take(MAX_OUTPUT).read_to_end(kept).await;
    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
}
