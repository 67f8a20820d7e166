//! New connections to services, one after the other, and what they take beside others.

use crate::load::open;
use crate::services::PORT;
use anyhow::{Context, Result};
use pintle_e2e::Host;
use pintle_e2e::figures::{microseconds, quantile};
use pintle_netlink::namespace;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The endpoints' network, all of whose addresses are the node's own.
const NETWORK: &str = "10.99.0.0/16";
const CONNECTIONS: usize = 2000;
/// How often those who are compared change places, so that a busy moment of the machine meets them all.
const TURNS: usize = 20;

/// All endpoints, and a client on their host.
pub struct Endpoints {
    pub space: File,
    listener: TcpListener,
}

impl Endpoints {
    /// Makes all endpoints' addresses those of the host itself.
    pub fn of(host: &Host) -> Result<Self> {
        host.run(&["ip", "route", "add", "local", NETWORK, "dev", "lo"])?.ok()?;
        let space = open(host)?;
        let listener = namespace::enter(space.as_fd(), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
        Ok(Self { space, listener })
    }

    /// How long each of many connections took, until the kernel said that it is there.
    pub fn connections(&self, to: SocketAddr) -> Result<Vec<Duration>> {
        self.several(to, CONNECTIONS)
    }

    fn several(&self, to: SocketAddr, count: usize) -> Result<Vec<Duration>> {
        let connect = || (0..count).map(|_| self.connection(to)).collect::<io::Result<_>>();
        namespace::enter(self.space.as_fd(), connect)?.with_context(|| format!("connect to {to}"))
    }

    /// The thread that makes a connection takes it as well: waking another one for it, on another processor perhaps,
    /// would take as long as all rules. It ends with a reset: ports that wait after a regular end make the next
    /// connection search for one, the longer the more there were before.
    fn connection(&self, to: SocketAddr) -> io::Result<Duration> {
        let begun = Instant::now();
        let made = TcpStream::connect(to)?;
        let took = begun.elapsed();
        drop(self.listener.accept()?);
        rustix::net::sockopt::set_socket_linger(&made, Some(Duration::ZERO))?;
        Ok(took)
    }
}

/// Connections to each of several, in turns.
pub fn in_turns<const N: usize>(sides: [(&Endpoints, SocketAddr); N]) -> Result<[Vec<Duration>; N]> {
    let mut all = [const { Vec::new() }; N];
    for _ in 0..TURNS {
        for ((endpoints, to), took) in sides.iter().zip(&mut all) {
            took.extend(endpoints.several(*to, CONNECTIONS / TURNS)?);
        }
    }
    Ok(all)
}

/// p50 and p99.
pub fn shown(took: &[Duration]) -> String {
    format!("{} {}", microseconds(quantile(took, 0.5)), microseconds(quantile(took, 0.99)))
}
