//! Reading of configuration files: bounded, of a known kind and version, durations as Go writes them.

use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No configuration file is longer.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why a setting can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("{path}: the file must be a {kind} of one of the versions {versions}")]
    Kind { path: PathBuf, kind: &'static str, versions: String },
    #[error("{what}: {why}")]
    Invalid { what: String, why: String },
    #[error(transparent)]
    Outbound(#[from] crate::outbound::OutboundError),
}

/// The whole file, if it is not too long.
pub(crate) fn read_file(path: &Path) -> Result<String, ConfigurationError> {
    let failed = |source| ConfigurationError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "longer than 4 MiB")));
    }
    Ok(text)
}

/// A document of this kind in one of these versions.
pub(crate) fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    kind: &'static str,
    versions: &[&str],
) -> Result<T, ConfigurationError> {
    let failed = |source| ConfigurationError::Parse { path: path.to_owned(), source };
    let document: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(failed)?;
    let field = |name: &str| document.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    if field("kind") != kind || !versions.contains(&field("apiVersion").as_str()) {
        return Err(ConfigurationError::Kind { path: path.to_owned(), kind, versions: versions.join(", ") });
    }
    serde_yaml_ng::from_value(document).map_err(failed)
}

/// A duration as Go writes it: `1h30m`, `10s`, `250ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 1h30m, 10s or 250ms");
    let mut rest = text.trim();
    let mut total = 0.0_f64;
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        total += number * seconds;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        let check = |text: &str, expected: Option<f64>| {
            assert_eq!(duration(text).ok().map(|d| d.as_secs_f64()), expected, "{text}");
        };
        check("1h30m", Some(5400.0));
        check("250ms", Some(0.25));
        check("1.5s", Some(1.5));
        check("0", Some(0.0));
        for wrong in ["", "5", "s", "-1s", "1d", "1s x"] {
            check(wrong, None);
        }
    }
}
