//! What the API server counts, under upstream's names.

use crate::decisions::Decisions;
use crate::request::RequestInfo;
use http::Method;
use http_body::Body as _;
use pintle_client::Body;
use pintle_metrics::{Counter, Family, Gauge, Histogram, Memo, Registry};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const LABELS: &[&str] = &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
const LABELS_WITH_CODE: &[&str] =
    &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"];
const LONG_LABELS: &[&str] = &["verb", "group", "version", "resource", "subresource", "scope", "component"];
const WATCH_LABELS: &[&str] = &["group", "version", "resource"];
pub(crate) const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const EVENT_SIZES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];

/// Counts for `/metrics`.
pub(crate) struct Metrics {
    pub registry: Registry,
    /// Requests that are answered, watches and streams not counted: reading and writing ones.
    in_flight: [Arc<Gauge>; 2],
    /// The series of answered requests: each request looks them up together.
    answers: Memo<Answers>,
    long_running: Arc<Family<Gauge>>,
    total: Arc<Family<Counter>>,
    durations: Arc<Family<Histogram>>,
    sli_durations: Arc<Family<Histogram>>,
    sizes: Arc<Family<Histogram>>,
    events: Arc<Family<Counter>>,
    event_sizes: Arc<Family<Histogram>>,
    pub terminations: Arc<Family<Counter>>,
    pub aborts: Arc<Family<Counter>>,
    pub body_sizes: AtomicU64,
    pub decisions: Decisions,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::default();
        registry.on_scrape(pintle_metrics::process);
        let in_flight = registry.gauges(
            "apiserver_current_inflight_requests",
            "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in \
             last second.",
            &["request_kind"],
        );
        build_info(&registry);
        Self {
            in_flight: [in_flight.with(&["readOnly"]), in_flight.with(&["mutating"])],
            answers: Memo::default(),
            long_running: registry.gauges(
                "apiserver_longrunning_requests",
                "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, \
                 resource, scope and component. Not all requests are tracked this way.",
                LONG_LABELS,
            ),
            total: registry.counters(
                "apiserver_request_total",
                "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, \
                 resource, scope, component, and HTTP response code.",
                LABELS_WITH_CODE,
            ),
            durations: registry.histograms(
                "apiserver_request_duration_seconds",
                "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, \
                 resource, subresource, scope and component.",
                LABELS,
                DURATIONS,
            ),
            sli_durations: registry.histograms(
                "apiserver_request_sli_duration_seconds",
                "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue \
                 wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component"],
                DURATIONS,
            ),
            sizes: registry.histograms(
                "apiserver_response_sizes",
                "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, \
                 scope and component.",
                &["component", "group", "resource", "scope", "subresource", "verb", "version"],
                SIZES,
            ),
            events: registry.counters(
                "apiserver_watch_events_total",
                "[ALPHA] Number of events sent in watch clients",
                WATCH_LABELS,
            ),
            event_sizes: registry.histograms(
                "apiserver_watch_events_sizes",
                "[ALPHA] Watch event size distribution in bytes",
                WATCH_LABELS,
                EVENT_SIZES,
            ),
            terminations: registry.counters(
                "apiserver_request_terminations_total",
                "[ALPHA] Number of requests which apiserver terminated in self-defense.",
                &["component", "code", "group", "resource", "scope", "subresource", "verb", "version"],
            ),
            aborts: registry.counters(
                "apiserver_request_aborts_total",
                "[ALPHA] Number of requests which apiserver aborted possibly due to a timeout, for each group, \
                 version, verb, resource, subresource and scope",
                &["group", "resource", "scope", "subresource", "verb", "version"],
            ),
            body_sizes: AtomicU64::new(0),
            decisions: Decisions::new(&registry),
            registry,
        }
    }
}

fn build_info(registry: &Registry) {
    let labels = &["major", "minor", "git_version", "platform", "compiler"];
    let help = "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, platform and compiler \
                from which Kubernetes was built.";
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let info = registry.gauges("kubernetes_build_info", help, labels);
    info.with(&["1", "36", crate::paths::GIT_VERSION, &platform, "rustc"]).set(1.0);
}

/// What tells the series of requests apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'a> {
    verb: &'a str,
    dry_run: &'a str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'a str,
}

/// Paths without a resource that have series of their own.
const PATHS: [&str; 9] =
    ["/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi/v2", "/openapi/v3", "/api", "/apis"];

impl<'a> Labels<'a> {
    /// `known` is whether the resource is served: what clients make up gets no series.
    pub fn of(info: &'a RequestInfo, method: &'a Method, apply: bool, dry_run: bool, known: bool) -> Self {
        let dry_run = if dry_run { "All" } else { "" };
        let Some(resource) = info.resource.as_ref().filter(|_| known) else {
            let subresource = PATHS.iter().copied().find(|path| *path == info.path).unwrap_or_default();
            let verb = shown(method.as_str());
            return Self { verb, dry_run, group: "", version: "", resource: "", subresource, scope: "" };
        };
        let verb = match info.verb {
            "list" => "LIST",
            "watch" => "WATCH",
            "deletecollection" => "DELETECOLLECTION",
            "patch" if apply => "APPLY",
            _ => shown(method.as_str()),
        };
        let scope = match (resource.name.is_empty() && info.verb != "create", resource.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let (group, version) = (resource.group.as_str(), resource.version.as_str());
        Self { verb, dry_run, group, version, resource: &resource.resource, subresource: &resource.subresource, scope }
    }
}

fn shown(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

impl Metrics {
    /// Counts a request as in flight as long as it is kept.
    pub fn in_flight(&self, mutating: bool) -> InFlight {
        InFlight::new(self.in_flight[usize::from(mutating)].clone())
    }

    /// Counts a watch or a stream as long as it is kept.
    pub fn long_running(&self, of: &Labels<'_>) -> InFlight {
        let labels = [of.verb, of.group, of.version, of.resource, of.subresource, of.scope, "apiserver"];
        InFlight::new(self.long_running.with(&labels))
    }

    /// A request was answered. `waited` of the time it waited for its turn; nothing for watches and streams, which
    /// take as long as they take.
    pub fn answered(&self, of: &Labels<'_>, code: u16, body: &Body, took: Option<(Duration, Duration)>) {
        let mut digits = [0; 3];
        let code = decimal(code, &mut digits);
        let Labels { verb, dry_run, group, version, resource, subresource, scope } = *of;
        let labels = [verb, dry_run, group, version, resource, subresource, scope, "apiserver", code];
        let make = |kept: &[&str]| Answers { own: kept == labels, total: self.total.with(kept), ..Answers::default() };
        let answers = self.answers.with(&labels, make);
        answers.total.inc();
        let Some((took, waited)) = took else { return };
        let times = || {
            let sli = [verb, group, version, resource, subresource, scope, "apiserver"];
            [self.durations.with(&labels[..8]), self.sli_durations.with(&sli)]
        };
        let [durations, sli] = &*answers.kept(&answers.times, times);
        durations.observe(took.as_secs_f64());
        sli.observe(took.saturating_sub(waited).as_secs_f64());
        if matches!(verb, "GET" | "LIST")
            && let Some(bytes) = body.size_hint().exact()
        {
            self.body_sizes.fetch_add(bytes, Ordering::Relaxed);
            let sizes = || self.sizes.with(&["apiserver", group, resource, scope, subresource, verb, version]);
            answers.kept(&answers.sizes, sizes).observe(bytes as f64);
        }
    }

    /// A request ended before it was answered: by this server to protect itself, or as it took too long.
    pub fn terminated(&self, of: &Labels<'_>, code: u16) {
        let code = code.to_string();
        let labels = ["apiserver", &code, of.group, of.resource, of.scope, of.subresource, of.verb, of.version];
        self.terminations.with(&labels).inc();
        self.aborts.with(&[of.group, of.resource, of.scope, of.subresource, of.verb, of.version]).inc();
    }

    /// Where the events of a watch are counted, and their sizes.
    pub fn watch_events(&self, group: &str, version: &str, resource: &str) -> (Arc<Counter>, Arc<Histogram>) {
        let labels = [group, version, resource];
        (self.events.with(&labels), self.event_sizes.with(&labels))
    }
}

/// The series that a request is counted in; those of times and sizes are made for the first request that has some.
#[derive(Default)]
struct Answers {
    /// Whether they are of one set of labels, not of all those for which there was no room.
    own: bool,
    total: Arc<Counter>,
    times: OnceLock<[Arc<Histogram>; 2]>,
    sizes: OnceLock<Arc<Histogram>>,
}

impl Answers {
    fn kept<'a, T: Clone>(&self, place: &'a OnceLock<T>, make: impl FnOnce() -> T) -> Cow<'a, T> {
        if self.own { Cow::Borrowed(place.get_or_init(make)) } else { Cow::Owned(make()) }
    }
}

/// A status code as text, without an allocation.
fn decimal(code: u16, digits: &mut [u8; 3]) -> &str {
    let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or_default();
    *digits = [digit(code / 100), digit(code / 10), digit(code)];
    std::str::from_utf8(digits).unwrap_or_default()
}

/// Something that goes on; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Gauge>);

impl InFlight {
    fn new(gauge: Arc<Gauge>) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    fn labels(method: Method, uri: &str, known: bool) -> String {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let info = RequestInfo::new(&method, path, &Query::parse(query));
        let l = Labels::of(&info, &method, false, false, known);
        format!("{} {}/{} {}/{} {}", l.verb, l.group, l.version, l.resource, l.subresource, l.scope)
    }

    #[test]
    fn requests_are_labelled_as_upstream_labels_them() {
        assert_eq!(labels(Method::GET, "/api/v1/pods", true), "LIST /v1 pods/ cluster");
        assert_eq!(labels(Method::GET, "/api/v1/namespaces/a/pods?watch=1", true), "WATCH /v1 pods/ namespace");
        assert_eq!(
            labels(Method::POST, "/apis/apps/v1/namespaces/a/deployments", true),
            "POST apps/v1 deployments/ resource"
        );
        assert_eq!(labels(Method::PUT, "/api/v1/nodes/n/status", true), "PUT /v1 nodes/status resource");
        assert_eq!(labels(Method::GET, "/readyz", true), "GET / //readyz ");
        assert_eq!(labels(Method::GET, "/made/up", true), "GET / / ");
        assert_eq!(labels(Method::GET, "/apis/made.up/v1/things", false), "GET / / ");
    }

    #[test]
    fn requests_in_flight_are_counted() {
        let metrics = Metrics::default();
        let shown =
            |n: u32| metrics.registry.render().contains(&format!("requests{{request_kind=\"mutating\"}} {n}\n"));
        let one = metrics.in_flight(true);
        assert!(shown(1));
        drop(one);
        assert!(shown(0));
        let mut digits = [0; 3];
        assert_eq!(decimal(404, &mut digits), "404");
    }
}
