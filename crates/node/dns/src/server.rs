//! Listens for queries over datagrams and streams and answers them.

use crate::answer::{Answer, Outcome, Zone, resolve};
use crate::cache::Question;
use crate::cluster::{Cluster, Objects};
use crate::forward::Forwarder;
use crate::message::{Received, Request, Transport, read};
use crate::metrics::{self, Metrics};
use crate::resolv::{Servers, Upstreams};
use crate::stub::{self, Routes};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record};
use pintle_informer::{Change, Informers, Selector};
use pintle_types::ObjectKey;
use pintle_types::k8s::api::core::v1::ConfigMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A query is far shorter; what is longer is cut and then cannot be read.
const MAX_QUERY_DATAGRAM: usize = 4096;
const MAX_STREAMS: usize = 256;
/// How long a client may hold a stream without a question.
const STREAM_IDLE: Duration = Duration::from_secs(10);
const ANY_PORT_TRIES: u32 = 20;
/// How long to wait when the system has no descriptor left for a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the DNS server of a node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens, over UDP and TCP. Port 0 is any, the same for both.
    pub addresses: Vec<SocketAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
    pub upstreams: Upstreams,
    /// How long clients may keep an answer about the cluster, in seconds; kubeadm's CoreDNS says 30.
    pub ttl: u32,
    /// The ConfigMap that names servers of domains and upstream servers, if there may be one.
    pub settings: Option<ObjectKey>,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// The serial number of the zone: the time the server started, in seconds since 1970.
    pub serial: u32,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("DNS domain {domain:?}: {reason}")]
    Domain { domain: String, reason: String },
    #[error("DNS: listen on {address}: {source}; is another DNS server there?")]
    Bind { address: SocketAddr, source: io::Error },
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Dns {
    zone: Zone,
    forwarder: Arc<Forwarder>,
    listeners: Vec<(UdpSocket, TcpListener)>,
    settings: Option<ObjectKey>,
    metrics: Arc<Metrics>,
    metrics_listener: Option<TcpListener>,
}

struct Shared {
    zone: Zone,
    /// The zone's name as metrics have it.
    zone_text: String,
    forwarder: Arc<Forwarder>,
    objects: Box<dyn Objects>,
    metrics: Arc<Metrics>,
}

impl Dns {
    /// Takes all addresses, or says which one it cannot have.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let name = zone_name(&config.domain)?;
        let mut listeners = Vec::new();
        for address in &config.addresses {
            let pair = listen(*address).await.map_err(|source| Error::Bind { address: *address, source })?;
            listeners.push(pair);
        }
        let own: Vec<SocketAddr> = listeners.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect();
        let servers = own.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified()).collect();
        let metrics_listener = match config.metrics {
            None => None,
            Some(address) => {
                let listening = TcpListener::bind(address).await;
                Some(listening.map_err(|source| Error::Bind { address, source })?)
            }
        };
        let metrics = Arc::new(Metrics::default());
        Ok(Self {
            zone: Zone { name, ttl: config.ttl, servers, serial: config.serial },
            forwarder: Arc::new(Forwarder::new(Servers::new(config.upstreams, own), Arc::clone(&metrics))),
            listeners,
            settings: config.settings,
            metrics,
            metrics_listener,
        })
    }

    /// The addresses that it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect()
    }

    /// Answers until `stop`. Before the informers have read the objects, names of the cluster get `SERVFAIL`, so that
    /// clients ask again rather than believe that a name does not exist.
    pub async fn serve(self, informers: &Informers, stop: CancellationToken) {
        if let Some(key) = &self.settings {
            let selector = Selector {
                namespace: key.namespace.clone(),
                fields: format!("metadata.name={}", key.name),
                ..Selector::default()
            };
            let forwarder = Arc::clone(&self.forwarder);
            informers.selected::<ConfigMap>(selector).on_change(move |change| follow(&forwarder, change));
        }
        self.serve_objects(Box::new(Cluster::new(informers)), stop).await;
    }

    /// Answers from any source of objects until `stop`.
    pub async fn serve_objects(self, objects: Box<dyn Objects>, stop: CancellationToken) {
        let shared = Arc::new(Shared {
            zone_text: self.zone.name.to_string(),
            zone: self.zone,
            forwarder: self.forwarder,
            objects,
            metrics: Arc::clone(&self.metrics),
        });
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        let mut tasks = JoinSet::new();
        for (socket, listener) in self.listeners {
            tasks.spawn(serve_datagrams(Arc::new(socket), Arc::clone(&shared)));
            tasks.spawn(serve_streams(listener, Arc::clone(&shared), Arc::clone(&streams)));
        }
        if let Some(listener) = self.metrics_listener {
            tasks.spawn(metrics::serve(listener, self.metrics));
        }
        stop.cancelled().await;
        // Ends what serves the listeners, and with their own sets the answers under way.
        tasks.shutdown().await;
    }
}

/// Takes over what the cluster says of servers; what can't be understood changes nothing.
fn follow(forwarder: &Forwarder, change: &Change<ConfigMap>) {
    match change.new().map(|settings| stub::parse(settings)) {
        None => forwarder.route(Routes::default()),
        Some(Ok(routes)) => forwarder.route(routes),
        Some(Err(error)) => {
            tracing::error!(config_map = %pintle_types::Kind::key(&**change.object()), %error, "DNS keeps its earlier servers");
        }
    }
}

/// Of any port, one that is free for both; another try when somebody has the second half of the first choice.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { ANY_PORT_TRIES } else { 1 };
    loop {
        let socket = UdpSocket::bind(address).await?;
        tries -= 1;
        match TcpListener::bind(socket.local_addr()?).await {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn zone_name(domain: &str) -> Result<Name, Error> {
    let failed = |reason: String| Error::Domain { domain: domain.to_owned(), reason };
    let mut name = Name::from_ascii(domain).map_err(|error| failed(error.to_string()))?.to_lowercase();
    if name.is_root() {
        return Err(failed("it must have at least one label, such as cluster.local".into()));
    }
    name.set_fqdn(true);
    Ok(name)
}

async fn serve_datagrams(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_QUERY_DATAGRAM];
    let mut waiting = JoinSet::new();
    loop {
        // What a client's machine reports about our earlier answer to it arrives here as an error of the socket.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        while waiting.try_join_next().is_some() {}
        match shared.look(&buffer[..length], Transport::Datagram) {
            Looked::Answer(bytes) => send(&socket, &bytes, client).await,
            Looked::Upstream(request, outcome) => {
                let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
                waiting.spawn(async move {
                    let bytes = shared.ask_upstream(&request, outcome).await;
                    send(&socket, &bytes, client).await;
                });
            }
            Looked::Ignored => {}
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "cannot send a DNS answer");
    }
}

async fn serve_streams(listener: TcpListener, shared: Arc<Shared>, streams: Arc<Semaphore>) {
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&streams).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                clients.spawn(async move {
                    // A client that goes away in the middle is no concern of ours.
                    serve_stream(stream, &shared).await.ok();
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the questions of one client in their order.
async fn serve_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let query = timeout(STREAM_IDLE, async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await?;
            Ok::<_, io::Error>(query)
        })
        .await??;
        let bytes = match shared.look(&query, Transport::Stream) {
            Looked::Answer(bytes) => bytes,
            Looked::Upstream(request, outcome) => shared.ask_upstream(&request, outcome).await,
            Looked::Ignored => return Ok(()),
        };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        timeout(STREAM_IDLE, stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())).await??;
    }
}

/// What became of a query at first sight.
enum Looked {
    Answer(Vec<u8>),
    Upstream(Box<Request>, Upstream),
    Ignored,
}

/// What an upstream server is asked for.
struct Upstream {
    /// Of the cluster; the rest is what upstream knows about the last one's target.
    aliases: Vec<Record>,
    target: Name,
}

impl Shared {
    fn look(&self, bytes: &[u8], transport: Transport) -> Looked {
        let looked = self.decide(bytes, transport);
        if let Looked::Answer(bytes) = &looked {
            self.metrics.answered(&self.zone_text, bytes);
        }
        looked
    }

    fn decide(&self, bytes: &[u8], transport: Transport) -> Looked {
        let request = match read(bytes, transport) {
            Received::Request(request) => request,
            Received::Refused(bytes) => return Looked::Answer(bytes),
            Received::Ignored => return Looked::Ignored,
        };
        let (name, kind) = (request.query().name().clone(), request.query().query_type());
        let here = self.zone.name.zone_of(&name);
        self.metrics.asked(if here { &self.zone_text } else { "." }, transport, kind);
        if here && !self.objects.is_ready() {
            return Looked::Answer(request.fail(ResponseCode::ServFail));
        }
        match resolve(&self.zone, &*self.objects, &name, kind) {
            Outcome::Answer(mut answer) => {
                spread(&mut answer);
                Looked::Answer(request.respond(answer))
            }
            Outcome::Forward => Looked::Upstream(Box::new(request), Upstream { aliases: Vec::new(), target: name }),
            Outcome::Chase { aliases, target } => Looked::Upstream(Box::new(request), Upstream { aliases, target }),
        }
    }

    async fn ask_upstream(&self, request: &Request, upstream: Upstream) -> Vec<u8> {
        let bytes = self.forward(request, upstream).await;
        self.metrics.answered(".", &bytes);
        bytes
    }

    async fn forward(&self, request: &Request, upstream: Upstream) -> Vec<u8> {
        let question = Question {
            name: upstream.target.to_lowercase(),
            kind: request.query().query_type(),
            dnssec: request.wants_dnssec(),
            checking_disabled: request.checking_disabled(),
        };
        match self.forwarder.ask(question).await {
            Ok(message) if upstream.aliases.is_empty() => request.relay(&message),
            Ok(message) => {
                let mut answer = Answer { answers: upstream.aliases, ..Answer::default() };
                answer.answers.extend(message.answers().iter().cloned());
                request.respond(answer)
            }
            Err(error) => {
                tracing::debug!(name = %upstream.target, %error, "cannot resolve");
                if upstream.aliases.is_empty() {
                    return request.fail(ResponseCode::ServFail);
                }
                // The alias itself is known.
                request.respond(Answer { answers: upstream.aliases, ..Answer::default() })
            }
        }
    }
}

/// Begins with another record each time, as clients mostly use the first one.
fn spread(answer: &mut Answer) {
    let only_addresses = answer.answers.iter().all(|record| record.record_type().is_ip_addr());
    if answer.answers.len() > 1 && only_addresses {
        let first = rand::random_range(0..answer.answers.len());
        answer.answers.rotate_left(first);
    }
}
