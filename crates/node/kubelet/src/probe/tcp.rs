//! Connections as probes and hooks make them, with errors in the words that Go has for them.

use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;

/// `host:port`, with brackets around IPv6.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects, or says why not.
pub async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let to = authority(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Err(_) => Err(format!("dial tcp {to}: i/o timeout")),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {to}: {}", in_words(&error))),
    }
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        ErrorKind::HostUnreachable => "connect: no route to host".into(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        ErrorKind::ConnectionReset => "connect: connection reset by peer".into(),
        _ => error.to_string(),
    }
}

/// The text for a request whose time is over.
pub fn timed_out(what: &str) -> String {
    format!("{what}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
}
