//! The resolver of containers in user-defined networks: 127.0.0.11 within their own network namespace.
//!
//! Its sockets are opened inside the namespace and served by tasks of the daemon, so that questions that are passed on
//! leave from the host. A restarted daemon opens them anew. Names of neighbours come from whoever implements [`Names`].

mod message;
mod upstream;

use crate::error::Result;
use message::{Outcome, Transport};
use pintle_netlink::namespace;
use pintle_netlink::nft::Nftables;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::rules::{failed, lead_to_resolver};

/// Where containers ask.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The most questions of one container that are being answered; further ones are dropped.
const MAX_QUESTIONS: usize = 256;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
const MAX_DATAGRAM: usize = 4096;

/// What is known of a name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Addresses(Vec<IpAddr>),
    Name(String),
    /// Nobody here has it.
    Unknown,
}

/// Knows the neighbours of one container.
pub(super) trait Names: Send + Sync + 'static {
    /// The addresses of a name, of both families.
    fn addresses(&self, name: &str) -> Found;
    /// The name of an address.
    fn name(&self, address: IpAddr) -> Found;
    /// Servers that are asked for what is not known here; none when the container must not reach the outside.
    fn servers(&self) -> Vec<SocketAddr>;
}

/// A resolver that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Resolver(Vec<AbortHandle>);

impl Drop for Resolver {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Opens the sockets within the namespace and serves them. Must be called within a tokio runtime.
pub(super) fn open(netns: &File, names: Arc<dyn Names>) -> Result<Resolver> {
    let sockets = namespace::enter(netns.as_fd(), || {
        let udp = UdpSocket::bind((ADDRESS, 0))?;
        let tcp = TcpListener::bind((ADDRESS, 0))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        std::io::Result::Ok((udp, tcp))
    });
    let (udp, tcp) = sockets.map_err(failed)?.map_err(failed)?;
    let port = |address: std::io::Result<SocketAddr>| address.map(|a| a.port()).map_err(failed);
    let mut nft = Nftables::in_namespace(netns.as_fd()).map_err(failed)?;
    lead_to_resolver(&mut nft, ADDRESS.into(), port(udp.local_addr())?, port(tcp.local_addr())?)?;
    let udp = tokio::net::UdpSocket::from_std(udp).map_err(failed)?;
    let tcp = tokio::net::TcpListener::from_std(tcp).map_err(failed)?;
    let limit = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let datagrams = tokio::spawn(serve_datagrams(Arc::new(udp), Arc::clone(&names), Arc::clone(&limit)));
    let streams = tokio::spawn(serve_streams(tcp, names, limit));
    Ok(Resolver(vec![datagrams.abort_handle(), streams.abort_handle()]))
}

async fn serve_datagrams(socket: Arc<tokio::net::UdpSocket>, names: Arc<dyn Names>, limit: Arc<Semaphore>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // A client that has gone is told of by an error on the next call.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                tracing::debug!(%error, "a container's resolver ends");
                return;
            }
        };
        let question = &buffer[..length];
        match message::answer(question, Transport::Datagram, &*names) {
            Outcome::Ignored => {}
            Outcome::Reply(reply) => send(&socket, &reply, client).await,
            Outcome::Forward => {
                let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
                let (socket, question, servers) = (Arc::clone(&socket), question.to_vec(), names.servers());
                tokio::spawn(async move {
                    let reply = upstream::ask(&question, Transport::Datagram, &servers).await;
                    send(&socket, &reply, client).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &tokio::net::UdpSocket, reply: &[u8], client: SocketAddr) {
    // The client may have gone; it asks again if it has not.
    let _ = socket.send_to(reply, client).await;
}

async fn serve_streams(listener: tokio::net::TcpListener, names: Arc<dyn Names>, limit: Arc<Semaphore>) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
        let names = Arc::clone(&names);
        tokio::spawn(async move {
            if let Err(error) = serve_stream(stream, &names).await {
                tracing::debug!(%error, "a container's question broke off");
            }
            drop(permit);
        });
    }
}

async fn serve_stream(mut stream: tokio::net::TcpStream, names: &Arc<dyn Names>) -> std::io::Result<()> {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            std::io::Result::Ok(question)
        };
        let Ok(question) = tokio::time::timeout(IDLE, read).await else { return Ok(()) };
        let question = match question {
            Ok(question) => question,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let reply = match message::answer(&question, Transport::Stream, &**names) {
            Outcome::Ignored => return Ok(()),
            Outcome::Reply(reply) => reply,
            Outcome::Forward => upstream::ask(&question, Transport::Stream, &names.servers()).await,
        };
        let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
        stream.write_u16(length).await?;
        stream.write_all(&reply[..usize::from(length)]).await?;
    }
}
