//! The kubelet's HTTPS API: logs, exec, attach, port-forward, pods, statistics.
//!
//! Every request is authenticated by client certificate or bearer token and authorized; nothing is open.

mod auth;
mod configz;
mod exec;
mod local_volumes;
mod log_route;
mod metrics;
mod paths;
mod pods;
mod port_forward;
mod query;
mod respond;
mod summary;

use crate::config::{Config, Error};
use crate::host::Host;
use crate::static_pods::Mirrors;
use crate::stats::Collector;
use crate::streams::Streaming;
use auth::Authorizer;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use paths::Route;
use pintle_informer::Informer;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 512;
/// For the handshake, and for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(15);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// The answer to a request that is not served.
pub type Refusal = Box<Response<Body>>;

/// What the routes work on.
pub struct State {
    host: Arc<Host>,
    pods: Informer<Pod>,
    authorizer: Authorizer,
    streaming: Arc<dyn Streaming>,
    stats: Arc<Collector>,
    mirrors: Arc<Mirrors>,
    configz: serde_json::Value,
    /// The tasks of streams; they end when the server stops.
    streams: TaskTracker,
    stop: CancellationToken,
}

impl State {
    pub fn new(
        config: &Config,
        host: Arc<Host>,
        pods: Informer<Pod>,
        mirrors: Arc<Mirrors>,
        stats: Arc<Collector>,
    ) -> Self {
        Self {
            configz: configz::of(config),
            stats,
            mirrors,
            host,
            pods,
            authorizer: Authorizer::new(config.client.clone(), config.node_name.clone()),
            streaming: Arc::clone(&config.streaming),
            streams: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The pod of that name, if it has this uid; an empty uid is any.
    fn pod(&self, namespace: &str, name: &str, uid: &str) -> Result<Arc<Pod>, Refusal> {
        let key = pintle_types::ObjectKey::new(namespace, name);
        let found = match (self.mirrors.pod(&key), self.pods.get(&key)) {
            // The runtime knows a static pod by its own uid, clients by that of its mirror.
            (Some(pod), mirror) => {
                let uids = [Some(pod.uid()), mirror.as_ref().map(|m| m.uid())];
                let known = uid.is_empty() || uids.contains(&Some(uid));
                known.then(|| Arc::clone(&pod))
            }
            (None, found) => found.filter(|pod| uid.is_empty() || pod.uid() == uid),
        };
        found.ok_or_else(|| {
            respond::refuse(StatusCode::NOT_FOUND, format!("pod does not exist: {name:?} in namespace {namespace:?}"))
        })
    }

    /// Runs a stream's task until it ends or the server stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.streams.spawn(async move {
            // A task that is cut off by the stop has nothing to say.
            let _ended = stop.run_until_cancelled(task).await;
        });
    }
}

/// Listens, or says why not.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, state: Arc<State>, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the kubelet's API can't be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let (acceptor, shared) = (acceptor.clone(), Arc::clone(&state));
            state.spawn(async move {
                let _permit = permit;
                connection(stream, acceptor, shared).await;
            });
        }
    };
    let _ended = stop.run_until_cancelled(accept).await;
    state.stop.cancel();
    state.streams.close();
    state.streams.wait().await;
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else { return };
    let peer = pintle_pki::peer(stream.get_ref().1.peer_certificates());
    let peer = Arc::new(peer);
    let service = service_fn(move |request| {
        let (state, peer) = (Arc::clone(&state), Arc::clone(&peer));
        async move { Ok::<_, std::convert::Infallible>(answer(state, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the kubelet's API ended early");
    }
}

async fn answer(state: Arc<State>, peer: Arc<Option<pintle_pki::Peer>>, request: Request<Incoming>) -> Response<Body> {
    let route = Route::of(request.uri().path());
    count(&state, request.method(), route.as_ref());
    let Some(route) = route else {
        return respond::text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let checked =
        state.authorizer.check(peer.as_ref().as_ref(), request.headers(), request.method(), route.subresource());
    if let Err(refusal) = checked.await {
        return *refusal;
    }
    if !route.allows(request.method()) {
        return respond::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    match route {
        Route::Healthz => respond::text(StatusCode::OK, "ok"),
        Route::Pods => pods::pods(&state),
        Route::RunningPods => pods::running_pods(&state).await,
        Route::Summary => summary::answer(&state, request.uri().query().unwrap_or_default()).await,
        Route::Metrics => metrics::own(&state).await,
        Route::ResourceMetrics => metrics::resource(&state).await,
        Route::CadvisorMetrics => metrics::cadvisor(&state).await,
        Route::ProbeMetrics => metrics::probes(&state),
        Route::Configz => configz::answer(&state),
        Route::Checkpoint(place) => checkpoint(&state, &place),
        Route::LocalVolume(volume) => local_volumes::answer(&state, request.method(), &volume).await,
        Route::Logs { namespace, pod, container } => {
            log_route::answer(&state, &namespace, &pod, &container, request.uri().query().unwrap_or_default()).await
        }
        Route::Exec(place) => exec::answer(&state, exec::Verb::Exec, &place, request).await,
        Route::Attach(place) => exec::answer(&state, exec::Verb::Attach, &place, request).await,
        Route::PortForward { namespace, pod, uid } => {
            port_forward::answer(&state, &namespace, &pod, &uid, request).await
        }
    }
}

/// Counts a request, by few words only: clients choose the method and the path.
fn count(state: &State, method: &Method, route: Option<&Route>) {
    let known = matches!(method.as_str(), "OPTIONS" | "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "TRACE" | "CONNECT");
    let method = if known { method.as_str() } else { "other" };
    let path = route.map_or("other", Route::bucket);
    // Forwarded ports are not among them at upstream, which spells their path in two ways.
    let takes_long = matches!(route, Some(Route::Exec(_) | Route::Attach(_)));
    let long_running = if takes_long { "true" } else { "false" };
    state.host.measures.requests.with(&[method, path, "readwrite", long_running]).inc();
}

/// Containers can't be frozen to disk here: upstream's words for a runtime that does not know how.
fn checkpoint(state: &State, place: &paths::Place) -> Response<Body> {
    let paths::Place { namespace, pod, container, .. } = place;
    let found = match state.pod(namespace, pod, "") {
        Ok(found) => found,
        Err(_) => return respond::text(StatusCode::NOT_FOUND, "pod does not exist\n"),
    };
    if !crate::reference::lasting_containers(&found).any(|(_, c)| c.name == *container) {
        let words = format!("container {container:?} not found in pod {pod:?} in namespace {namespace:?}\n");
        return respond::text(StatusCode::NOT_FOUND, words);
    }
    let why = "rpc error: code = Unimplemented desc = method CheckpointContainer not implemented";
    let words = format!("checkpointing of {namespace}/{pod}/{container} failed ({why})");
    respond::text(StatusCode::INTERNAL_SERVER_ERROR, words)
}

/// Methods that only read.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
