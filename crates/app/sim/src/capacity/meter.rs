//! What requests take of the processor, by verb and scope: the time in which their futures are polled.

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// Times of requests of one kind, in microseconds.
type Times = Vec<u32>;

/// Counts requests.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<BTreeMap<&'static str, Times>>);

/// A row of the table: a kind of request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: &'static str,
    pub(crate) count: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) most: Duration,
    pub(crate) sum: Duration,
}

impl Meter {
    /// The verb and, for reads, the scope by which upstream's objectives tell them apart.
    pub(crate) fn kind(request: &http::Request<Bytes>) -> &'static str {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        match *request.method() {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ if query.contains("watch=true") || query.contains("watch=1") => "watch, its begin",
            _ => read(path),
        }
    }

    /// Measures a request.
    pub(crate) async fn measure<F: Future>(&self, kind: &'static str, request: F) -> F::Output {
        let mut spent = Duration::ZERO;
        let output = Polled { inner: pin!(request), spent: &mut spent }.await;
        let micros = u32::try_from(spent.as_micros()).unwrap_or(u32::MAX);
        self.0.lock().entry(kind).or_default().push(micros);
        output
    }

    /// What was measured so far.
    pub(crate) fn table(&self) -> Vec<Row> {
        self.0.lock().iter_mut().map(|(kind, times)| row(kind, times)).collect()
    }
}

/// An object, or a list: of a namespace, or of the whole cluster.
fn read(path: &str) -> &'static str {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    // After `api/v1` or `apis/GROUP/VERSION`.
    let rest = parts.get(if parts.first() == Some(&"api") { 2 } else { 3 }..).unwrap_or_default();
    match rest {
        ["namespaces", _, _] => "list, a namespace's",
        [_] => "list, the cluster's",
        _ => "get",
    }
}

fn row(kind: &'static str, times: &mut Times) -> Row {
    times.sort_unstable();
    let micros = |value: u32| Duration::from_micros(u64::from(value));
    let share = |share: f64| micros(quantile(times, share));
    Row {
        kind,
        count: times.len(),
        p50: share(0.5),
        p99: share(0.99),
        most: share(1.0),
        sum: times.iter().map(|time| micros(*time)).sum(),
    }
}

/// What a share of sorted values does not exceed.
pub(crate) fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// What this process has had of the processors: whatever else the machine does is no part of it.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

struct Polled<'a, F> {
    inner: Pin<&'a mut F>,
    spent: &'a mut Duration,
}

impl<F: Future> Future for Polled<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let began = processor_time();
        let result = self.inner.as_mut().poll(context);
        *self.spent += processor_time().saturating_sub(began);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_as_the_objectives_do() {
        let kind = |method: Method, uri: &str| {
            Meter::kind(&http::Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap())
        };
        for (method, uri, expected) in [
            (Method::POST, "/api/v1/namespaces/a/pods", "create"),
            (Method::GET, "/api/v1/namespaces/a/pods/b", "get"),
            (Method::GET, "/api/v1/namespaces/a", "get"),
            (Method::GET, "/api/v1/namespaces/a/pods?limit=500", "list, a namespace's"),
            (Method::GET, "/apis/apps/v1/deployments", "list, the cluster's"),
            (Method::GET, "/apis/apps/v1/deployments?watch=true", "watch, its begin"),
            (Method::PATCH, "/api/v1/nodes/a/status", "patch"),
        ] {
            assert_eq!(kind(method, uri), expected, "{uri}");
        }
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)), (100, 198, 200));
        assert_eq!(quantile(&[7], 0.5), 7);
        assert_eq!(quantile::<u32>(&[], 0.5), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_no_processor_time() {
        let meter = Meter::default();
        meter.measure("get", tokio::time::sleep(Duration::from_secs(100))).await;
        let table = meter.table();
        assert_eq!((table[0].kind, table[0].count), ("get", 1));
        assert!(table[0].most < Duration::from_secs(50));
    }
}
