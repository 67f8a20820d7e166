//! Calls to a server on a unix socket: connects when the first call needs it, and again when the server was away.

use crate::Message;
use crate::client::{CallError, Channel, ChannelOptions, Stream};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// A server on a unix socket. Nothing is kept open before the first call.
pub struct SocketClient {
    path: PathBuf,
    max_message: usize,
    channel: Mutex<Option<Channel>>,
}

impl SocketClient {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_message: crate::MAX_MESSAGE, channel: Mutex::new(None) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The connection; a new one when the last has ended.
    ///
    /// # Errors
    /// `NotSent` when nobody listens on the socket.
    pub async fn channel(&self) -> Result<Channel, CallError> {
        let open = self.channel.lock().clone();
        if let Some(open) = open.filter(|open| !open.is_closed()) {
            return Ok(open);
        }
        let shown = self.path.display();
        let stream = UnixStream::connect(&self.path).await.map_err(|error| {
            let words = error.to_string();
            let words = words.split(" (os error").next().unwrap_or_default().to_lowercase();
            CallError::NotSent(format!(
                "connection error: desc = \"transport: Error while dialing: dial unix {shown}: connect: {words}\""
            ))
        })?;
        let options = ChannelOptions { max_message: self.max_message, ..ChannelOptions::new("http://localhost") };
        let channel = Channel::over(stream, options).await?;
        *self.channel.lock() = Some(channel.clone());
        Ok(channel)
    }

    /// Calls a method that answers once.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call<Q: Message, A: Message>(
        &self,
        method: &str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<A, CallError> {
        self.channel().await?.call(method, request, timeout).await
    }

    /// Calls a method that answers many times.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn stream<Q: Message, A: Message>(&self, method: &str, request: &Q) -> Result<Stream<A>, CallError> {
        self.channel().await?.stream(method, request).await
    }
}
