//! Counts what a program does and shows it in Prometheus' text form: counters, gauges and histograms, with labels.
//!
//! A [`Registry`] belongs to one component (the API server, the kubelet, …) and is cheap to clone. A metric is made
//! once, kept by whoever counts, and counted with single atomic operations; a series of a [`Family`] is found without
//! a lock, and whoever counts often keeps the series itself:
//!
//! ```
//! use pintle_metrics::{Family, Histogram, Registry, SECONDS};
//! let registry = Registry::default();
//! let total = registry.counters("jobs_total", "[STABLE] Jobs done, by outcome.", &["outcome"]);
//! total.with(&["done"]).inc();
//! let time: std::sync::Arc<Family<Histogram>> =
//!     registry.histograms("job_duration_seconds", "[ALPHA] Time of a job.", &["kind"], SECONDS);
//! let batch = time.with(&["batch"]); // kept: no look-up when observing
//! batch.observe(0.3);
//! registry.on_scrape(|text| text.gauge("queue_depth", "[ALPHA] Jobs that wait.", 0.0));
//! assert!(registry.render().contains("jobs_total{outcome=\"done\"} 1\n"));
//! ```
//!
//! Label values must come from a small set: a family keeps at most [`MAX_SERIES`] series and counts everything
//! beyond under one whose values are all `overflow`.

mod family;
mod memo;
mod process;
mod text;
mod value;

pub use family::Family;
pub use memo::{MAX_SERIES, Memo};
pub use process::process;
pub use text::{CONTENT_TYPE, Text};
pub use value::{Counter, Gauge, Histogram, Metric};

use parking_lot::Mutex;
use std::sync::Arc;

/// Upper bounds for durations of small work, in seconds: Prometheus' default buckets.
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

type Source = Box<dyn Fn(&mut Text) + Send + Sync>;

/// The metrics of one component. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry {
    sources: Arc<Mutex<Vec<Source>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("sources", &self.sources.lock().len()).finish()
    }
}

impl Registry {
    /// Counters that tell `labels` apart. The name ends in `_total`.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Arc<Family<Counter>> {
        self.add(Family::new(name, help, labels, Counter::default))
    }

    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Arc<Family<Gauge>> {
        self.add(Family::new(name, help, labels, Gauge::default))
    }

    /// `bounds` are the upper bounds of the buckets, ascending, in the unit that the name ends in.
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Arc<Family<Histogram>> {
        self.add(Family::new(name, help, labels, move || Histogram::new(bounds)))
    }

    /// One counter without labels; it is shown from the start.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Arc<Counter> {
        self.counters(name, help, &[]).with(&[])
    }

    pub fn gauge(&self, name: &'static str, help: &'static str) -> Arc<Gauge> {
        self.gauges(name, help, &[]).with(&[])
    }

    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Arc<Histogram> {
        self.histograms(name, help, &[], bounds).with(&[])
    }

    /// Asks for values only when somebody looks: for what is known elsewhere anyway.
    pub fn on_scrape(&self, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.sources.lock().push(Box::new(source));
    }

    /// Everything in the text form, families in the order of their names. Families without a series are left out.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        for source in self.sources.lock().iter() {
            source(&mut text);
        }
        text.finish()
    }

    fn add<M: Metric>(&self, family: Family<M>) -> Arc<Family<M>> {
        let family = Arc::new(family);
        let shown = family.clone();
        self.on_scrape(move |text| shown.render(text));
        family
    }
}

#[cfg(test)]
mod tests;
