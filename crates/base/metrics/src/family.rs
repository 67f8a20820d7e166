//! Series of one metric, told apart by their labels.

use crate::memo::Memo;
use crate::text::{Text, escape};
use crate::value::Metric;
use std::sync::Arc;

/// One metric with labels.
pub struct Family<M> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    make: Box<dyn Fn() -> M + Send + Sync>,
    series: Memo<M>,
}

impl<M> std::fmt::Debug for Family<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("name", &self.name).field("series", &self.series.entries().len()).finish()
    }
}

impl<M: Metric> Family<M> {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        Self { name, help, labels, make: Box::new(make), series: Memo::default() }
    }

    /// The series with these values, in the order of the labels. Missing values are empty, further ones ignored.
    pub fn with(&self, values: &[&str]) -> Arc<M> {
        self.series.with(&values[..values.len().min(self.labels.len())], |_| (self.make)())
    }

    /// The series made so far, with their values.
    pub fn series(&self) -> Vec<(Vec<String>, Arc<M>)> {
        let all = self.series.entries();
        all.iter().map(|s| (s.texts.iter().map(|v| v.to_string()).collect(), s.value.clone())).collect()
    }

    /// Forgets series: what they counted has gone.
    pub fn retain(&self, keep: impl Fn(&[Box<str>]) -> bool) {
        self.series.retain(keep);
    }

    pub(crate) fn render(&self, text: &mut Text) {
        let series = self.series.entries();
        if series.is_empty() {
            return;
        }
        text.family(self.name, M::KIND, self.help);
        let mut sorted: Vec<_> = series.iter().collect();
        sorted.sort_by(|a, b| a.texts.cmp(&b.texts));
        for series in sorted {
            series.value.render(self.name, &self.labelled(&series.texts), text);
        }
    }

    fn labelled(&self, values: &[Box<str>]) -> String {
        let value = |i: usize| values.get(i).map_or("", |v| v);
        let pairs = self.labels.iter().enumerate().map(|(i, name)| format!("{name}=\"{}\"", escape(value(i))));
        pairs.collect::<Vec<_>>().join(",")
    }
}
