//! Series of one metric, told apart by their labels: found without a lock, made under one.

use crate::text::{Text, escape};
use crate::value::Metric;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// More series of a family than this become one.
pub const MAX_SERIES: usize = 4096;
const OVERFLOW: &str = "overflow";

#[derive(Debug)]
struct Series<M> {
    hash: u64,
    values: Box<[Box<str>]>,
    metric: Arc<M>,
}

/// One metric with labels.
pub struct Family<M> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    make: Box<dyn Fn() -> M + Send + Sync>,
    /// In the order of their hashes; copied when one is added, which is rare.
    series: ArcSwap<Vec<Arc<Series<M>>>>,
    adding: Mutex<()>,
}

impl<M> std::fmt::Debug for Family<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("name", &self.name).field("series", &self.series.load().len()).finish()
    }
}

fn hash(values: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    hasher.finish()
}

fn find<M>(series: &[Arc<Series<M>>], hash: u64, values: &[&str]) -> Option<Arc<M>> {
    let from = series.partition_point(|s| s.hash < hash);
    let same = |s: &&Arc<Series<M>>| s.values.iter().map(|v| &**v).eq(values.iter().copied());
    series[from..].iter().take_while(|s| s.hash == hash).find(same).map(|s| s.metric.clone())
}

impl<M: Metric> Family<M> {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        Self { name, help, labels, make: Box::new(make), series: ArcSwap::default(), adding: Mutex::new(()) }
    }

    /// The series with these values, in the order of the labels. Missing values are empty, further ones ignored.
    pub fn with(&self, values: &[&str]) -> Arc<M> {
        let values = &values[..values.len().min(self.labels.len())];
        let hash = hash(values);
        if let Some(found) = find(&self.series.load(), hash, values) {
            return found;
        }
        self.add(hash, values)
    }

    /// The series made so far, with their values.
    pub fn series(&self) -> Vec<(Vec<String>, Arc<M>)> {
        let text = |s: &Arc<Series<M>>| s.values.iter().map(|v| v.to_string()).collect();
        self.series.load().iter().map(|s| (text(s), s.metric.clone())).collect()
    }

    /// Forgets series: what they counted has gone.
    pub fn retain(&self, keep: impl Fn(&[Box<str>]) -> bool) {
        let _one_at_a_time = self.adding.lock();
        let left = self.series.load().iter().filter(|s| keep(&s.values)).cloned().collect();
        self.series.store(Arc::new(left));
    }

    fn add(&self, sum: u64, values: &[&str]) -> Arc<M> {
        let _one_at_a_time = self.adding.lock();
        let present = self.series.load();
        if let Some(found) = find(&present, sum, values) {
            return found;
        }
        let overflow = vec![OVERFLOW; self.labels.len()];
        let (sum, values) = match present.len() < MAX_SERIES {
            true => (sum, values),
            false => (hash(&overflow), overflow.as_slice()),
        };
        if let Some(found) = find(&present, sum, values) {
            return found;
        }
        let metric = Arc::new((self.make)());
        let values = values.iter().map(|v| Box::from(*v)).collect();
        let mut series = present.to_vec();
        let at = series.partition_point(|s| s.hash < sum);
        series.insert(at, Arc::new(Series { hash: sum, values, metric: metric.clone() }));
        self.series.store(Arc::new(series));
        metric
    }

    pub(crate) fn render(&self, text: &mut Text) {
        let series = self.series.load();
        if series.is_empty() {
            return;
        }
        text.family(self.name, M::KIND, self.help);
        let mut sorted: Vec<_> = series.iter().collect();
        sorted.sort_by(|a, b| a.values.cmp(&b.values));
        for series in sorted {
            series.metric.render(self.name, &self.labelled(&series.values), text);
        }
    }

    fn labelled(&self, values: &[Box<str>]) -> String {
        let value = |i: usize| values.get(i).map_or("", |v| v);
        let pairs = self.labels.iter().enumerate().map(|(i, name)| format!("{name}=\"{}\"", escape(value(i))));
        pairs.collect::<Vec<_>>().join(",")
    }
}
