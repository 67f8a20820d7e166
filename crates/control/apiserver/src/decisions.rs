//! Counts what is decided before a request is answered, who asks and whether they may, and what the store is asked;
//! all under upstream's names.

use pintle_metrics::{Counter, Family, Gauge, Histogram, Registry};
use pintle_registry::{Registry as Objects, StoreRequest};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Upstream's bounds for decisions: a millisecond, and each twice the one before.
const DECISIONS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
const STORE: &[&str] = &["operation", "group", "resource"];

/// What came of looking at credentials.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    Success,
    /// There were none, and nobody is let in without.
    Failure,
    Error,
}

/// What came of asking whether somebody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied,
    NoOpinion,
    Error,
}

/// The figures of decisions.
pub(crate) struct Decisions {
    authentication: Outcomes<3>,
    authorization: Outcomes<4>,
    users: Arc<Family<Counter>>,
    others: OnceLock<Arc<Counter>>,
    deprecated: Arc<Family<Gauge>>,
}

impl Decisions {
    pub fn new(registry: &Registry) -> Self {
        Self {
            authentication: Outcomes {
                names: ["success", "failure", "error"],
                total: registry.counters(
                    "authentication_attempts",
                    "[ALPHA] Counter of authenticated attempts.",
                    &["result"],
                ),
                times: registry.histograms(
                    "authentication_duration_seconds",
                    "[ALPHA] Authentication duration in seconds broken out by result.",
                    &["result"],
                    DECISIONS,
                ),
                kept: Default::default(),
            },
            authorization: Outcomes {
                names: ["allowed", "denied", "no-opinion", "error"],
                total: registry.counters(
                    "authorization_attempts_total",
                    "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', \
                     'denied', 'no-opinion' or 'error'.",
                    &["result"],
                ),
                times: registry.histograms(
                    "authorization_duration_seconds",
                    "[ALPHA] Authorization duration in seconds broken out by result.",
                    &["result"],
                    DECISIONS,
                ),
                kept: Default::default(),
            },
            users: registry.counters(
                "authenticated_user_requests",
                "[ALPHA] Counter of authenticated requests broken out by username.",
                &["username"],
            ),
            others: OnceLock::new(),
            deprecated: registry.gauges(
                "apiserver_requested_deprecated_apis",
                "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, \
                 resource, subresource, and removed_release.",
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
        }
    }

    /// Credentials were looked at; `user` is whose they are.
    pub fn authenticated(&self, known: Known, user: &str, took: Duration) {
        self.authentication.count(known as usize, took);
        if !matches!(known, Known::Success) {
            return;
        }
        match username(user) {
            "other" => self.others.get_or_init(|| self.users.with(&["other"])).inc(),
            name => self.users.with(&[name]).inc(),
        }
    }

    pub fn authorized(&self, verdict: Verdict, took: Duration) {
        self.authorization.count(verdict as usize, took);
    }

    /// A version was asked for that is to go away; nobody knows in which release.
    pub fn deprecated(&self, group: &str, version: &str, resource: &str, subresource: &str) {
        self.deprecated.with(&[group, version, resource, subresource, ""]).set(1.0);
    }
}

/// The series of a user: few are told apart, as upstream has it.
fn username(user: &str) -> &str {
    match user {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => user,
        user if user.contains('@') => "email_id",
        _ => "other",
    }
}

/// A count and the times of each outcome; an outcome that never came is not shown.
struct Outcomes<const N: usize> {
    names: [&'static str; N],
    total: Arc<Family<Counter>>,
    times: Arc<Family<Histogram>>,
    kept: [OnceLock<(Arc<Counter>, Arc<Histogram>)>; N],
}

impl<const N: usize> Outcomes<N> {
    fn count(&self, outcome: usize, took: Duration) {
        let names = [self.names[outcome]];
        let (total, times) = self.kept[outcome].get_or_init(|| (self.total.with(&names), self.times.with(&names)));
        total.inc();
        times.observe(took.as_secs_f64());
    }
}

/// Counts what the store is asked, and tells what watchers were offered when somebody looks.
pub(crate) fn count_store(registry: &Registry, objects: &Arc<Objects>) {
    let total = registry.counters(
        "etcd_requests_total",
        "[ALPHA] Etcd request counts for each operation and object type.",
        STORE,
    );
    let errors = registry.counters(
        "etcd_request_errors_total",
        "[ALPHA] Etcd failed request counts for each operation and object type.",
        STORE,
    );
    let times = registry.histograms(
        "etcd_request_duration_seconds",
        "[ALPHA] Etcd request latency in seconds for each operation and object type.",
        STORE,
        crate::metrics::DURATIONS,
    );
    objects.observe_store(move |request: &StoreRequest<'_>| {
        let labels = [request.operation, request.group, request.resource];
        total.with(&labels).inc();
        times.with(&labels).observe(request.took.as_secs_f64());
        if request.failed {
            errors.with(&labels).inc();
        }
    });
    let objects = Arc::downgrade(objects);
    registry.on_scrape(move |text| {
        let Some(objects) = objects.upgrade() else { return };
        let name = "apiserver_watch_cache_events_dispatched_total";
        text.family(name, "counter", "[ALPHA] Counter of events dispatched in watch cache broken by resource type.");
        for (group, resource, events) in objects.dispatched().iter().filter(|(.., events)| *events > 0) {
            text.labelled(name, &[("group", group), ("resource", resource)], *events as f64);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_users_have_series_of_their_own() {
        let shown = ["admin", "jo@example.com", "system:serviceaccount:a:b", "kubelet"].map(username);
        assert_eq!(shown, ["admin", "email_id", "other", "kubelet"]);
    }
}
