//! Requests to one of several servers of the same cluster: the next one is asked when one is away.
//!
//! Which server is first follows from failures alone: the one that failed longest ago, or never, is asked, and stays
//! the one that is asked until it fails too. There are no timers and no probes; who asks nothing costs nothing.

use crate::http2::{HttpConfig, HttpTransport};
use crate::transport::{Body, Transport, TransportError};
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A [`Transport`] to any of several servers. They can be exchanged while it is used; connections to those that stay
/// go on.
pub struct Failover {
    /// For all servers; its address is not used.
    template: HttpConfig,
    servers: RwLock<Vec<Arc<Server>>>,
    /// Counts failures, so that the last of each server tells their order.
    failures: AtomicU64,
}

struct Server {
    address: Uri,
    transport: HttpTransport,
    /// The number of its last failure; 0 is none.
    failed: AtomicU64,
}

impl Failover {
    /// `config` says how to be sure of every server and who asks, `servers` where they are, the best one first.
    ///
    /// # Errors
    /// When there are none, or an address makes no sense.
    pub fn new(config: HttpConfig, servers: &[Uri]) -> Result<Self, TransportError> {
        let empty = Self { template: config, servers: RwLock::default(), failures: AtomicU64::new(0) };
        empty.set(servers)?;
        Ok(empty)
    }

    /// Asks these servers from now on.
    ///
    /// # Errors
    /// As [`Self::new`]; then nothing changes.
    pub fn set(&self, servers: &[Uri]) -> Result<(), TransportError> {
        if servers.is_empty() {
            return Err(TransportError::new("no address of an API server is given"));
        }
        let known = self.list();
        let of = |address: &Uri| match known.iter().find(|server| server.address == *address) {
            Some(server) => Ok(Arc::clone(server)),
            None => self.server(address).map(Arc::new),
        };
        let list = servers.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = list;
        Ok(())
    }

    /// The servers that are asked, in the order in which they were given.
    pub fn servers(&self) -> Vec<Uri> {
        self.list().iter().map(|server| server.address.clone()).collect()
    }

    fn list(&self) -> Vec<Arc<Server>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn server(&self, address: &Uri) -> Result<Server, TransportError> {
        let config = HttpConfig { server: address.clone(), ..self.template.clone() };
        let (transport, failed) = (HttpTransport::new(config)?, AtomicU64::new(0));
        Ok(Server { address: address.clone(), transport, failed })
    }

    /// The servers in the order in which they are to be asked.
    fn in_order(&self) -> Vec<Arc<Server>> {
        let mut servers = self.list();
        servers.sort_by_key(|server| server.failed.load(Ordering::Relaxed));
        servers
    }
}

#[async_trait::async_trait]
impl Transport for Failover {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        // What only reads may be asked twice; anything else may have been done by the server that gave no answer.
        let repeatable = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut failures = Vec::new();
        for server in self.in_order() {
            match server.transport.attempt(request.clone()).await {
                Ok(response) => return Ok(response),
                Err(unanswered) => {
                    server.failed.store(self.failures.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    tracing::debug!(server = %server.address, error = %unanswered.error, "an API server is away");
                    if unanswered.left && !repeatable {
                        return Err(unanswered.error);
                    }
                    failures.push(unanswered.error);
                }
            }
        }
        Err(all(failures))
    }
}

/// One error for all servers.
fn all(mut failures: Vec<TransportError>) -> TransportError {
    match failures.len() {
        0 => TransportError::new("there is no API server to ask"),
        1 => failures.remove(0),
        _ => {
            let texts: Vec<String> = failures.iter().map(|failure| failure.message.clone()).collect();
            TransportError::new(format!("no API server answers: {}", texts.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::convert::Infallible;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    /// Answers everything with its name, until it is ended; what asks for `/cut` sees the connection break.
    struct Named {
        address: Uri,
        stop: CancellationToken,
        tasks: TaskTracker,
    }

    impl Named {
        async fn start(name: &'static str, address: &str) -> Self {
            let listener = TcpListener::bind(address).await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
            tasks.spawn(accept(listener, name, stop.clone(), tasks.clone()));
            Self { address, stop, tasks }
        }

        async fn end(self) {
            self.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        }
    }

    async fn accept(listener: TcpListener, name: &'static str, stop: CancellationToken, tasks: TaskTracker) {
        while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
            let (stop, cut) = (stop.clone(), CancellationToken::new());
            tasks.spawn(async move {
                let inner = cut.clone();
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let cut = inner.clone();
                    async move {
                        if request.uri().path() == "/cut" {
                            cut.cancel();
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(name))))
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::select! {
                    _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                    () = stop.cancelled() => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    }

    fn transport(servers: &[&Named]) -> Failover {
        let servers: Vec<Uri> = servers.iter().map(|server| server.address.clone()).collect();
        let config = HttpConfig { server: servers[0].clone(), tls: None, server_name: None, token: None };
        Failover::new(config, &servers).unwrap()
    }

    async fn ask(transport: &Failover, method: Method, path: &str) -> Result<String, TransportError> {
        let request = Request::builder().method(method).uri(path).body(Bytes::new()).unwrap();
        let body = transport.call(request).await?.into_body().collect().await.unwrap().to_bytes();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_ends() {
        let (a, b) = (Named::start("a", "127.0.0.1:0").await, Named::start("b", "127.0.0.1:0").await);
        let transport = transport(&[&a, &b]);
        assert_eq!(ask(&transport, Method::GET, "/").await.unwrap(), "a");
        let address = a.address.authority().unwrap().to_string();
        a.end().await;
        assert_eq!(ask(&transport, Method::POST, "/").await.unwrap(), "b", "a write that never left goes elsewhere");
        let back = Named::start("a", &address).await;
        assert_eq!(ask(&transport, Method::GET, "/").await.unwrap(), "b", "who answers is asked again");
        b.end().await;
        assert_eq!(ask(&transport, Method::GET, "/").await.unwrap(), "a");
        back.end().await;
        let error = ask(&transport, Method::GET, "/").await.unwrap_err().to_string();
        assert!(error.starts_with("no API server answers: ") && error.contains(&address), "{error}");
    }

    #[tokio::test]
    async fn only_what_reads_is_asked_twice() {
        let (a, b) = (Named::start("a", "127.0.0.1:0").await, Named::start("b", "127.0.0.1:0").await);
        let servers = transport(&[&a, &b]);
        let error = ask(&servers, Method::POST, "/cut").await.unwrap_err().to_string();
        assert!(error.contains("asking"), "{error}");
        assert_eq!(ask(&servers, Method::POST, "/").await.unwrap(), "b", "who broke off is not asked first");
        let error = ask(&servers, Method::GET, "/cut").await.unwrap_err().to_string();
        assert!(error.starts_with("no API server answers: "), "a read is tried on both: {error}");
        a.end().await;
        b.end().await;
    }

    #[tokio::test]
    async fn servers_come_and_go() {
        let (a, b) = (Named::start("a", "127.0.0.1:0").await, Named::start("b", "127.0.0.1:0").await);
        let transport = transport(&[&a]);
        assert_eq!(ask(&transport, Method::GET, "/").await.unwrap(), "a");
        transport.set(&[b.address.clone(), a.address.clone()]).unwrap();
        assert_eq!(ask(&transport, Method::GET, "/").await.unwrap(), "b", "none has failed: the first one");
        assert_eq!(transport.servers(), [b.address.clone(), a.address.clone()]);
        assert!(transport.set(&[]).is_err() && transport.set(&["ftp://x".parse().unwrap()]).is_err());
        assert_eq!(transport.servers().len(), 2);
        a.end().await;
        b.end().await;
    }
}
