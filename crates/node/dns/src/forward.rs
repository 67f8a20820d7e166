//! Asks upstream servers, over a datagram first and over a stream when the answer does not fit one.

use crate::cache::{Cache, Question};
use crate::message::{SAFE_DATAGRAM, encode};
use crate::metrics::Metrics;
use crate::resolv::Servers;
use crate::stub::Routes;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one server may take, and how often all of them are asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Questions under way at the same time; more are turned away at once rather than kept waiting.
const MAX_UNDER_WAY: usize = 1000;
const MAX_DATAGRAM: usize = 4096;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no upstream server is configured")]
    NoServer,
    #[error("too many questions are waiting for upstream servers")]
    Busy,
    #[error("no upstream server answered; the last one, {server}, failed: {source}")]
    NoAnswer { server: SocketAddr, source: io::Error },
}

/// The way to upstream servers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    servers: Servers,
    /// What the cluster says of domains, before what the machine says.
    routes: parking_lot::Mutex<Arc<Routes>>,
    metrics: Arc<Metrics>,
    cache: Cache,
    slots: Semaphore,
    /// The server that answered last is asked first.
    preferred: AtomicUsize,
}

impl Forwarder {
    pub(crate) fn new(servers: Servers, metrics: Arc<Metrics>) -> Self {
        Self {
            servers,
            routes: parking_lot::Mutex::default(),
            metrics,
            cache: Cache::default(),
            slots: Semaphore::new(MAX_UNDER_WAY),
            preferred: AtomicUsize::new(0),
        }
    }

    /// Asks these servers from now on.
    pub(crate) fn route(&self, routes: Routes) {
        *self.routes.lock() = Arc::new(routes);
        self.cache.clear();
    }

    /// What upstream says, of late or now.
    pub(crate) async fn ask(&self, question: Question) -> Result<Message, Error> {
        let known = self.cache.get(&question);
        self.metrics.cached(known.is_some());
        if let Some(known) = known {
            return Ok(known);
        }
        let _slot = self.slots.try_acquire().map_err(|_| Error::Busy)?;
        let routes = Arc::clone(&self.routes.lock());
        let servers = match routes.servers_for(&question.name) {
            Some(servers) => self.servers.without_own(servers.to_vec()),
            None => self.servers.now(),
        };
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = Error::NoServer;
        for turn in 0..servers.len() * ROUNDS {
            let at = (first + turn) % servers.len();
            match ask_one(servers[at], &question).await {
                // A server that cannot or will not say is no reason to believe that nobody can.
                Ok(message) if turn + 1 < servers.len() && is_failure(&message) => {}
                Ok(message) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    self.cache.put(question, &message);
                    return Ok(message);
                }
                Err(source) => last = Error::NoAnswer { server: servers[at], source },
            }
        }
        Err(last)
    }
}

fn is_failure(message: &Message) -> bool {
    matches!(message.response_code(), ResponseCode::ServFail | ResponseCode::Refused)
}

async fn ask_one(server: SocketAddr, question: &Question) -> io::Result<Message> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let answer = timeout(PATIENCE, over_datagram(server, question)).await.map_err(|_| late())??;
    if !answer.truncated() {
        return Ok(answer);
    }
    // A part of an answer is better than none.
    match timeout(PATIENCE, over_stream(server, question)).await {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(_)) | Err(_) => Ok(answer),
    }
}

async fn over_datagram(server: SocketAddr, question: &Question) -> io::Result<Message> {
    // A socket of its own: the port is one more thing that a forger would have to guess.
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let query = query(question);
    socket.send(&encode_query(&query)?).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = accept(&buffer[..length], &query) {
            return Ok(answer);
        }
    }
}

async fn over_stream(server: SocketAddr, question: &Question) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let query = query(question);
    let bytes = encode_query(&query)?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    accept(&answer, &query).ok_or_else(|| io::Error::other("the answer is not to the question"))
}

fn query(question: &Question) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(SAFE_DATAGRAM).set_version(0).set_dnssec_ok(question.dnssec);
    let mut message = Message::new();
    message
        .set_id(rand::random())
        .set_message_type(MessageType::Query)
        .set_op_code(OpCode::Query)
        .set_recursion_desired(true)
        .set_checking_disabled(question.checking_disabled)
        .add_query(Query::query(question.name.clone(), question.kind))
        .set_edns(edns);
    message
}

fn encode_query(message: &Message) -> io::Result<Vec<u8>> {
    encode(message, u16::MAX).ok_or_else(|| io::Error::other("the question cannot be encoded"))
}

/// The answer in `bytes`, if it is to this query.
fn accept(bytes: &[u8], query: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let fits = answer.message_type() == MessageType::Response
        && answer.id() == query.id()
        && answer.queries() == query.queries();
    fits.then_some(answer)
}
