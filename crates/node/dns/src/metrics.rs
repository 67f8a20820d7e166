//! Counts questions and answers under CoreDNS's names, and serves the counts over HTTP.

use crate::message::Transport;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pintle_metrics::{Counter, Family, Registry};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The label of the only server, as CoreDNS has it.
const SERVER: &str = "dns://:53";
const REQUEST_TIME: Duration = Duration::from_secs(10);
const CLIENTS: usize = 16;

/// The counters of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Arc<Family<Counter>>,
    responses: Arc<Family<Counter>>,
    cache_hits: Arc<Counter>,
    cache_misses: Arc<Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::default();
        let cache = |name, help| registry.counters(name, help, &["server"]).with(&[SERVER]);
        Self {
            requests: registry.counters(
                "coredns_dns_requests_total",
                "Counter of DNS requests made per zone, protocol and family.",
                &["server", "zone", "proto", "type"],
            ),
            responses: registry.counters(
                "coredns_dns_responses_total",
                "Counter of response status codes.",
                &["server", "zone", "rcode"],
            ),
            cache_hits: cache("coredns_cache_hits_total", "The count of cache hits."),
            cache_misses: cache("coredns_cache_misses_total", "The count of cache misses."),
            registry,
        }
    }
}

impl Metrics {
    /// A question of the cluster's zone, or of any other (`.`).
    pub(crate) fn asked(&self, zone: &str, transport: Transport, kind: RecordType) {
        let transport = if transport == Transport::Datagram { "udp" } else { "tcp" };
        let known = matches!(
            kind,
            RecordType::A
                | RecordType::AAAA
                | RecordType::CNAME
                | RecordType::MX
                | RecordType::NS
                | RecordType::PTR
                | RecordType::SOA
                | RecordType::SRV
                | RecordType::TXT
                | RecordType::ANY
        );
        // Types that nobody knows would be as many series as clients make up.
        let kind = if known { kind.to_string() } else { "other".to_owned() };
        self.requests.with(&[SERVER, zone, transport, &kind]).inc();
    }

    /// The answer's code, from the bytes that are sent.
    pub(crate) fn answered(&self, zone: &str, bytes: &[u8]) {
        let Some(flags) = bytes.get(3) else { return };
        let code = match ResponseCode::from_low(flags & 0x0f) {
            ResponseCode::NoError => "NOERROR",
            ResponseCode::FormErr => "FORMERR",
            ResponseCode::ServFail => "SERVFAIL",
            ResponseCode::NXDomain => "NXDOMAIN",
            ResponseCode::NotImp => "NOTIMP",
            ResponseCode::Refused => "REFUSED",
            _ => "other",
        };
        self.responses.with(&[SERVER, zone, code]).inc();
    }

    pub(crate) fn cached(&self, hit: bool) {
        if hit { &self.cache_hits } else { &self.cache_misses }.inc();
    }

    pub(crate) fn render(&self) -> String {
        self.registry.render()
    }
}

/// Answers `GET /metrics` for ever.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let slots = Arc::new(Semaphore::new(CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        clients.spawn(async move {
            let answering = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME).max_buf_size(16 << 10);
            // A client that goes away in the middle is its own affair.
            server.serve_connection(TokioIo::new(stream), answering).await.ok();
            drop(slot);
        });
    }
}

fn answer(path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    if path != "/metrics" {
        let mut response = Response::new(Full::new(Bytes::from_static(b"404 page not found\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let mut response = Response::new(Full::new(Bytes::from(metrics.render())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(pintle_metrics::CONTENT_TYPE));
    response
}
