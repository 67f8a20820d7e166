//! Prometheus' text exposition format, version 0.0.4.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The media type of what [`crate::Registry::render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The families of a scrape, while they are gathered. Sources that name the same family add to it.
#[derive(Debug, Default)]
pub struct Text {
    families: BTreeMap<String, String>,
    current: String,
}

impl Text {
    /// Begins a family, or goes on with one of this name. `kind` is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let head =
            || format!("# HELP {name} {}\n# TYPE {name} {kind}\n", help.replace('\\', r"\\").replace('\n', r"\n"));
        self.families.entry(name.to_owned()).or_insert_with(head);
        name.clone_into(&mut self.current);
    }

    /// One line of the family begun last. `labels` as in the text: `a="b",c="d"` with values escaped, or empty.
    pub fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let Some(family) = self.families.get_mut(&self.current) else { return };
        let braces = if labels.is_empty() { ["", ""] } else { ["{", "}"] };
        // Writing to a String can't fail.
        let _ = writeln!(family, "{name}{}{labels}{} {}", braces[0], braces[1], number(value));
    }

    /// One line with these label values.
    pub fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
        self.sample(name, &labels.join(","), value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    pub(crate) fn finish(self) -> String {
        self.families.into_values().collect()
    }
}

/// A label's value between its quotes.
pub(crate) fn escape(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").into()
}

/// As Prometheus' own client writes numbers: large and tiny ones with an exponent.
fn number(value: f64) -> String {
    let size = value.abs();
    match value {
        v if v.is_nan() => "NaN".into(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.into(),
        v if size != 0.0 && !(1e-4..1e21).contains(&size) => format!("{v:e}"),
        v => v.to_string(),
    }
}
