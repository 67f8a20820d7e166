//! Connections to members of etcd, with the settings that etcd wants of gRPC clients.

use super::endpoints::Address;
use http::{HeaderName, HeaderValue};
use pintle_grpc::ChannelOptions;
pub(super) use pintle_grpc::{Answers, CallError, Channel, Messages};
use std::time::Duration;
use tokio::net::TcpStream;

/// The greatest message taken from a server: a page of the greatest objects.
const MAX_MESSAGE: usize = 256 << 20;
/// etcd refuses clients that ask more often than each five seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(5);

/// Connects to one member.
pub(super) async fn open(address: &Address) -> Result<Channel, CallError> {
    let failed = |why: &dyn std::fmt::Display| CallError::NotSent(format!("connecting to {address}: {why}"));
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|e| failed(&e))?;
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    let options = ChannelOptions {
        // A member without a leader ends watches rather than let them wait.
        headers: vec![(HeaderName::from_static("hasleader"), HeaderValue::from_static("true"))],
        keep_alive: Some((KEEP_ALIVE, KEEP_ALIVE_PATIENCE)),
        max_message: MAX_MESSAGE,
        ..ChannelOptions::new(address.to_string())
    };
    match &address.tls {
        None => Channel::over(stream, options).await,
        Some((config, name)) => {
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            let stream = connector.connect(name.clone(), stream).await.map_err(|e| failed(&e))?;
            Channel::over(stream, options).await
        }
    }
}
