//! Live streams of a container: its stdio while attached or executing, and forwarded ports.

use crate::CriError;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub type ByteReader = Box<dyn AsyncRead + Send + Unpin>;
pub type ByteWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// A stream of bytes both ways.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}
pub type ByteStream = Box<dyn ReadWrite>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TerminalSize {
    #[serde(rename = "Width")]
    pub width: u16,
    #[serde(rename = "Height")]
    pub height: u16,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitOutcome {
    Code(i32),
    /// Attached output ended while the process may live on.
    Detached,
}

/// A process whose stdio a client holds. Dropping the streams closes them; dropping the session does not kill.
pub struct ExecSession {
    pub stdin: Option<ByteWriter>,
    pub stdout: Option<ByteReader>,
    /// Absent with a terminal: both outputs are one then.
    pub stderr: Option<ByteReader>,
    /// Sizes of the client's terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// Resolves when the process ends.
    pub exit: BoxFuture<'static, Result<ExitOutcome, CriError>>,
}
