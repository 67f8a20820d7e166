//! The values themselves: each is one or a few atomic numbers.

use crate::text::Text;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a family holds series of.
pub trait Metric: Send + Sync + 'static {
    /// The word after `# TYPE`.
    const KIND: &'static str;
    /// Writes the series; `labels` is `a="b",c="d"` or empty.
    fn render(&self, name: &str, labels: &str, text: &mut Text);
}

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn render(&self, name: &str, labels: &str, text: &mut Text) {
        text.sample(name, labels, self.get() as f64);
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    pub fn add(&self, difference: f64) {
        add_float(&self.0, difference);
    }

    pub fn inc(&self) {
        self.add(1.0);
    }

    pub fn dec(&self) {
        self.add(-1.0);
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn render(&self, name: &str, labels: &str, text: &mut Text) {
        text.sample(name, labels, self.get());
    }
}

/// How values spread over buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is for what is above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// `bounds` ascend; the bucket without an upper bound is added.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0f64.to_bits()) }
    }

    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[at].fetch_add(1, Relaxed);
        add_float(&self.sum, value);
    }

    /// How many values were observed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";

    fn render(&self, name: &str, labels: &str, text: &mut Text) {
        let separator = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            let bound = self.bounds.get(i).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            text.sample(&format!("{name}_bucket"), &format!("{labels}{separator}le=\"{bound}\""), count as f64);
        }
        text.sample(&format!("{name}_sum"), labels, f64::from_bits(self.sum.load(Relaxed)));
        text.sample(&format!("{name}_count"), labels, count as f64);
    }
}

fn add_float(cell: &AtomicU64, difference: f64) {
    let add = |bits| Some((f64::from_bits(bits) + difference).to_bits());
    // The closure always gives a value: the update can't fail.
    let _ = cell.fetch_update(Relaxed, Relaxed, add);
}
