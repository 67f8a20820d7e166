//! URLs as Go's `net/url` reads them: what is one, its parts, and how errors are worded.
//!
//! Source: RFC 3986, and the documentation of the package `net/url`.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// An absolute URL or path that a request may ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Url {
    text: String,
    pub scheme: String,
    /// With the port, percent-decoded.
    pub host: String,
    /// As it was written, or escaped where it was not.
    pub escaped_path: String,
    query: String,
}

impl Url {
    /// Accepts what Go's `ParseRequestURI` accepts; a fragment is split off.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|why| format!("parse {text:?}: {why}"))
    }

    fn read(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err("net/url: invalid control character in URL".into());
        }
        if text.is_empty() {
            return Err("empty url".into());
        }
        let (scheme, rest) = scheme(text)?;
        // Go first reads the URL as if it had no fragment: it must be fine in both readings.
        let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !before.starts_with('/') {
            // `mailto:me`: opaque, without host and path.
            let opaque = Self { text: text.to_owned(), scheme, query: query.to_owned(), ..Self::default() };
            return if opaque.scheme.is_empty() { Err("invalid URI for request".into()) } else { Ok(opaque) };
        }
        let (host, path) = match before.strip_prefix("//") {
            Some(after) if !scheme.is_empty() || !before.starts_with("///") => {
                let end = after.find('/').unwrap_or(after.len());
                (authority(&after[..end])?, &after[end..])
            }
            _ => (String::new(), before),
        };
        let plain = unescape(path, Place::Path)?;
        let escaped_path = if is_escaped(path) { path.to_owned() } else { escape(&plain) };
        Ok(Self { text: text.to_owned(), scheme, host, escaped_path, query: query.to_owned() })
    }

    /// The host without its port and brackets.
    pub fn hostname(&self) -> &str {
        let host = match self.port() {
            "" => self.host.strip_suffix(':').unwrap_or(&self.host),
            port => &self.host[..self.host.len() - port.len() - 1],
        };
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// The port's digits, or nothing.
    pub fn port(&self) -> &str {
        match self.host.rfind(':') {
            Some(at) if !self.host[at..].contains(']') => &self.host[at + 1..],
            _ => "",
        }
    }

    /// The parameters by name. What is malformed is left out.
    pub fn query(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Ok(key), Ok(value)) = (unescape(key, Place::Query), unescape(value, Place::Query)) {
                found.entry(key).or_default().push(value);
            }
        }
        found
    }
}

impl PartialEq for Url {
    fn eq(&self, other: &Self) -> bool {
        let rest = |url: &Self| {
            let opaque = url.host.is_empty() && url.escaped_path.is_empty();
            let from = if opaque { Some(0) } else { url.text.find(['?', '#']) };
            from.map(|at| url.text[at..].to_owned())
        };
        (&self.scheme, &self.host, &self.escaped_path) == (&other.scheme, &other.host, &other.escaped_path)
            && rest(self) == rest(other)
    }
}

/// The scheme in lower case, and what follows it.
fn scheme(text: &str) -> Result<(String, &str), String> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((text[..i].to_lowercase(), &text[i + 1..])),
            _ => return Ok((String::new(), text)),
        }
    }
    Ok((String::new(), text))
}

/// The host with its port, out of `user:password@host:port`.
fn authority(text: &str) -> Result<String, String> {
    let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if user.is_some_and(|user| !user.chars().all(allowed)) {
        return Err("net/url: invalid userinfo".into());
    }
    let after = match host.strip_prefix('[') {
        Some(_) => {
            let end = host.rfind(']').ok_or("missing ']' in host")?;
            &host[end + 1..]
        }
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let fine = after.is_empty() || after.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if !fine {
        return Err(format!("invalid port {after:?} after host"));
    }
    unescape(host, Place::Host)
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Host,
    Path,
    Query,
}

fn unescape(text: &str, place: Place) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
                let byte = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                let byte = byte.and_then(|d| u8::from_str_radix(d, 16).ok()).ok_or_else(|| {
                    let shown = String::from_utf8_lossy(tail.get(..2).unwrap_or(tail));
                    format!("invalid URL escape {:?}", format!("%{shown}"))
                })?;
                if place == Place::Host && byte < 0x80 && byte != b'%' {
                    return Err(format!("invalid URL escape {:?}", format!("%{byte:02X}")));
                }
                bytes.push(byte);
                rest = &tail[2..];
            }
            b'+' if place == Place::Query => bytes.push(b' '),
            byte if place == Place::Host && byte.is_ascii() && !in_host(*byte) => {
                return Err(format!("invalid character {:?} in host name", char::from(*byte).to_string()));
            }
            byte => bytes.push(*byte),
        }
    }
    Ok(match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    })
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

fn in_host(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:[]<>\"".contains(&byte)
}

/// Whether a path is written as it may be sent.
fn is_escaped(path: &str) -> bool {
    path.bytes().all(|b| is_unreserved(b) || b"!$&'()*+,;=:@[]%/".contains(&b))
}

fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if is_unreserved(byte) || b"$&+,/:;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let url = Url::parse("https://user:pw@example.com:8443/a%20b/c?k=1&k=2&x=a+b#end").unwrap();
        assert_eq!((url.scheme.as_str(), url.host.as_str()), ("https", "example.com:8443"));
        assert_eq!((url.hostname(), url.port(), url.escaped_path.as_str()), ("example.com", "8443", "/a%20b/c"));
        assert_eq!(url.query()["k"], ["1", "2"]);
        assert_eq!(url.query()["x"], ["a b"]);
        let six = Url::parse("http://[::1]:80").unwrap();
        assert_eq!((six.hostname(), six.port(), six.escaped_path.as_str()), ("::1", "80", ""));
        assert_eq!(Url::parse("/a b").unwrap().escaped_path, "/a%20b");
    }

    #[test]
    fn what_is_no_url_is_told() {
        for (text, error) in [
            ("", "parse \"\": empty url"),
            ("../up", "parse \"../up\": invalid URI for request"),
            ("https://a:b/", "parse \"https://a:b/\": invalid port \":b\" after host"),
            ("https://a b/", "parse \"https://a b/\": invalid character \" \" in host name"),
            ("/%zz", "parse \"/%zz\": invalid URL escape \"%zz\""),
            (":x", "parse \":x\": missing protocol scheme"),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), error);
        }
    }
}
