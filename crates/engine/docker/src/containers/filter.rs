//! Filters of lists: which there are, and whether a container matches.

use super::Container;
use super::record::{Record, Status};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Filters by name, each with its values; one of the values is enough, but for labels.
pub type Filters = HashMap<String, Vec<String>>;

const KNOWN: [&str; 16] = [
    "ancestor",
    "before",
    "since",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "status",
    "volume",
    "until",
];

/// Refuses filters that are not among those known.
pub fn check_names(filters: &Filters, known: &[&str]) -> Result<()> {
    let mut names: Vec<&String> = filters.keys().collect();
    names.sort();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(DockerError::invalid(format!("invalid filter '{unknown}'"))),
        None => Ok(()),
    }
}

/// A pattern of a shell: `*` and `?`, which do not match a slash.
pub fn glob(pattern: &str, text: &str) -> bool {
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        // Positions of the last star and of the text that it may still take: linear but for retries.
        let (mut p, mut t, mut star) = (0, 0, None);
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(b'?') if text[t] != b'/' => {
                    p += 1;
                    t += 1;
                }
                Some(c) if *c == text[t] => {
                    p += 1;
                    t += 1;
                }
                _ => match star {
                    Some((at, from)) if text[from] != b'/' => {
                        p = at + 1;
                        t = from + 1;
                        star = Some((at, from + 1));
                    }
                    _ => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
    matches(pattern.as_bytes(), text.as_bytes())
}

/// Whether labels have what `key` or `key=value` says.
pub fn has_label<'a>(mut labels: impl Iterator<Item = (&'a String, &'a String)>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.any(|(k, v)| k == key && v == value),
        None => labels.any(|(k, _)| k == wanted),
    }
}

/// Filters that have been looked up once for a whole list.
pub(super) struct Matcher {
    filters: Filters,
    images: Vec<String>,
    /// Made before this, and after that.
    before: Option<i64>,
    since: Option<i64>,
}

impl Matcher {
    pub fn new(daemon: &Daemon, filters: Filters) -> Result<Self> {
        check_names(&filters, &KNOWN)?;
        let created = |key: &str| -> Result<Option<i64>> {
            let Some(name) = filters.get(key).and_then(|v| v.last()) else { return Ok(None) };
            Ok(Some(daemon.container(name)?.look(|r| r.created)))
        };
        let (before, since) = (created("before")?, created("since")?);
        let mut images = Vec::new();
        for name in filters.get("ancestor").into_iter().flatten() {
            images.extend(daemon.images.resolve(name).map(|i| i.id));
        }
        for value in filters.get("exited").into_iter().flatten() {
            value.parse::<i32>().map_err(|_| DockerError::invalid(format!("invalid filter 'exited={value}'")))?;
        }
        let states = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
        for value in filters.get("status").into_iter().flatten() {
            if !states.contains(&value.as_str()) {
                return Err(DockerError::invalid(format!("invalid filter 'status={value}'")));
            }
        }
        for value in filters.get("health").into_iter().flatten() {
            if !["starting", "healthy", "unhealthy", "none"].contains(&value.as_str()) {
                return Err(DockerError::invalid(format!("invalid filter 'health={value}'")));
            }
        }
        for value in filters.get("is-task").into_iter().flatten() {
            if !matches!(value.as_str(), "true" | "false" | "1" | "0") {
                return Err(DockerError::invalid(format!("invalid filter 'is-task={value}'")));
            }
        }
        Ok(Self { filters, images, before, since })
    }

    /// Whether states other than running are asked for.
    pub fn wants_stopped(&self) -> bool {
        ["status", "exited", "before", "since"].iter().any(|key| self.filters.contains_key(*key))
            && !self.filters.is_empty()
    }

    pub fn fits(&self, container: &Arc<Container>) -> bool {
        container.look(|record| {
            self.before.is_none_or(|time| record.created < time)
                && self.since.is_none_or(|time| record.created > time)
                && self.filters.iter().all(|(key, values)| self.one(record, key, values))
        })
    }

    fn one(&self, record: &Record, key: &str, values: &[String]) -> bool {
        let any = |test: &dyn Fn(&str) -> bool| values.is_empty() || values.iter().any(|v| test(v));
        let state = &record.state;
        match key {
            "id" => any(&|v| record.id.starts_with(v)),
            "name" => any(&|v| name_fits(&record.name, v)),
            "label" => values.iter().all(|v| has_label(record.config.labels(), v)),
            "status" => any(&|v| state.status.text() == v),
            "exited" => {
                any(&|v| state.status == Status::Exited && state.finished_at != 0 && v.parse() == Ok(state.exit_code))
            }
            "ancestor" => self.images.contains(&record.image_id) || values.contains(&record.config.image),
            "health" => any(&|v| state.health.as_ref().map_or("none", |h| h.status.text()) == v),
            "network" => any(&|v| {
                record.networks.iter().any(|(name, e)| name == v || (!e.network_id.is_empty() && e.network_id == v))
            }),
            "volume" => any(&|v| {
                record.mounts.iter().any(|m| m.point.name == v || m.point.destination == v || m.point.source == v)
            }),
            "expose" => any(&|v| {
                let ports = record.config.exposed_ports.iter().flatten().map(|(port, _)| port.as_str());
                ports.chain(record.ports.keys().map(String::as_str)).any(|port| port_fits(port, v))
            }),
            "publish" => any(&|v| {
                let published = record.ports.iter().filter(|(_, b)| b.as_ref().is_some_and(|b| !b.is_empty()));
                published.map(|(port, _)| port).any(|port| port_fits(port, v))
            }),
            "is-task" => any(&|v| matches!(v, "false" | "0")),
            _ => true,
        }
    }
}

/// Whether a filter's value is a text or, as a regular expression, fits part of it. What is no expression fits nothing
/// else.
pub fn pattern_fits(pattern: &str, text: &str) -> bool {
    pattern == text || regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// Names count with and without the slash that they once began with.
fn name_fits(name: &str, wanted: &str) -> bool {
    pattern_fits(wanted, name) || pattern_fits(wanted, &format!("/{name}"))
}

/// `80`, `80/tcp`, `80-90/udp`
fn port_fits(port: &str, wanted: &str) -> bool {
    let split = |text: &str| -> (String, String) {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        (number.to_owned(), protocol.to_owned())
    };
    let ((number, protocol), (range, wanted_protocol)) = (split(port), split(wanted));
    let (from, to) = range.split_once('-').unwrap_or((&range, &range));
    let inside = match (number.parse::<u16>(), from.parse::<u16>(), to.parse::<u16>()) {
        (Ok(number), Ok(from), Ok(to)) => (from..=to).contains(&number),
        _ => false,
    };
    inside && protocol == wanted_protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_do_not_cross_slashes() {
        for (pattern, text, fits) in [
            ("r/*", "r/x", true),
            ("r/*", "r/x/y", false),
            ("*", "r/x", false),
            ("b?", "bb", true),
            ("a*c*e", "abcde", true),
            ("a*", "a", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn names_and_ports_match() {
        assert!(name_fits("web1", "web") && name_fits("web1", "^/web") && name_fits("web1", "^web1$"));
        assert!(!name_fits("web1", "^eb") && !name_fits("web1", "web$"));
        assert!(name_fits("web1", "^(db|web).$") && !name_fits("web1", "(web") && name_fits("a.b", "a.b"));
        assert!(port_fits("80/tcp", "80") && port_fits("85/tcp", "80-90/tcp") && !port_fits("80/udp", "80"));
    }
}
