//! The formats of texts that a schema may ask for.
//!
//! Source: kube-openapi's `strfmt`, and the list of supported formats in apiextensions-apiserver. Formats that are not
//! known are not checked.

use base64::Engine;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names;
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) fn check(schema: &Value, text: &str, path: &Path, errors: &mut ErrorList) {
    let Some(format) = schema["format"].as_str() else { return };
    let normal = format.replace('-', "");
    if fits(&normal, text) == Some(false) {
        let detail = format!("{path} in body must be of type {format}: {text:?}", path = path.as_str());
        errors.push(FieldError::invalid(path, text, &detail));
    }
}

/// Whether a text has a format, whose name comes without dashes; nothing for unknown formats.
fn fits(format: &str, text: &str) -> Option<bool> {
    Some(match format {
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => date_time(text),
        "duration" => duration(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text.replace(['\n', '\r'], "")).is_ok(),
        "email" => email(text),
        "hostname" => hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "mac" => mac(text),
        "uri" => uri(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some(b'3')),
        "uuid4" => uuid(text, Some(b'4')),
        "uuid5" => uuid(text, Some(b'5')),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "hexcolor" => color(text),
        "rgbcolor" => rgb(text),
        "ssn" => digits(&text.replace(['-', ' '], ""), 9) && matches!(text.len(), 9 | 11),
        "creditcard" => credit_card(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "k8sshortname" => names::dns1123_label_errors(text).is_empty(),
        "k8slongname" => names::dns1123_subdomain_errors(text).is_empty(),
        "password" => true,
        _ => return None,
    })
}

fn hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| b.is_ascii_digit())
}

/// RFC 3339, with a zone; a space may stand for the `T`.
fn date_time(text: &str) -> bool {
    text.get(10..11).is_some_and(|c| matches!(c, "T" | "t" | " ")) && text.parse::<jiff::Timestamp>().is_ok()
}

/// Go's form (`1h30m`), or a number and a word (`3 days`).
fn duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "ms", "s", "m", "h", "μs"];
    const WORDS: [&str; 13] = [
        "nanoseconds",
        "micros",
        "microseconds",
        "millis",
        "milliseconds",
        "secs",
        "seconds",
        "mins",
        "minutes",
        "hours",
        "days",
        "weeks",
        "d",
    ];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if number == 0 || rest[..number].parse::<f64>().is_err() {
            return false;
        }
        let tail = rest[number..].trim_start();
        let unit = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (name, after) = tail.split_at(unit);
        let plural = format!("{name}s");
        if !UNITS.contains(&name) && !WORDS.contains(&name) && !WORDS.contains(&plural.as_str()) {
            return false;
        }
        rest = after.trim_start();
        parts += 1;
    }
    parts > 0
}

fn email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.ends_with('>')) {
        (Some(at), true) => &text[at + 1..text.len() - 1],
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let plain = |c: char| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c);
    let local_fits = !local.is_empty() && local.chars().all(plain) && !local.starts_with('.') && !local.ends_with('.');
    local_fits && !local.contains("..") && !domain.is_empty() && domain.split('.').all(|part| !part.is_empty())
}

fn hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    !text.is_empty() && text.len() <= 255 && text.split('.').all(label)
}

fn mac(text: &str) -> bool {
    let groups = |separator: char, width: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let bytes = parts.len() * width / 2;
        matches!(bytes, 6 | 8 | 20) && parts.iter().all(|part| part.len() == width && hex(part))
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

/// As Go's `ParseRequestURI` takes it: a scheme, or a path from the root.
fn uri(text: &str) -> bool {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !rest.is_empty()
    });
    scheme || text.starts_with('/')
}

fn uuid(text: &str, version: Option<u8>) -> bool {
    let bare = text.replace('-', "");
    let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
    if bare.len() != 32 || !hex(&bare) || !(dashed || text.len() == 32) {
        return false;
    }
    let fits = |wanted: u8| bare.as_bytes()[12] == wanted;
    let variant = || matches!(bare.as_bytes()[16].to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b');
    version.is_none_or(|wanted| fits(wanted) && (wanted == b'3' || variant()))
}

fn color(text: &str) -> bool {
    let bare = text.strip_prefix('#').unwrap_or(text);
    matches!(bare.len(), 3 | 6) && hex(bare)
}

fn rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let Some(inner) = inner else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

fn credit_card(text: &str) -> bool {
    let bare: Vec<u32> = text.chars().filter(|c| !matches!(c, ' ' | '-')).map_while(|c| c.to_digit(10)).collect();
    let doubled = |(at, digit): (usize, &u32)| match (at % 2, digit * 2) {
        (0, _) => *digit,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    };
    (13..=19).contains(&bare.len()) && bare.iter().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

fn isbn10(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if bare.len() != 10 || !bare.is_ascii() {
        return false;
    }
    let value = |(at, c): (usize, char)| match c {
        'X' | 'x' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let sum = bare.chars().enumerate().map(|(at, c)| Some((at as u32 + 1) * value((at, c))?)).sum::<Option<u32>>();
    sum.is_some_and(|sum| sum % 11 == 0)
}

fn isbn13(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let weigh = |(at, c): (usize, char)| Some(c.to_digit(10)? * if at % 2 == 0 { 1 } else { 3 });
    digits(&bare, 13) && bare.chars().enumerate().map(weigh).sum::<Option<u32>>().is_some_and(|sum| sum % 10 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_upstreams_take() {
        for (format, good, bad) in [
            ("date", "2026-02-28", "2026-02-30"),
            ("datetime", "2026-02-28T10:00:00Z", "2026-02-28"),
            ("datetime", "2026-02-28T10:00:00.5+02:00", "10:00:00Z"),
            ("duration", "1h30m", "1x"),
            ("duration", "3 days", ""),
            ("byte", "YWI=", "YWI"),
            ("email", "a@b.example", "a.b.example"),
            ("hostname", "a-b.example", "-a"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11:22"),
            ("uri", "https://a.example/x", "a b"),
            ("uuid", "3e7b2a84-9b4f-4c1b-8b1e-0d8c3a7d8c11", "3e7b2a84"),
            ("uuid4", "3e7b2a84-9b4f-4c1b-8b1e-0d8c3a7d8c11", "3e7b2a84-9b4f-1c1b-8b1e-0d8c3a7d8c11"),
            ("hexcolor", "#fff", "#ff"),
            ("rgbcolor", "rgb(1,2,3)", "rgb(1,2,300)"),
            ("creditcard", "4111 1111 1111 1111", "4111111111111112"),
            ("isbn10", "0-306-40615-2", "0306406153"),
            ("isbn13", "978-0-306-40615-7", "9780306406158"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "xyz"),
            ("k8sshortname", "a-b", "a.b"),
            ("k8slongname", "a.b", "A"),
        ] {
            assert_eq!(fits(format, good), Some(true), "{format}: {good}");
            assert_eq!(fits(format, bad), Some(false), "{format}: {bad}");
        }
        assert_eq!(fits("anything", "x"), None);
    }
}
