//! Connects to ports inside a sandbox.

use crate::engine::Engine;
use crate::error::internal;
use crate::records::SandboxPhase;
use crate::sandboxes::has_network;
use pintle_cri::{ByteStream, CriError, CriResult};
use pintle_linux::{Context, netns};
use std::net::TcpStream;

impl Engine {
    pub(crate) async fn connect_to_port(&self, sandbox_id: &str, port: u16) -> CriResult<ByteStream> {
        let sandbox = self.sandbox(sandbox_id)?;
        let (ready, inside) = {
            let record = sandbox.record.lock();
            (record.phase == SandboxPhase::Ready, has_network(&record.config))
        };
        if !ready {
            return Err(CriError::FailedPrecondition(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        let path = inside.then(|| self.run_path("netns", &sandbox.id));
        let connected = tokio::task::spawn_blocking(move || match path {
            Some(path) => netns::within(&path, || connect(port)),
            None => connect(port),
        });
        let stream = connected.await.map_err(|e| internal("connect", e))?.map_err(|e| {
            let words = e.source.to_string();
            let words = words.split(" (os error").next().unwrap_or_default().to_lowercase();
            CriError::Internal(format!(
                "failed to connect to localhost:{port} inside namespace {:?}, IPv4: dial tcp4 127.0.0.1:{port}: connect: {words}",
                sandbox.id
            ))
        })?;
        let stream = tokio::net::TcpStream::from_std(stream).map_err(|e| internal("watch a connection", e))?;
        Ok(Box::new(stream))
    }
}

/// On loopback, where nobody makes a connection wait: it is taken or refused at once.
fn connect(port: u16) -> pintle_linux::Result<TcpStream> {
    let what = || format!("connect to port {port}");
    let stream = match TcpStream::connect(("127.0.0.1", port)) {
        Ok(stream) => stream,
        Err(first) => TcpStream::connect(("::1", port)).map_err(|_| first).context(what)?,
    };
    stream.set_nonblocking(true).context(what)?;
    stream.set_nodelay(true).context(what)?;
    Ok(stream)
}
