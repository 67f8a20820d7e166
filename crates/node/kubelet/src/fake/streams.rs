//! Streams that nobody serves.

use crate::streams::{PortStream, RemoteStreams, StreamError, Streaming, Upgrade, Wants};
use futures::stream::BoxStream;
use http::Request;
use hyper::body::Incoming;

/// Refuses exec, attach and port-forward.
pub struct NoStreams;

impl Streaming for NoStreams {
    fn exec(&self, _: Request<Incoming>, _: Wants) -> Result<Upgrade<RemoteStreams>, StreamError> {
        Err(StreamError("no streams".into()))
    }

    fn port_forward(
        &self,
        _: Request<Incoming>,
        _: &[u16],
    ) -> Result<Upgrade<BoxStream<'static, PortStream>>, StreamError> {
        Err(StreamError("no streams".into()))
    }
}
