//! Carries datagrams of published ports that the kernel cannot translate: those to `[::1]`, and those of IPv6 to
//! containers that have only IPv4.
//!
//! Each client gets a socket of its own towards the container, by which answers find their way back. It ends when the
//! container has said nothing for a while.

use pintle_linux::datagram::{self, Own};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// The most clients of one port at the same time; datagrams of further ones are dropped.
const MAX_CLIENTS: usize = 1024;
/// How long a container may say nothing to a client before the client is forgotten, as with Docker.
const SILENCE: Duration = Duration::from_secs(90);
/// The longest datagram that IPv6 carries without jumbograms.
const LONGEST: usize = 65_535;

/// Who asks, and which of the machine's addresses.
type Client = (SocketAddrV6, Option<Own>);

/// A published port of IPv6. Carries until it is dropped.
pub(super) struct Carried {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    clients: HashMap<Client, Arc<UdpSocket>>,
    answering: JoinSet<Client>,
}

impl Carried {
    /// Takes a bound socket of IPv6 that does not block. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub(super) fn new(socket: OwnedFd, target: SocketAddr) -> io::Result<Self> {
        datagram::tell_destinations(socket.as_fd())?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        Ok(Self { socket, target, clients: HashMap::new(), answering: JoinSet::new() })
    }

    /// Carries both ways, and never ends by itself.
    pub(super) async fn carry(mut self) {
        let mut buffer = vec![0; LONGEST];
        loop {
            let socket = Arc::clone(&self.socket);
            let receive = socket.async_io(Interest::READABLE, || datagram::receive(&*socket, &mut buffer));
            let received = tokio::select! {
                Some(ended) = self.answering.join_next() => {
                    if let Ok(client) = ended {
                        self.clients.remove(&client);
                    }
                    continue;
                }
                received = receive => received,
            };
            // An error is about a datagram that was sent before, such as that its client has gone.
            let Ok(received) = received else { continue };
            if let Some(way) = self.way_of((received.from, received.to)).await {
                let datagram = &buffer[..received.length];
                // A first error is about an earlier datagram that nobody took. What fails again is lost, as
                // datagrams are.
                if way.send(datagram).await.is_err() {
                    let _ = way.send(datagram).await;
                }
            }
        }
    }

    /// The socket of a client towards the container.
    async fn way_of(&mut self, client: Client) -> Option<Arc<UdpSocket>> {
        if let Some(way) = self.clients.get(&client) {
            return Some(Arc::clone(way));
        }
        if self.clients.len() >= MAX_CLIENTS {
            return None;
        }
        let any: IpAddr =
            if self.target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let way = UdpSocket::bind((any, 0)).await.ok()?;
        way.connect(self.target).await.ok()?;
        let way = Arc::new(way);
        self.clients.insert(client, Arc::clone(&way));
        self.answering.spawn(answer(Arc::clone(&self.socket), way.clone(), client));
        Some(way)
    }
}

/// Passes on what the container says to a client, until it has been silent for long.
async fn answer(socket: Arc<UdpSocket>, way: Arc<UdpSocket>, client: Client) -> Client {
    let (to, own) = client;
    while let Ok(Ok(said)) = tokio::time::timeout(SILENCE, next(&way)).await {
        // The client may have gone.
        let _ = socket.async_io(Interest::WRITABLE, || datagram::send(&*socket, &said, to, own)).await;
    }
    client
}

/// What the container says next. Room for it is only there while it is passed on: most clients are silent ones.
async fn next(way: &UdpSocket) -> io::Result<Vec<u8>> {
    loop {
        way.readable().await?;
        let mut said = Vec::with_capacity(LONGEST);
        match way.try_recv_buf(&mut said) {
            Ok(_) => return Ok(said),
            // Nobody listens in the container at this moment: that may change.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_reach_a_server_and_answers_their_clients() {
        // A kernel without IPv6 has nothing to carry.
        let Ok(published) = std::net::UdpSocket::bind("[::1]:0") else { return };
        published.set_nonblocking(true).unwrap();
        let address = published.local_addr().unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let carried = Carried::new(published.into(), server.local_addr().unwrap()).unwrap();
        let carrying = tokio::spawn(carried.carry());
        let mut clients = Vec::new();
        for word in [&b"one"[..], b"two"] {
            let client = UdpSocket::bind("[::1]:0").await.unwrap();
            client.connect(address).await.unwrap();
            client.send(word).await.unwrap();
            clients.push(client);
        }
        let mut buffer = [0; 64];
        for _ in &clients {
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(&[b"told ", &buffer[..length]].concat(), from).await.unwrap();
        }
        for (client, word) in clients.iter().zip([b"told one", b"told two"]) {
            let length = client.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], word);
        }
        carrying.abort();
    }
}
