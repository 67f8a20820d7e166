//! The steps of every request, in order: authentication, audit, impersonation, its turn among others, authorization, the
//! answer; and what is counted and noted when it is answered.

use crate::audit;
use crate::authentication::{Connection, impersonate};
use crate::authorization::attributes_of;
use crate::deadline;
use crate::decisions::{Known, Verdict};
use crate::ending::Ending;
use crate::flow;
use crate::metrics::Labels;
use crate::pretty;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};
use crate::response::{self, Answer};
use crate::server::Server;
use crate::{aggregation, paths, resources, usage};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use pintle_audit::Record;
use pintle_auth::User;
use pintle_auth::authentication::front_proxy::strip;
use pintle_auth::authentication::tokens::bearer;
use pintle_auth::authorization::Decision;
use pintle_client::Body;
use pintle_fairness::{Rejected, Seat};
use pintle_registry::AuditAnnotations;
use pintle_types::{Reason, Status};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What knows the deadline of its request (calls of webhooks) ends by itself at that moment, and has this long to say so.
const AFTERTHOUGHT: Duration = Duration::from_millis(20);
/// Upstream's bound for the body of a request.
pub(crate) const MAX_BODY_BYTES: usize = 3 << 20;

/// How much of a body that nobody asked for is read before the answer, and for how long. A connection on which something
/// is left unread ends, and the client may lose the answer; Go's server reads as much.
const UNREAD_BYTES: usize = 256 << 10;
const UNREAD_TIME: Duration = Duration::from_millis(200);

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
    /// The number of this request, in the audit log and in the answer.
    pub audit_id: String,
    /// What admission notes, while the request is audited.
    pub annotations: AuditAnnotations,
    /// When the request is given up; nothing for what goes on for long.
    pub deadline: Option<tokio::time::Instant>,
    record: Option<Record>,
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

    /// Reads what is left of the body, within bounds.
    async fn drain(&self) {
        let body = self.body.lock().take();
        let Some(RequestBody::Stream(mut stream)) = body else { return };
        // Who asks before sending the body does not send it.
        if stream.is_end_stream() || self.headers.contains_key(http::header::EXPECT) {
            return;
        }
        let read = async {
            let mut left = UNREAD_BYTES;
            while let Some(Ok(frame)) = stream.frame().await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        // A client that sends more, or nothing, has its connection ended.
        let _ = tokio::time::timeout(UNREAD_TIME, read).await;
    }

    /// The body as it comes in, for whoever passes it on.
    pub fn take_body(&self) -> Option<RequestBody> {
        self.body.lock().take()
    }

    /// The connection itself, when the client asked to speak another protocol on it.
    pub fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.lock().take()
    }

    pub fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(warnings);
    }

    /// Where admission notes what the audit log is to say; nothing when the request is not audited.
    pub fn audit(&self) -> Option<&AuditAnnotations> {
        self.record.as_ref().map(|_| &self.annotations)
    }

    /// Tells the audit log the object that the request brings.
    pub fn audit_object(&self, object: &serde_json::Value) {
        if let Some(record) = &self.record {
            record.request_object(object);
        }
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
        let connection = Connection::of_user(user);
        self.handle(&connection, request.map(RequestBody::Bytes), Arrival::default()).await
    }

    /// A request on a connection.
    // flow: pod 1/16
    pub(crate) async fn handle(
        self: &Arc<Self>,
        connection: &Connection,
        request: http::Request<RequestBody>,
        Arrival { peer, upgrade }: Arrival,
    ) -> Response<Body> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let info = RequestInfo::new(&parts.method, parts.uri.path(), &query);
        let mut call = Call {
            server: self.clone(),
            user: self.anonymous.clone(),
            audit_id: audit::request_id(&parts.headers),
            annotations: AuditAnnotations::default(),
            deadline: None,
            record: None,
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            info,
            query,
            warnings: Mutex::default(),
            body: Mutex::new(Some(body)),
            upgrade: Mutex::new(upgrade),
        };
        self.run(connection, &mut call, peer, began).await
    }

    async fn run(
        self: &Arc<Self>,
        connection: &Connection,
        call: &mut Call,
        peer: Option<SocketAddr>,
        began: Instant,
    ) -> Response<Body> {
        let long = is_long_running(&call.info);
        let for_people = !long && pretty::is_wanted(&call.query, &call.headers) && aggregation::target(call).is_none();
        if for_people {
            pretty::ask_plainly(&mut call.headers);
        }
        let mut turn = Turn::default();
        let answer = match self.step_in(connection, call, peer, long, &mut turn).await {
            Err(refusal) => Err(refusal),
            Ok(limit) => {
                call.deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
                within(limit, call).await
            }
        };
        let failure = answer.as_ref().err().and_then(|failure| failure.status());
        let mut response = match answer {
            Ok(response) => response,
            Err(Failure::Status(status)) => response::failure(&status, &call.headers),
            Err(Failure::Overload) => response::too_many_requests(),
            Err(Failure::Panic(_)) => response::panicked(),
        };
        // The documents of OpenAPI are as they are.
        if for_people && !call.info.path.starts_with("/openapi") {
            response = Box::pin(pretty::indented(response)).await;
        }
        response::finish(&mut response, std::mem::take(&mut call.audit_id), &call.warnings.lock());
        turn.mark(&mut response);
        if let Some(value) = &self.config.strict_transport_security {
            response.headers_mut().insert(http::header::STRICT_TRANSPORT_SECURITY, value.clone());
        }
        if !long {
            call.drain().await;
        }
        self.settle(call, response, failure, long, (began, turn.waited)).await
    }

    /// All that comes before the answer: who asks, whether it is their turn, and whether they may. Gives the time that
    /// the answer may take.
    async fn step_in(
        self: &Arc<Self>,
        connection: &Connection,
        call: &mut Call,
        peer: Option<SocketAddr>,
        long: bool,
        turn: &mut Turn,
    ) -> Result<Option<Duration>, Failure> {
        let limit = if long { None } else { Some(deadline::requested(&call.query)?) };
        let began = Instant::now();
        let known = self.authenticate(connection, &call.headers, &call.info.path).await;
        self.count_authentication(call, known.as_ref().ok().map(|(asker, _)| &**asker), began.elapsed());
        let (asker, notes) = match known {
            Ok(asker) => asker,
            Err(status) => {
                call.record = audit::begin(call, None, peer);
                return Err(status.into());
            }
        };
        strip(self.auth.front_proxy.as_ref(), &mut call.headers);
        call.record = audit::begin(call, Some(&asker), peer);
        if let Some(record) = &call.record {
            notes.into_iter().for_each(|(key, value)| record.annotate(&key, value));
        }
        let user = impersonate(self, asker.clone(), &call.headers, &call.info).await?;
        if let Some(record) = call.record.as_ref().filter(|_| !Arc::ptr_eq(&asker, &user)) {
            record.impersonated(audit::described(&user));
        }
        call.user = user;
        if !long || call.info.verb == "watch" {
            turn.take(call, limit.unwrap_or(deadline::REQUEST_TIMEOUT)).await?;
        }
        self.authorize(call).await?;
        Ok(limit)
    }

    fn count_authentication(&self, call: &Call, user: Option<&User>, took: Duration) {
        let known = match user {
            Some(_) => Known::Success,
            None if bearer(&call.headers).is_some() => Known::Error,
            None => Known::Failure,
        };
        self.metrics.decisions.authenticated(known, user.map_or("", |user| &user.name), took);
    }

    async fn authorize(&self, call: &Call) -> Result<(), Box<Status>> {
        let what = attributes_of(&call.info);
        let began = Instant::now();
        let mut decision = self.authorizer.decide(&call.user, &what).await;
        if !decision.allowed
            && let Some(allowed) = Box::pin(self.node_may_by_now(&call.user, &what)).await
        {
            decision = allowed;
        }
        self.metrics.decisions.authorized(verdict(&decision), began.elapsed());
        if let Some(record) = &call.record {
            record.annotate("authorization.k8s.io/decision", if decision.allowed { "allow" } else { "forbid" });
            record.annotate("authorization.k8s.io/reason", decision.reason.as_str());
        }
        decision.into_result(&call.user, &what)
    }

    /// Counts the answer and tells it to the audit log; what goes on for long is counted until its end.
    async fn settle(
        self: &Arc<Self>,
        call: &mut Call,
        response: Response<Body>,
        failure: Option<Box<Status>>,
        long: bool,
        (began, waited): (Instant, Duration),
    ) -> Response<Body> {
        let code = response.status().as_u16();
        let apply = call.header("content-type").starts_with("application/apply-patch");
        let known = code < 400 || call.info.resource.as_ref().is_some_and(|r| self.is_served(r));
        let labels = Labels::of(&call.info, &call.method, apply, call.query.has("dryRun"), known);
        let took = (!long).then(|| (began.elapsed(), waited));
        self.metrics.answered(&labels, code, response.body(), took);
        if matches!(code, 429 | 504) {
            self.metrics.terminated(&labels, code);
        }
        let going_on = long && code < 300;
        let counted = going_on.then(|| self.metrics.long_running(&labels));
        let Some(record) = call.record.take() else {
            return if going_on { Ending::new(None, counted).at_end_of(response) } else { response };
        };
        for (key, value) in call.annotations.take() {
            record.annotate(&key, value);
        }
        if going_on {
            record.response_started(code);
            return Ending::new(Some((record, code)), counted).at_end_of(response);
        }
        Box::pin(complete(&record, response, failure, call.info.verb)).await
    }

    fn is_served(&self, path: &ResourceRequest) -> bool {
        self.registry.table().get(&path.group, &path.version, &path.resource).is_some()
    }
}

fn verdict(decision: &Decision) -> Verdict {
    match decision {
        Decision { allowed: true, .. } => Verdict::Allowed,
        Decision { error, .. } if !error.is_empty() => Verdict::Error,
        Decision { denied: true, .. } => Verdict::Denied,
        _ => Verdict::NoOpinion,
    }
}

/// What is known of how a request came in.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// Where its connection comes from; nothing for a part of this process.
    pub peer: Option<SocketAddr>,
    /// Gives the connection itself, if the client asks to speak another protocol on it.
    pub upgrade: Option<OnUpgrade>,
}

/// Why there is no answer of the request's own.
enum Failure {
    Status(Box<Status>),
    Overload,
    Panic(String),
}

impl From<Box<Status>> for Failure {
    fn from(status: Box<Status>) -> Self {
        Self::Status(status)
    }
}

impl Failure {
    fn status(&self) -> Option<Box<Status>> {
        match self {
            Self::Status(status) => Some(status.clone()),
            Self::Overload => None,
            Self::Panic(message) => Some(Box::new(Status::failure(500, Reason::InternalError, message.clone()))),
        }
    }
}

/// A request's place among those that are answered.
#[derive(Default)]
struct Turn {
    seat: Option<Seat>,
    rejected: Option<Rejected>,
    waited: Duration,
    in_flight: Option<crate::metrics::InFlight>,
}

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

impl Turn {
    /// Waits for a seat, for a quarter of the time that the request has.
    async fn take(&mut self, call: &Call, limit: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        let server = &call.server;
        let digest = flow::digest(&call.info, &call.user);
        match server.fairness.acquire(&digest, || flow::width(call), limit / 4).await {
            Ok(seat) => self.seat = Some(seat),
            Err(rejected) => {
                self.rejected = Some(rejected);
                return Err(Failure::Overload);
            }
        }
        self.waited = began.elapsed();
        self.in_flight = Some(server.metrics.in_flight(is_mutating(&call.info)));
        Ok(())
    }

    /// Says by which objects the request was classified.
    fn mark(&self, response: &mut Response<Body>) {
        let uids = match (&self.seat, &self.rejected) {
            (Some(seat), _) => (seat.schema_uid(), seat.level_uid()),
            (None, Some(rejected)) => (&rejected.schema_uid, &rejected.level_uid),
            (None, None) => return,
        };
        for (name, uid) in [(SCHEMA_UID, uids.0), (LEVEL_UID, uids.1)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

fn is_mutating(info: &RequestInfo) -> bool {
    !matches!(info.verb, "get" | "list" | "watch" | "head" | "options")
}

/// The answer, if it comes in time. A panic in it ends this request only.
async fn within(limit: Option<Duration>, call: &Call) -> Result<Response<Body>, Failure> {
    guarded(limit, &call.info, answer(call)).await
}

async fn guarded(
    limit: Option<Duration>,
    info: &RequestInfo,
    answer: impl Future<Output = Answer>,
) -> Result<Response<Body>, Failure> {
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let caught = match limit {
        None => answer.await,
        Some(limit) => match tokio::time::timeout(limit + AFTERTHOUGHT, answer).await {
            Ok(caught) => caught,
            Err(_) => return Err(timed_out(is_mutating(info)).into()),
        },
    };
    match caught {
        Ok(answer) => Ok(answer?),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(path = info.path, verb = info.verb, panic = message, "a request panicked");
            Err(Failure::Panic(message))
        }
    }
}

/// Objects of answers larger than this are not written to the audit log, in bytes.
const MAX_AUDITED_BYTES: usize = 16 << 20;

/// Tells the audit log how a request was answered.
async fn complete(
    record: &Record,
    response: Response<Body>,
    failure: Option<Box<Status>>,
    verb: &str,
) -> Response<Body> {
    let code = response.status().as_u16();
    if let Some(status) = failure {
        match code == 500 && status.details.is_none() && response.headers().get("content-type").is_some_and(is_text) {
            true => record.panicked(&status.message),
            false => record.complete(code, serde_json::from_slice(status.to_json().as_ref()).ok()),
        }
        return response;
    }
    // A deletion's Status is a part of its event, whatever the level.
    if !record.wants_response() && verb != "delete" {
        record.complete(code, None);
        return response;
    }
    let (parts, body) = response.into_parts();
    match pintle_client::collect(body, MAX_AUDITED_BYTES).await {
        Ok(bytes) => {
            let plain = !parts.headers.contains_key(http::header::CONTENT_ENCODING);
            record.complete(code, plain.then(|| serde_json::from_slice(&bytes).ok()).flatten());
            Response::from_parts(parts, pintle_client::body_from(bytes))
        }
        Err(error) => {
            record.complete(code, None);
            let status = Status::internal(format!("the answer is too large to be audited: {error}"));
            let mut response = response::status(StatusCode::INTERNAL_SERVER_ERROR, &status, &HeaderMap::new());
            response.headers_mut().extend(parts.headers.into_iter().filter_map(|(k, v)| Some((k?, v))));
            response
        }
    }
}

fn is_text(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"text/plain")
}

async fn answer(call: &Call) -> Answer {
    if let Some(other) = aggregation::target(call) {
        return Box::pin(aggregation::proxy(call, &other)).await;
    }
    match &call.info.resource {
        Some(path) if usage::is_served(&call.server, &path.group, &path.version) => {
            Box::pin(usage::answer(call, path)).await
        }
        None => Box::pin(paths::answer(call)).await,
        Some(path) => resources::answer(call, path).await,
    }
}

fn is_long_running(info: &RequestInfo) -> bool {
    let Some(resource) = &info.resource else { return info.path.starts_with("/debug/pprof/") };
    info.verb == "watch" || matches!(&*resource.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

fn timed_out(mutating: bool) -> Box<Status> {
    let message = match mutating {
        true => "Timeout: request did not complete within requested timeout - context deadline exceeded",
        false => "Timeout: request did not complete within the allotted timeout",
    };
    Box::new(Status::failure(504, Reason::Timeout, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn code(limit: Option<Duration>, answer: impl Future<Output = Answer>) -> (u16, String) {
        let info = RequestInfo::new(&Method::PUT, "/api/v1/nodes/n", &Query::default());
        let failure = guarded(limit, &info, answer).await.err().and_then(|failure| failure.status()).unwrap();
        (failure.code, failure.message)
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up() {
        let words = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        let answer = code(Some(Duration::from_secs(1)), std::future::pending());
        assert_eq!(answer.await, (504, words.to_owned()));
    }

    fn future_bytes<'a, F: Future>(
        _: impl Fn(&'a Arc<Server>, &'a Connection, http::Request<RequestBody>, Arrival) -> F,
    ) -> usize {
        std::mem::size_of::<F>()
    }

    /// A connection copies the future of each request into its place: what few requests need is on the heap.
    #[test]
    fn the_future_of_a_request_is_small() {
        let bytes = future_bytes(Server::handle);
        assert!(bytes <= 8192, "{bytes} bytes");
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_request() {
        let answer = code(None, async { panic!("an accident") });
        assert_eq!(answer.await, (500, "an accident".to_owned()));
    }
}
