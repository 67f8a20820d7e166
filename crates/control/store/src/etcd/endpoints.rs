//! The members of the cluster: calls go to one after the other, round and round, and around those that do not answer.

use super::grpc::{self, CallError, Channel};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A read that has no answer by then is asked of another member.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// etcd itself gives up after about seven seconds.
const WRITE_TIMEOUT: Duration = Duration::from_secs(8);
/// Between rounds over all members, and between looks at one that failed.
const PAUSE: Duration = Duration::from_millis(200);
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// gRPC's code of what may be there again in a moment.
const UNAVAILABLE: u32 = 14;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint {endpoint:?} is not understood: {why}")]
pub struct BadEndpoint {
    endpoint: String,
    why: &'static str,
}

/// Where a member listens.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

impl Address {
    pub(super) fn parse(endpoint: &str, tls: Option<&Arc<rustls::ClientConfig>>) -> Result<Self, BadEndpoint> {
        let bad = |why| BadEndpoint { endpoint: endpoint.to_owned(), why };
        let uri: http::Uri = endpoint.parse().map_err(|_| bad("it is no URL such as https://10.0.0.1:2379"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("it has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(2379);
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let config = tls.ok_or_else(|| bad("https needs the file of an authority to trust"))?;
                let name = ServerName::try_from(host.clone()).map_err(|_| bad("certificates cannot have this name"))?;
                Some((config.clone(), name))
            }
            _ => return Err(bad("it begins neither with http:// nor with https://")),
        };
        Ok(Self { host, port, tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        if self.host.contains(':') {
            return write!(f, "{scheme}://[{}]:{}", self.host, self.port);
        }
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Whether a call that may have been done can be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

struct Member {
    address: Address,
    connection: Mutex<Option<Channel>>,
    failed: AtomicBool,
}

impl Member {
    async fn connect(&self) -> Result<Channel, CallError> {
        let late = |_| CallError::NotSent(format!("connecting to {}: no answer", self.address));
        timeout(CONNECT_TIMEOUT, grpc::open(&self.address)).await.map_err(late)?
    }

    async fn shared(&self) -> Result<Channel, CallError> {
        let open = self.connection.lock().clone();
        if let Some(open) = open.filter(|open| !open.is_closed()) {
            return Ok(open);
        }
        let new = self.connect().await?;
        *self.connection.lock() = Some(new.clone());
        Ok(new)
    }

    async fn call(&self, method: &str, message: &[u8], time: Duration) -> Result<bytes::Bytes, CallError> {
        let connection = self.shared().await?;
        let late = |_| CallError::Broken(format!("{} did not answer within {} s", self.address, time.as_secs()));
        timeout(time, connection.call_bytes(method, message, None)).await.map_err(late)?
    }
}

/// All members.
pub(super) struct Endpoints {
    members: Vec<Arc<Member>>,
    next: AtomicUsize,
    patience: Duration,
}

impl Endpoints {
    pub(super) fn new(addresses: Vec<Address>, patience: Duration) -> Self {
        let member = |address| Member { address, connection: Mutex::default(), failed: AtomicBool::new(false) };
        let members = addresses.into_iter().map(|address| Arc::new(member(address))).collect();
        Self { members, next: AtomicUsize::new(0), patience }
    }

    /// All members, beginning with another one each time, those that failed at the end.
    fn in_turn(&self) -> Vec<Arc<Member>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut members: Vec<_> = (0..self.members.len())
            .map(|i| self.members[(first.wrapping_add(i)) % self.members.len()].clone())
            .collect();
        members.sort_by_key(|member| member.failed.load(Ordering::Relaxed));
        members
    }

    /// Calls a method of some member; what may be tried again is tried again.
    pub(super) async fn call(&self, kind: Kind, method: &str, message: &[u8]) -> Result<bytes::Bytes, CallError> {
        let time = if kind == Kind::Read { READ_TIMEOUT } else { WRITE_TIMEOUT };
        let started = tokio::time::Instant::now();
        loop {
            let mut last = CallError::NotSent("no endpoints are given".into());
            for member in self.in_turn() {
                match member.call(method, message, time).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        let failed = matches!(error, CallError::NotSent(_) | CallError::Broken(_));
                        if failed {
                            set_aside(&member, &error);
                        }
                        if !may_repeat(kind, &error) {
                            return Err(error);
                        }
                        last = error;
                    }
                }
            }
            if started.elapsed() > self.patience || self.members.is_empty() {
                return Err(last);
            }
            sleep(PAUSE).await;
        }
    }

    /// A connection of its own to some member, another one each time.
    pub(super) async fn connect(&self) -> Result<Channel, CallError> {
        let mut last = CallError::NotSent("no endpoints are given".into());
        for member in self.in_turn() {
            match member.connect().await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    set_aside(&member, &error);
                    last = error;
                }
            }
        }
        Err(last)
    }
}

/// Whether a call may be made once more. A write only when it did not begin: etcd cannot tell whether it is the same.
fn may_repeat(kind: Kind, error: &CallError) -> bool {
    match error {
        CallError::NotSent(_) => true,
        CallError::Broken(_) => kind == Kind::Read,
        CallError::Status { code, .. } => kind == Kind::Read && *code == UNAVAILABLE,
    }
}

/// Passes a member over from now on, until it answers a question about itself.
fn set_aside(member: &Arc<Member>, error: &CallError) {
    *member.connection.lock() = None;
    if !member.failed.swap(true, Ordering::Relaxed) {
        tracing::warn!(member = %member.address, %error, "a member of etcd does not answer");
        tokio::spawn(probe(Arc::downgrade(member)));
    }
}

async fn probe(member: Weak<Member>) {
    loop {
        sleep(PROBE_PAUSE).await;
        let Some(member) = member.upgrade() else { return };
        if member.call(super::STATUS, &[], CONNECT_TIMEOUT).await.is_ok() {
            tracing::info!(member = %member.address, "the member of etcd answers again");
            member.failed.store(false, Ordering::Relaxed);
            return;
        }
        *member.connection.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        for (text, shown) in [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
            ("http://etcd", "http://etcd:2379"),
            ("http://[::1]:1", "http://[::1]:1"),
        ] {
            assert_eq!(Address::parse(text, None).unwrap().to_string(), shown);
        }
        for text in ["10.0.0.1:2379", "https://10.0.0.1:2379", "ftp://x", ""] {
            assert!(Address::parse(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_are_repeated_only_when_they_did_not_begin() {
        let (unsent, broken) = (CallError::NotSent(String::new()), CallError::Broken(String::new()));
        let status = |code| CallError::Status { code, message: String::new() };
        for (kind, error, expected) in [
            (Kind::Read, &broken, true),
            (Kind::Write, &broken, false),
            (Kind::Write, &unsent, true),
            (Kind::Read, &status(14), true),
            (Kind::Write, &status(14), false),
            (Kind::Read, &status(11), false),
        ] {
            assert_eq!(may_repeat(kind, error), expected, "{kind:?} {error:?}");
        }
    }
}
