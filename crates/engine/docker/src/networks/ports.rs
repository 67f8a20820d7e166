//! Published ports: what is asked for, which port of the host is free, and the sockets that keep it.
//!
//! The kernel leads packets to containers by address translation, also those from the host itself (`route_localnet`
//! on the bridges lets 127.0.0.1 lead there). The daemon listens on every published TCP and UDP port, so that no other
//! program takes it, and carries what the kernel cannot translate: what is sent to `[::1]`, and what comes over IPv6 for
//! containers that have only IPv4.

use super::datagrams::Carried;
use super::records::{Protocol, Publication};
use super::rules::failed;
use crate::error::{DockerError, Result};
use crate::model::PortBinding;
use pintle_netlink::namespace;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Ports that the kernel gives to programs that ask for none in particular (`ip_local_port_range`).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;
/// The most ports of one container.
const MAX_PORTS: usize = 4096;
const BACKLOG: i32 = 128;
/// The most connections through one port that the daemon itself carries.
const MAX_CARRIED: usize = 1024;

/// A port of a container that shall be reached through the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    pub protocol: Protocol,
    pub port: u16,
    /// Nothing for all addresses.
    pub host_address: Option<IpAddr>,
    /// First and last that will do; zeros for any.
    pub host_ports: (u16, u16),
}

/// `80/tcp`, `80`.
fn container_port(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(DockerError::invalid(format!("invalid proto: {protocol}"))),
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((port, protocol)),
        _ => Err(DockerError::invalid(format!("invalid port specification: \"{text}\""))),
    }
}

fn host_ports(text: &str) -> Result<(u16, u16)> {
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(DockerError::invalid(format!("invalid port specification: \"{text}\""))),
    }
}

/// What `-p`, `--expose` and `-P` say together.
///
/// # Errors
/// 400 with the text that is wrong.
pub fn requests<'a>(
    bindings: Option<&BTreeMap<String, Option<Vec<PortBinding>>>>,
    exposed: impl Iterator<Item = &'a String>,
    publish_all: bool,
) -> Result<Vec<PortRequest>> {
    let mut all = Vec::new();
    let mut bound = BTreeSet::new();
    for (text, wanted) in bindings.into_iter().flatten() {
        let (port, protocol) = container_port(text)?;
        bound.insert((port, protocol));
        for binding in wanted.iter().flatten() {
            let host_address = match binding.host_ip.as_str() {
                "" => None,
                text => {
                    let bad = |_| DockerError::invalid(format!("invalid IP address: {text}"));
                    Some(text.trim_matches(['[', ']']).parse::<IpAddr>().map_err(bad)?)
                }
            };
            all.push(PortRequest { protocol, port, host_address, host_ports: host_ports(&binding.host_port)? });
        }
    }
    for text in exposed.filter(|_| publish_all) {
        let (port, protocol) = container_port(text)?;
        if bound.insert((port, protocol)) {
            all.push(PortRequest { protocol, port, host_address: None, host_ports: (0, 0) });
        }
    }
    if all.len() > MAX_PORTS {
        return Err(DockerError::invalid(format!("more than {MAX_PORTS} published ports")));
    }
    Ok(all)
}

/// Where ports lead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
    /// What `0.0.0.0` means in this network.
    pub binding: Option<IpAddr>,
}

/// A port that is ours while this lives.
#[derive(Debug)]
pub(super) struct Held {
    socket: Option<OwnedFd>,
    publication: Publication,
}

/// Finds free ports for all requests and holds them.
///
/// # Errors
/// When a port is taken, in Docker's words.
pub(super) fn hold(
    host: &File,
    requests: &[PortRequest],
    targets: Targets,
    others: &[Publication],
) -> Result<Vec<Held>> {
    let mut all: Vec<Held> = Vec::new();
    for request in requests {
        let sides = sides(request, targets);
        if sides.is_empty() {
            continue;
        }
        let held = hold_one(host, request, &sides, |protocol, address, port| {
            others.iter().chain(all.iter().map(|h| &h.publication)).any(|p| p.collides(protocol, address, port))
        })?;
        all.extend(held);
    }
    Ok(all)
}

/// Addresses of the host with the container's address that they lead to.
fn sides(request: &PortRequest, targets: Targets) -> Vec<(IpAddr, IpAddr)> {
    let any_v4 = targets.binding.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let any_v6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let v6_target =
        targets.v6.or(targets.v4.filter(|_| request.protocol == Protocol::Tcp || request.protocol == Protocol::Udp));
    let pair = |address: IpAddr| {
        let target = if address.is_ipv4() { targets.v4 } else { v6_target };
        target.map(|target| (address, target))
    };
    match request.host_address {
        Some(address) => pair(address).into_iter().collect(),
        None if targets.binding.is_some_and(|b| !b.is_unspecified()) => pair(any_v4).into_iter().collect(),
        None => pair(any_v4).into_iter().chain(pair(any_v6)).collect(),
    }
}

fn hold_one(
    host: &File,
    request: &PortRequest,
    sides: &[(IpAddr, IpAddr)],
    taken: impl Fn(Protocol, IpAddr, u16) -> bool,
) -> Result<Vec<Held>> {
    let any = request.host_ports == (0, 0);
    let candidates: Vec<u16> =
        if any { random_ports() } else { (request.host_ports.0..=request.host_ports.1).collect() };
    let mut refusal = None;
    for port in candidates {
        if let Some((address, _)) = sides.iter().find(|(address, _)| taken(request.protocol, *address, port)) {
            refusal = refusal
                .or(Some(format!("Bind for {} failed: port is already allocated", SocketAddr::new(*address, port))));
            continue;
        }
        match bind_all(host, request, sides, port) {
            Ok(held) => return Ok(held),
            Err((address, error)) => {
                let words = if error.kind() == io::ErrorKind::AddrInUse {
                    "address already in use".to_owned()
                } else {
                    rustix::io::Errno::from_io_error(&error).map_or_else(|| error.to_string(), words_of)
                };
                let name = request.protocol.name();
                refusal = refusal
                    .or(Some(format!("failed to bind host port {}/{name}: {words}", SocketAddr::new(address, port))));
            }
        }
    }
    let message = if any { "all ports are allocated".to_owned() } else { refusal.unwrap_or_default() };
    Err(DockerError::internal(message))
}

fn words_of(errno: rustix::io::Errno) -> String {
    match errno {
        rustix::io::Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
        rustix::io::Errno::ACCESS => "permission denied".to_owned(),
        other => other.to_string(),
    }
}

/// Every port that may be had, from a random one on.
fn random_ports() -> Vec<u16> {
    let (first, last) = (*EPHEMERAL.start(), *EPHEMERAL.end());
    let start = rand::random_range(first..=last);
    (start..=last).chain(first..start).collect()
}

type Refused = (IpAddr, io::Error);

fn bind_all(
    host: &File,
    request: &PortRequest,
    sides: &[(IpAddr, IpAddr)],
    port: u16,
) -> std::result::Result<Vec<Held>, Refused> {
    let mut held = Vec::new();
    for (address, target) in sides {
        let publication = Publication {
            protocol: request.protocol,
            host_address: *address,
            host_port: port,
            target: *target,
            port: request.port,
        };
        match bind(host, &publication) {
            Ok(socket) => held.push(Held { socket, publication }),
            // A kernel without IPv6 publishes for IPv4 alone.
            Err(e)
                if address.is_ipv6()
                    && request.host_address.is_none()
                    && e.raw_os_error() != Some(libc::EADDRINUSE) => {}
            Err(error) => return Err((*address, error)),
        }
    }
    Ok(held)
}

/// Binds the port in the host's namespace; of SCTP only the table of the kernel knows.
fn bind(host: &File, publication: &Publication) -> io::Result<Option<OwnedFd>> {
    let address = SocketAddr::new(publication.host_address, publication.host_port);
    let kind = match publication.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return Ok(None),
    };
    let entered = namespace::enter(host.as_fd(), || -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        if address.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if kind == SocketType::STREAM {
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        if kind == SocketType::STREAM {
            rustix::net::listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    });
    entered.map_err(io::Error::other)?.map(Some)
}

/// Sockets and tasks of a container's ports; they end with it.
#[derive(Debug, Default)]
pub(super) struct Serving {
    _udp: Vec<UdpSocket>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Serves what is held. Must be called within a tokio runtime.
pub(super) fn serve(held: Vec<Held>) -> Result<(Vec<Publication>, Serving)> {
    let (mut publications, mut serving) = (Vec::new(), Serving::default());
    for Held { socket, publication } in held {
        match (socket, publication.protocol) {
            (Some(socket), Protocol::Tcp) => {
                let listener = tokio::net::TcpListener::from_std(TcpListener::from(socket)).map_err(failed)?;
                let target = SocketAddr::new(publication.target, publication.port);
                serving.tasks.push(tokio::spawn(carry_all(listener, target)).abort_handle());
            }
            (Some(socket), _) if publication.is_v6() => {
                let target = SocketAddr::new(publication.target, publication.port);
                let carried = Carried::new(socket, target).map_err(failed)?;
                serving.tasks.push(tokio::spawn(carried.carry()).abort_handle());
            }
            // The kernel translates all of IPv4: nothing ever reaches the socket.
            (Some(socket), _) => serving._udp.push(UdpSocket::from(socket)),
            (None, _) => {}
        }
        publications.push(publication);
    }
    Ok((publications, serving))
}

/// Holds again what a container had before the daemon was restarted; what somebody else has taken meanwhile is told.
pub(super) fn hold_again(host: &File, publications: &[Publication]) -> Vec<Held> {
    let each = publications.iter().map(|publication| {
        let socket = bind(host, publication).unwrap_or_else(|error| {
            tracing::warn!(port = publication.host_port, %error, "a published port is not held");
            None
        });
        Held { socket, publication: publication.clone() }
    });
    each.collect()
}

async fn carry_all(listener: tokio::net::TcpListener, target: SocketAddr) {
    let limit = Arc::new(Semaphore::new(MAX_CARRIED));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let mut client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%target, %error, "a published port is no longer carried");
                return;
            }
        };
        tokio::spawn(async move {
            if let Ok(mut server) = tokio::net::TcpStream::connect(target).await {
                // Either side may break off at any time; the other learns of it.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_put_together() {
        let binding = |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
        let bindings = BTreeMap::from([
            ("80/tcp".to_owned(), Some(vec![binding("", "8000-8010"), binding("127.0.0.1", "")])),
            ("53/udp".to_owned(), Some(vec![binding("::1", "53")])),
        ]);
        let exposed = ["80/tcp".to_owned(), "99".to_owned()];
        let all = requests(Some(&bindings), exposed.iter(), true).unwrap();
        let shown: Vec<(u16, (u16, u16))> = all.iter().map(|r| (r.port, r.host_ports)).collect();
        assert_eq!(shown, [(53, (53, 53)), (80, (8000, 8010)), (80, (0, 0)), (99, (0, 0))]);
        assert_eq!(requests(None, exposed.iter(), false).unwrap(), []);
        for (port, ip, host) in
            [("0/tcp", "", ""), ("1/x", "", ""), ("1", "q", ""), ("1", "", "9-8"), ("1", "", "70000")]
        {
            let bindings = BTreeMap::from([(port.to_owned(), Some(vec![binding(ip, host)]))]);
            assert_eq!(requests(Some(&bindings), [].iter(), false).unwrap_err().status, 400, "{port} {ip} {host}");
        }
    }

    #[test]
    fn all_addresses_are_those_of_both_families() {
        let request = PortRequest { protocol: Protocol::Tcp, port: 80, host_address: None, host_ports: (0, 0) };
        let v4: IpAddr = "172.17.0.2".parse().unwrap();
        let targets = Targets { v4: Some(v4), v6: None, binding: None };
        let shown = |t| sides(&request, t).iter().map(|(a, _)| a.to_string()).collect::<Vec<_>>();
        assert_eq!(shown(targets), ["0.0.0.0", "::"]);
        assert_eq!(shown(Targets { binding: "127.0.0.1".parse().ok(), ..targets }), ["127.0.0.1"]);
        assert_eq!(shown(Targets { v4: None, ..targets }), [""; 0]);
    }
}
