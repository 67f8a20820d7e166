//! The way in for parts of the same process: the same steps as everybody's, the user given.

use crate::server::Server;
use bytes::Bytes;
use pintle_auth::User;
use pintle_client::{Body, Transport, TransportError};
use std::sync::Arc;

/// Carries requests into a server of the same process.
#[derive(Clone)]
pub struct LocalTransport {
    server: Arc<Server>,
    user: Arc<User>,
}

impl LocalTransport {
    pub(crate) fn new(server: Arc<Server>, user: User) -> Self {
        Self { server, user: Arc::new(user) }
    }
}

#[async_trait::async_trait]
impl Transport for LocalTransport {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, TransportError> {
        Ok(self.server.handle_local(self.user.clone(), request).await)
    }
}
