//! The server: the state that all requests share, the listener, and its connections.

use crate::admission::Plugins;
use crate::aggregation::Aggregation;
use crate::authentication::Connection;
use crate::authorization::Authorizer;
use crate::authorization::aggregate::Aggregator;
use crate::bootstrap;
use crate::config::Config;
use crate::custom::Definitions;
use crate::decisions::count_store;
use crate::endpoints;
use crate::flow;
use crate::follow::{Change, Follower};
use crate::gather::gather;
use crate::local::LocalTransport;
use crate::metrics::Metrics;
use crate::paths::openapi::Documents;
use crate::pipeline::{Arrival, RequestBody};
use crate::usage::Usage;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use pintle_audit::Auditor;
use pintle_auth::{Auth, User};
use pintle_clock::Clock;
use pintle_fairness::Fairness;
use pintle_registry::Registry;
use sha2::{Digest, Sha256};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a server can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}; is another server running there?")]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the objects that every cluster has: {0}")]
    Bootstrap(#[source] Box<pintle_types::Status>),
    #[error("cannot audit: {0}")]
    Audit(String),
}

impl From<pintle_types::Status> for Error {
    fn from(status: pintle_types::Status) -> Self {
        Self::Bootstrap(Box::new(status))
    }
}

/// Whoever says nothing for so long while TLS is set up, or in the middle of a request's head, is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is left of the requests when the server stops is given this time.
const FAREWELL: Duration = Duration::from_secs(5);
/// Upstream's bound for the head of a request.
const MAX_HEAD_BYTES: usize = 1 << 20;
/// Upstream's bound for the requests of one connection at a time.
const MAX_STREAMS: u32 = 1000;
/// When accepting fails for want of files or memory, trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An API server over a registry.
pub struct Server {
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) authorizer: Arc<Authorizer>,
    aggregator: Aggregator,
    pub(crate) plugins: Plugins,
    pub(crate) definitions: Definitions,
    pub(crate) aggregation: Aggregation,
    pub(crate) documents: Documents,
    pub(crate) usage: Usage,
    pub(crate) anonymous: Arc<User>,
    pub(crate) fairness: Arc<Fairness>,
    pub(crate) metrics: Metrics,
    pub(crate) auditor: OnceLock<Arc<Auditor>>,
    /// When the process began to serve, for those who ask how long ago that was.
    pub(crate) began: jiff::Timestamp,
    /// Everything that goes on beside the requests: connections, passed-on streams, followers.
    pub(crate) tasks: TaskTracker,
    stop: OnceLock<CancellationToken>,
    started: AtomicBool,
    port: AtomicU16,
}

impl Server {
    /// A server that knows nothing yet: [`Server::bind`] opens its port, [`Server::start`] reads the roles and makes
    /// what every cluster has, [`BoundServer::serve`] answers.
    pub fn new(config: Config, registry: Arc<Registry>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let metrics = Metrics::default();
        let seats = config.max_in_flight + config.max_mutating_in_flight;
        let fairness = Fairness::new(u32::try_from(seats).unwrap_or(u32::MAX), &metrics.registry);
        count_objects(&metrics, &registry);
        count_store(&metrics.registry, &registry);
        let auth = config.auth.clone().unwrap_or_else(|| Arc::new(Auth::basic(config.basics())));
        Arc::new(Self {
            fairness,
            auditor: OnceLock::new(),
            began: clock.now(),
            port: AtomicU16::new(config.bind.port()),
            config,
            registry,
            clock,
            authorizer: auth.authorizer.clone(),
            auth,
            aggregator: Aggregator::default(),
            plugins: Plugins::new(&metrics.registry),
            definitions: Definitions::default(),
            aggregation: Aggregation::default(),
            documents: Documents::default(),
            usage: Usage::default(),
            anonymous: Arc::new(User::anonymous()),
            metrics,
            tasks: TaskTracker::new(),
            stop: OnceLock::new(),
            started: AtomicBool::new(false),
        })
    }

    /// What `/metrics` shows; parts of the same process may add to it.
    pub fn metrics(&self) -> &pintle_metrics::Registry {
        &self.metrics.registry
    }

    /// Makes the objects that every cluster has, and follows roles, bindings and custom resource definitions until `stop`. To be called once,
    /// after [`Server::bind`] when the port was left to it, and before the first request.
    pub async fn start(self: &Arc<Self>, stop: CancellationToken) -> Result<(), Error> {
        // A second start would change nothing: the first token counts.
        let stop = self.stop.get_or_init(|| stop).clone();
        if let Some(auditor) = self.open_audit(&stop).map_err(Error::Audit)? {
            self.auditor.get_or_init(|| auditor);
        }
        bootstrap::run(self).await?;
        endpoints::start(self, &stop).await?;
        flow::start(self, &stop).await?;
        self.follow_roles(&stop).await?;
        self.follow_node_graph(&stop).await?;
        let auth = self.auth.clone();
        let ended = stop.clone();
        self.tasks.spawn(async move { auth.follow_files(ended).await });
        self.aggregator.settle(self).await?;
        Plugins::start(self, &stop).await?;
        Definitions::start(self, &stop).await?;
        Aggregation::start(self, &stop).await?;
        let server = self.clone();
        self.tasks.spawn(async move { server.aggregator.run(server.clone(), stop).await });
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    async fn follow_roles(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), Error> {
        let group = "rbac.authorization.k8s.io";
        for (resource, is_role) in
            [("clusterroles", true), ("roles", true), ("clusterrolebindings", false), ("rolebindings", false)]
        {
            let server = self.clone();
            let cluster = resource == "clusterroles";
            let apply = move |change: Change<'_>| {
                let index = &server.authorizer.rbac;
                match (change, is_role) {
                    (Change::Set(role), true) => index.set_role(role),
                    (Change::Gone(role), true) => index.remove_role(role),
                    (Change::Set(binding), false) => index.set_binding(binding),
                    (Change::Gone(binding), false) => index.remove_binding(binding),
                }
                match change {
                    Change::Set(role) if cluster => server.aggregator.set(role),
                    Change::Gone(role) if cluster => server.aggregator.remove(role),
                    _ => {}
                }
            };
            let follower = Follower::load(self, group, resource, apply).await?;
            self.tasks.spawn(follower.run(stop.clone()));
        }
        Ok(())
    }

    /// Sends requests as `user` through the same steps as everybody's, without TLS.
    pub fn local_transport(self: &Arc<Self>, user: User) -> LocalTransport {
        LocalTransport::new(self.clone(), user)
    }

    /// Opens the listener; fails early when the address is taken.
    pub async fn bind(self: &Arc<Self>) -> Result<BoundServer, Error> {
        let failed = |source| Error::Bind { address: self.config.bind, source };
        let listener = TcpListener::bind(self.config.bind).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        self.port.store(address.port(), Ordering::Release);
        Ok(BoundServer { server: self.clone(), listener, address })
    }

    /// The port that is listened on, or is to be.
    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Acquire)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Cancelled when the server stops.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stop.get().cloned().unwrap_or_default()
    }
}

/// Tells how much is stored, when asked.
fn count_objects(metrics: &Metrics, registry: &Arc<Registry>) {
    let registry = Arc::downgrade(registry);
    metrics.registry.on_scrape(move |text| {
        let Some(registry) = registry.upgrade() else { return };
        let help = "[STABLE] Number of stored objects at the time of last check split by kind.";
        text.family("apiserver_storage_objects", "gauge", help);
        let counts = registry.counts();
        for (group, resource, count) in &counts {
            let name = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            text.labelled("apiserver_storage_objects", &[("resource", &name)], *count as f64);
        }
        text.family("apiserver_resource_objects", "gauge", help);
        for (group, resource, count) in &counts {
            text.labelled("apiserver_resource_objects", &[("group", group), ("resource", resource)], *count as f64);
        }
    });
}

/// A server with its listener.
pub struct BoundServer {
    server: Arc<Server>,
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundServer {
    /// Where it listens, the port filled in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, then ends watches and streams, and gives the other requests a few seconds.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(self.server.config.tls.clone());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let connection = connection(self.server.clone(), acceptor.clone(), stream, stop.clone());
                    self.server.tasks.spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%from, %error, "a connection ended with an error");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        self.server.tasks.close();
        if tokio::time::timeout(FAREWELL, self.server.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.server.tasks.len(), "connections were still busy when the server stopped");
        }
        Ok(())
    }
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// One connection, from the handshake to its end.
async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let peer = Some(stream.peer_addr()?);
    let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
    let certificates = stream.get_ref().1.peer_certificates();
    let fingerprint = certificates.and_then(|c| c.first()).map(|c| Sha256::digest(c).into());
    let identity = Arc::new(Connection::of_certificates(&server.auth, certificates, fingerprint));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (server, identity) = (server.clone(), identity.clone());
        async move {
            let mut request = request;
            let arrival = Arrival { peer, upgrade: Some(hyper::upgrade::on(&mut request)) };
            Ok::<_, std::convert::Infallible>(server.handle(&identity, request.map(RequestBody::Stream), arrival).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEAD_BYTES);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).max_header_list_size(MAX_HEAD_BYTES as u32).max_concurrent_streams(MAX_STREAMS);
    let (stream, gatherer) = gather(stream);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        done = poll_fn(|context| gatherer.poll(serving.as_mut(), context)) => return done,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    poll_fn(|context| gatherer.poll(serving.as_mut(), context)).await
}
