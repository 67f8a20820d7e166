//! Asks the servers of the outside, from the host's network namespace.

use super::message::{self, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long one server may take, and how many are asked.
const PATIENCE: Duration = Duration::from_secs(4);
const MAX_SERVERS: usize = 3;
const MAX_DATAGRAM: usize = 4096;

/// The answer of the first server that has one, byte for byte; a failure when none has.
pub(super) async fn ask(question: &[u8], transport: Transport, servers: &[SocketAddr]) -> Vec<u8> {
    for server in servers.iter().take(MAX_SERVERS) {
        let asked = async {
            match transport {
                Transport::Datagram => by_datagram(question, *server).await,
                Transport::Stream => by_stream(question, *server).await,
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server does not answer"),
            Err(_) => tracing::debug!(%server, "a name server takes too long"),
        }
    }
    message::failure(question)
}

async fn by_datagram(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of its own for each question: an answer cannot be guessed by id alone.
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if message::answers(&buffer[..length], question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_stream(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(question).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if message::answers(&answer, question) { Ok(answer) } else { Err(std::io::Error::other("not the answer")) }
}
