//! Tells an attachment that came too late from one to a container that has nothing to say.
//!
//! Over a socket a client is given what is said from its attachment on, and nothing before. A container that lives for
//! some milliseconds, as that of `kubectl run -i … -- echo`, has said all when a client hears that it runs; upstream's
//! kubelet, which looks once a second, never tells of its running. Such an attachment fails in upstream's words: the
//! client reads the log then.

use super::container;
use crate::convert::failure;
use crate::messages as m;
use futures::FutureExt;
use pintle_cri::{ByteReader, ContainerState, ContainerStatus, CriError, CriResult, ExecSession};
use pintle_grpc::SocketClient;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// A container of a shorter life is not seen running by those who look as upstream's kubelet does.
const UNSEEN_NANOS: i64 = 1_000_000_000;
/// How often the end of a container is looked for whose streams have ended, and the time between two looks.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// The session, whose end asks `silent` when nothing was said until then.
pub(super) fn watched(
    session: ExecSession,
    silent: impl Future<Output = CriResult<()>> + Send + 'static,
) -> ExecSession {
    let (open, mut closed) = mpsc::channel(1);
    let said = Arc::new(AtomicBool::new(false));
    let listen = |inner: ByteReader| -> ByteReader {
        Box::new(Listened { inner, said: Arc::clone(&said), _open: open.clone() })
    };
    let (stdout, stderr) = (session.stdout.map(listen), session.stderr.map(listen));
    drop(open);
    let exit = async move {
        let outcome = session.exit.await?;
        // All that was said has been read when nobody reads any more.
        closed.recv().await;
        if !said.load(Ordering::Relaxed) {
            silent.await?;
        }
        Ok(outcome)
    };
    ExecSession { stdout, stderr, exit: exit.boxed(), ..session }
}

/// Fails for a container that had ended before anybody could attach, and whose log has words.
pub(super) async fn not_too_late(socket: Arc<SocketClient>, id: String) -> CriResult<()> {
    for _ in 0..LOOKS {
        let Some(status) = status(&socket, &id).await? else { return Ok(()) };
        if status.state == ContainerState::Running {
            // The streams end a moment before the runtime notes that the container has.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let has_words = || std::fs::metadata(&status.log_path).is_ok_and(|log| log.len() > 0);
        let unseen = status.finished_at.saturating_sub(status.started_at) < UNSEEN_NANOS;
        if status.state == ContainerState::Exited && unseen && has_words() {
            return Err(CriError::FailedPrecondition("container is in CONTAINER_EXITED state".to_owned()));
        }
        return Ok(());
    }
    Ok(())
}

/// Nothing when the container is gone.
async fn status(socket: &SocketClient, id: &str) -> CriResult<Option<ContainerStatus>> {
    let asked = m::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let method = "/runtime.v1.RuntimeService/ContainerStatus";
    let told: Result<m::ContainerStatusResponse, _> = socket.call(method, &asked, Some(super::TIMEOUT)).await;
    let Some(status) = told.ok().and_then(|told| told.status) else { return Ok(None) };
    ContainerStatus::try_from(status).map(Some).map_err(|status| failure(status, container(id)))
}

/// An output that notes whether anything came.
struct Listened {
    inner: ByteReader,
    said: Arc<AtomicBool>,
    _open: mpsc::Sender<()>,
}

impl AsyncRead for Listened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.said.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_cri::ExitOutcome;
    use tokio::io::AsyncReadExt;

    /// How an attachment ends in which this is said, when silence is a failure.
    async fn ended(words: &'static [u8]) -> Result<ExitOutcome, CriError> {
        let session = ExecSession {
            stdin: None,
            stdout: Some(Box::new(words)),
            stderr: Some(Box::new(tokio::io::empty())),
            resize: mpsc::channel(1).0,
            exit: async { Ok(ExitOutcome::Code(0)) }.boxed(),
        };
        let mut session = watched(session, async { Err(CriError::Internal("late".to_owned())) });
        let (mut stdout, stderr) = (session.stdout.take().unwrap(), session.stderr.take());
        let reading = async move {
            let mut read = Vec::new();
            stdout.read_to_end(&mut read).await.unwrap();
            drop(stderr);
            assert_eq!(read, words);
        };
        // The end is asked for first, and waits for the reading.
        tokio::join!(session.exit, reading).0
    }

    #[tokio::test]
    async fn only_a_silent_attachment_is_looked_into() {
        assert_eq!(ended(b"words").await, Ok(ExitOutcome::Code(0)));
        assert_eq!(ended(b"").await, Err(CriError::Internal("late".to_owned())));
    }
}
