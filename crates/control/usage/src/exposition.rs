//! Reads what a kubelet answers at `/metrics/resource`.
//!
//! Source: the text format of Prometheus 0.0.4; the names of `pkg/kubelet/metrics/collectors/resource_metrics.go`.

use std::collections::BTreeMap;

/// What one thing has used so far, at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    /// When it was measured, in milliseconds since 1970.
    pub at: i64,
    /// Processor time since the start, in nanoseconds.
    pub cpu: Option<u64>,
    /// The working set, in bytes.
    pub memory: Option<u64>,
    /// When it started, in milliseconds since 1970; of containers only.
    pub started: Option<i64>,
}

/// The containers of a pod, by name.
pub(crate) type Containers = BTreeMap<String, Point>;

/// All that a kubelet told at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub(crate) node: Point,
    /// By namespace and name.
    pub(crate) pods: BTreeMap<(String, String), Containers>,
}

/// More containers than any node runs; what comes after them is left out.
const MAX_CONTAINERS: usize = 20_000;
const MAX_LABELS: usize = 16;
const NANOS: f64 = 1e9;

impl Sample {
    /// Reads an answer. Lines that say nothing of use here, or that can't be read, are left out; `now` (milliseconds
    /// since 1970) is the time of values that come without one.
    pub fn parse(text: &str, now: i64) -> Self {
        let mut sample = Self::default();
        let mut count = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(line) = Line::read(line) else { continue };
            let at = line.at.unwrap_or(now);
            match line.name {
                "node_cpu_usage_seconds_total" => sample.node.set_cpu(line.value, at),
                "node_memory_working_set_bytes" => sample.node.set_memory(line.value, at),
                "container_cpu_usage_seconds_total" => {
                    let Some(point) = sample.container(&line, &mut count) else { continue };
                    point.set_cpu(line.value, at);
                }
                "container_memory_working_set_bytes" => {
                    let Some(point) = sample.container(&line, &mut count) else { continue };
                    point.set_memory(line.value, at);
                }
                "container_start_time_seconds" => {
                    let Some(point) = sample.container(&line, &mut count) else { continue };
                    point.started = Some((line.value * 1e3) as i64);
                }
                _ => {}
            }
        }
        sample
    }

    fn container(&mut self, line: &Line<'_>, count: &mut usize) -> Option<&mut Point> {
        let label = |name: &str| line.labels.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
        let key = (label("namespace")?, label("pod")?);
        let name = label("container")?;
        let known = self.pods.get(&key).is_some_and(|pod| pod.contains_key(&name));
        if !known {
            *count += 1;
        }
        if *count > MAX_CONTAINERS {
            return None;
        }
        Some(self.pods.entry(key).or_default().entry(name).or_default())
    }
}

impl Point {
    fn set_cpu(&mut self, seconds: f64, at: i64) {
        self.cpu = Some((seconds * NANOS) as u64);
        self.at = at;
    }

    fn set_memory(&mut self, bytes: f64, at: i64) {
        self.memory = Some(bytes as u64);
        if self.at == 0 {
            self.at = at;
        }
    }
}

/// One line: `name{label="value",…} value timestamp`.
struct Line<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
    at: Option<i64>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                rest = rest.trim_start_matches([',', ' ']);
                if let Some(after) = rest.strip_prefix('}') {
                    rest = after;
                    break;
                }
                let (label, after) = rest.split_once("=\"")?;
                let (value, after) = quoted(after)?;
                if labels.len() == MAX_LABELS {
                    return None;
                }
                labels.push((label.trim(), value));
                rest = after;
            }
        }
        let mut words = rest.split_ascii_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        if !value.is_finite() || value < 0.0 {
            return None;
        }
        let at = match words.next() {
            Some(word) => Some(word.parse().ok()?),
            None => None,
        };
        Some(Self { name, labels, value, at })
    }
}

/// A value up to its closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="main",namespace="d",pod="a"} 1.5 1700000000123
container_cpu_usage_seconds_total{container="main",namespace="d"} 9 1700000000123
container_memory_working_set_bytes{container="main",namespace="d",pod="a"} 1.048576e+06 1700000000123
container_start_time_seconds{container="main",namespace="d",pod="a"} 1.6999e+09 1700000000123
node_cpu_usage_seconds_total 12.25 1700000000000
node_memory_working_set_bytes 4096
other{a="b\"c\\\n"} NaN
broken{a="
scrape_error 0
"#;

    #[test]
    fn what_a_kubelet_tells_is_read() {
        let sample = Sample::parse(TEXT, 5);
        let node = Point { at: 1_700_000_000_000, cpu: Some(12_250_000_000), memory: Some(4096), started: None };
        assert_eq!(sample.node, node);
        let pod = &sample.pods[&("d".to_owned(), "a".to_owned())];
        let expected = Point {
            at: 1_700_000_000_123,
            cpu: Some(1_500_000_000),
            memory: Some(1 << 20),
            started: Some(1_699_900_000_000),
        };
        assert_eq!(pod["main"], expected);
        assert_eq!((sample.pods.len(), pod.len()), (1, 1));
        assert_eq!(Sample::parse("node_memory_working_set_bytes 1", 5).node.at, 5);
    }

    #[test]
    fn values_may_hold_anything() {
        assert_eq!(quoted(r#"a\"b\\c\nd"} 1"#), Some(("a\"b\\c\nd".to_owned(), "} 1")));
        for text in ["", "a", "a{", "a{b=\"c\"", "a{b=\"c\"} x", "a{b=\"c\"} 1 y", "a -1", "{} 1 1", "a{é=\"\\"] {
            assert_eq!(Sample::parse(text, 0), Sample::default(), "{text}");
        }
    }

    #[test]
    fn broken_answers_do_no_harm() {
        pintle_noise::feed_text(&[TEXT], 500, |text| drop(Sample::parse(text, 1)));
    }
}
