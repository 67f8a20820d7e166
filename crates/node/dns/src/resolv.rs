//! Which servers know the names that are not the cluster's.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// As many as the C library reads.
const MAX_SERVERS: usize = 3;
const MAX_FILE_BYTES: u64 = 64 << 10;
const PORT: u16 = 53;

/// The servers that are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// The `nameserver` lines of a file such as `/etc/resolv.conf`, read again when it changes.
    File(PathBuf),
    /// Always these; none is allowed, and then only the cluster's names are known.
    Fixed(Vec<SocketAddr>),
}

/// The servers now.
#[derive(Debug)]
pub(crate) struct Servers {
    source: Upstreams,
    /// Ourselves: a file that names us would make a circle.
    own: Vec<SocketAddr>,
    read: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
}

impl Servers {
    pub(crate) fn new(source: Upstreams, own: Vec<SocketAddr>) -> Self {
        Self { source, own, read: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Vec<SocketAddr> {
        let path = match &self.source {
            Upstreams::Fixed(servers) => return self.without_own(servers.clone()),
            Upstreams::File(path) => path,
        };
        // The look at the time of change costs a microsecond; machines move between networks.
        let Ok(metadata) = fs::metadata(path) else { return Vec::new() };
        let changed = metadata.modified().ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.0 != changed || changed.is_none() {
            let text = if metadata.len() <= MAX_FILE_BYTES { fs::read_to_string(path) } else { Ok(String::new()) };
            *read = (changed, self.without_own(parse(&text.unwrap_or_default())));
        }
        read.1.clone()
    }

    pub(crate) fn without_own(&self, mut servers: Vec<SocketAddr>) -> Vec<SocketAddr> {
        servers.retain(|server| !self.own.contains(server));
        servers
    }
}

/// The `nameserver` lines; a zone such as `%eth0` behind an address is not understood and leaves the line out.
fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
        })
        .map(|address| SocketAddr::new(address, PORT))
        .take(MAX_SERVERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_server_lines_are_read() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 192.0.2.1\nnameserver  2001:db8::1\nnameserver x\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
    }

    #[test]
    fn we_are_not_our_own_upstream() {
        let own: SocketAddr = "127.0.0.1:53".parse().expect("address");
        let other: SocketAddr = "127.0.0.2:53".parse().expect("address");
        let servers = Servers::new(Upstreams::Fixed(vec![own, other]), vec![own]);
        assert_eq!(servers.now(), [other]);
        assert_eq!(Servers::new(Upstreams::File("/nowhere".into()), vec![]).now(), []);
    }

    #[test]
    fn broken_files_name_few_servers() {
        pintle_noise::feed_text(&["search a b\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n"], 500, |text| {
            assert!(parse(text).len() <= 3);
        });
    }
}
