//! The end of an answer that goes on for long: a body that tells when its stream is over or given up.

use crate::metrics::InFlight;
use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pintle_audit::Record;
use pintle_client::{Body, BoxError};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What is done when the answer is over: its audit event is written, and it is counted no more.
pub(crate) struct Ending {
    record: Option<(Record, u16)>,
    _counted: Option<InFlight>,
}

impl Ending {
    pub fn new(record: Option<(Record, u16)>, counted: Option<InFlight>) -> Self {
        Self { record, _counted: counted }
    }

    /// Waits for the end of the body, or for its being dropped.
    pub fn at_end_of(self, response: Response<Body>) -> Response<Body> {
        response.map(|inner| Body::new(Ended { inner, _ending: self }))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some((record, code)) = self.record.take() {
            record.complete(code, None);
        }
    }
}

struct Ended {
    inner: Body,
    _ending: Ending,
}

impl HttpBody for Ended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
