//! The steps of every request, in order.

use crate::server::Server;
use crate::user::User;
use bytes::Bytes;
use pintle_client::Body;
use std::sync::Arc;

impl Server {
    /// A request of a part of this process.
    pub(crate) async fn handle_local(
        self: &Arc<Self>,
        _user: Arc<User>,
        _request: http::Request<Bytes>,
    ) -> http::Response<Body> {
        let status = pintle_types::Status::failure(501, pintle_types::Reason::Other, "the server cannot answer yet");
        let mut response = http::Response::new(pintle_client::body_from(status.to_json()));
        *response.status_mut() = http::StatusCode::NOT_IMPLEMENTED;
        response
    }
}
