//! The steps of every request, in order: limits, authentication, impersonation, authorization, then the answer.

use crate::authentication::{Connection, impersonate};
use crate::authorization::attributes_of;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};
use crate::response::{self, Answer};
use crate::server::Server;
use crate::{paths, resources};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use pintle_auth::User;
use pintle_client::Body;
use pintle_types::{Reason, Status};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Upstream's bound for the body of a request.
pub(crate) const MAX_BODY_BYTES: usize = 3 << 20;
/// Requests other than watches and streams are given up after this time, as upstream does.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A request's body: there already, or still to be read.
pub(crate) enum RequestBody {
    Bytes(Bytes),
    Stream(hyper::body::Incoming),
}

/// One request on its way through the steps.
pub(crate) struct Call {
    pub server: Arc<Server>,
    pub user: Arc<User>,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub info: RequestInfo,
    pub query: Query,
    /// Told to the client beside the answer.
    pub warnings: Mutex<Vec<String>>,
    body: Mutex<Option<RequestBody>>,
    upgrade: Mutex<Option<OnUpgrade>>,
}

impl Call {
    /// Reads the whole body, once; a second time it is empty.
    pub async fn read_body(&self) -> Result<Bytes, Box<Status>> {
        let body = self.body.lock().take();
        let too_large = || {
            let message = format!("Request entity too large: limit is {MAX_BODY_BYTES}");
            Box::new(Status::failure(413, Reason::RequestEntityTooLarge, message))
        };
        match body {
            None => Ok(Bytes::new()),
            Some(RequestBody::Bytes(bytes)) if bytes.len() > MAX_BODY_BYTES => Err(too_large()),
            Some(RequestBody::Bytes(bytes)) => Ok(bytes),
            Some(RequestBody::Stream(stream)) => match Limited::new(stream, MAX_BODY_BYTES).collect().await {
                Ok(whole) => Ok(whole.to_bytes()),
                Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(too_large()),
                Err(e) => Err(Box::new(Status::bad_request(format!("unable to read the request's body: {e}")))),
            },
        }
    }

    /// The body as it comes in, for whoever passes it on.
    pub fn take_body(&self) -> Option<RequestBody> {
        self.body.lock().take()
    }

    /// The connection itself, when the client asked to speak another protocol on it.
    pub fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.lock().take()
    }

    /// The resource parts of the path; for paths without, all empty.
    pub fn resource(&self) -> ResourceRequest {
        self.info.resource.clone().unwrap_or_default()
    }

    pub fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(warnings);
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

impl Server {
    /// A request of a part of this process.
    pub(crate) async fn handle_local(
        self: &Arc<Self>,
        user: Arc<User>,
        request: http::Request<Bytes>,
    ) -> Response<Body> {
        let connection = Connection { user: Some(user) };
        self.handle(&connection, request.map(RequestBody::Bytes)).await
    }

    /// A request on a connection.
    // flow: pod 1/16
    pub(crate) async fn handle(
        self: &Arc<Self>,
        connection: &Connection,
        mut request: http::Request<RequestBody>,
    ) -> Response<Body> {
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::new(&parts.method, parts.uri.path(), &query);
        self.metrics.requests.fetch_add(1, Ordering::Relaxed);
        let long = is_long_running(&info);
        let Some(_permit) = self.admit(&info, long) else { return response::too_many_requests() };
        let call = Call {
            server: self.clone(),
            user: self.anonymous.clone(),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            info,
            query,
            warnings: Mutex::default(),
            body: Mutex::new(Some(body)),
            upgrade: Mutex::new(upgrade),
        };
        self.run(connection, call, long).await
    }

    async fn run(self: &Arc<Self>, connection: &Connection, mut call: Call, long: bool) -> Response<Body> {
        let answer = match self.allowed(connection, &call).await {
            Err(status) => Err(status),
            Ok(user) => {
                call.user = user;
                if long {
                    answer(&call).await
                } else {
                    tokio::time::timeout(REQUEST_TIMEOUT, answer(&call)).await.unwrap_or_else(|_| Err(timed_out()))
                }
            }
        };
        let mut response = answer.unwrap_or_else(|status| response::failure(&status, &call.headers));
        response::finish(&mut response, &call.warnings.lock());
        response
    }

    /// Who asks, if they may.
    async fn allowed(&self, connection: &Connection, call: &Call) -> Result<Arc<User>, Box<Status>> {
        let user = self.authenticate(connection, &call.headers).await?;
        let user = impersonate(self, user, &call.headers)?;
        self.authorizer.check(&user, &attributes_of(&call.info))?;
        Ok(user)
    }

    /// A place among the requests in flight. Health checks always have one: an overloaded server is not a dead one.
    fn admit(&self, info: &RequestInfo, long: bool) -> Option<Option<tokio::sync::SemaphorePermit<'_>>> {
        if long || info.resource.is_none() {
            return Some(None);
        }
        self.in_flight.try_acquire().ok().map(Some)
    }
}

async fn answer(call: &Call) -> Answer {
    match &call.info.resource {
        None => paths::answer(call).await,
        Some(_) => resources::answer(call).await,
    }
}

fn is_long_running(info: &RequestInfo) -> bool {
    let Some(resource) = &info.resource else { return false };
    info.verb == "watch" || matches!(&*resource.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

fn timed_out() -> Box<Status> {
    let message = "Timeout: request did not complete within the allotted timeout";
    Box::new(Status::failure(504, Reason::Timeout, message))
}
