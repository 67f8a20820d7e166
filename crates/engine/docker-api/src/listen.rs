//! Where clients come in: the unix socket, and TCP addresses, where both sides show certificates.

use crate::{State, route};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

/// How long a client may take for a handshake, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Between attempts to accept when the process has no descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Connections over TCP at a time.
const MAX_REMOTE: usize = 1024;
/// The port of addresses that name none, as docker's own.
const TLS_PORT: u16 = 2376;

/// An address that is served with mutual TLS.
#[derive(Clone)]
pub struct Remote {
    /// `tcp://ADDRESS[:PORT]`
    pub host: String,
    /// Must ask clients for certificates.
    pub tls: Arc<ServerConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on the socket {path}: {source}")]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {host:?}: {why}")]
    Remote { host: String, why: String },
}

/// Opens the socket, mode 0660. A socket that a dead server left behind is replaced; a live one is an error.
pub(crate) fn local(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"));
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Listens on a TCP address.
pub(crate) fn remote(remote: Remote) -> Result<(TcpListener, TlsAcceptor), BindError> {
    let failed = |why: String| BindError::Remote { host: remote.host.clone(), why };
    let address = address(&remote.host).map_err(failed)?;
    let open = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let listener = open().map_err(|e| failed(e.to_string()))?;
    Ok((listener, TlsAcceptor::from(remote.tls)))
}

fn address(host: &str) -> Result<SocketAddr, String> {
    let rest = host.strip_prefix("tcp://").ok_or("it is no address of the form tcp://ADDRESS:PORT")?;
    let rest = rest.trim_end_matches('/');
    let named = rest.parse().or_else(|_| format!("{rest}:{TLS_PORT}").parse());
    named.map_err(|_| "write it as tcp://IP:PORT, such as tcp://0.0.0.0:2376".to_owned())
}

/// Answers on the unix socket until `stop`.
pub(crate) async fn serve_local(listener: UnixListener, state: Arc<State>, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&state), stop.clone()))),
            Err(error) => {
                tracing::warn!(%error, "the Docker socket refused a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Answers clients that show a certificate, until `stop`.
pub(crate) async fn serve_remote(
    (listener, acceptor): (TcpListener, TlsAcceptor),
    state: Arc<State>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_REMOTE));
    let accept = async {
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = greeted(stream, acceptor.clone(), Arc::clone(&state), stop.clone());
                    tokio::spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the Docker API cannot be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn greeted(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>, stop: CancellationToken) {
    match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, state, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a client of the Docker API is refused"),
        Err(_) => tracing::debug!("a client of the Docker API did not finish its handshake"),
    }
}

async fn connection<S>(stream: S, state: Arc<State>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| route::answer(Arc::clone(&state), request));
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
        tracing::debug!(%error, "a Docker client's connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_dockerd() {
        let good = [
            ("tcp://0.0.0.0:2376", "0.0.0.0:2376"),
            ("tcp://127.0.0.1", "127.0.0.1:2376"),
            ("tcp://[::1]:1/", "[::1]:1"),
        ];
        for (host, expected) in good {
            assert_eq!(address(host).unwrap().to_string(), expected);
        }
        for bad in ["", "unix:///x", "tcp://", "tcp://name:2376", "http://1.2.3.4:5", "tcp://1.2.3.4:99999"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
