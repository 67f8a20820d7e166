//! Answers of what is behind a proxy, changed so that one stays behind it: redirections and the links of pages.
//!
//! Source: apimachinery's `pkg/util/proxy/transport.go`. A link leads through the proxy if its path begins at the root
//! of what is behind, and it names no host, or the one behind, or the one that the client asked.

use super::kubelet::unreachable;
use super::links;
use crate::response::{self, Answer};
use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::{StreamExt, stream};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use percent_encoding::percent_decode_str;
use pintle_client::{Body, BoxError, body_from};
use std::io::Read;
use std::net::SocketAddr;

/// Larger pages go through as they are, in bytes; they are held in memory for this.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// What the server itself says of these is for browsers that use it, not what is behind it.
const OF_ORIGINS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// How the links of one answer are changed.
pub(super) struct Rewriter {
    /// The path of the proxy, which stands before all paths behind it.
    prefix: String,
    /// The names by which what is behind calls itself.
    behind: [String; 2],
    /// The host that the client asked.
    asked: String,
}

impl Rewriter {
    /// `path` is what the client asked for and `sent` what is asked for behind the proxy, both without a query.
    pub fn new(path: &str, sent: &str, behind: SocketAddr, asked: &str) -> Self {
        let prefix = path.strip_suffix(sent).unwrap_or(path).to_owned();
        let name = behind.to_string();
        let plain = name.rsplit_once(':').filter(|(_, port)| matches!(*port, "80" | "443")).map(|(host, _)| host);
        Self { prefix, behind: [plain.unwrap_or(&name).to_owned(), name], asked: asked.to_owned() }
    }

    /// The link through the proxy; nothing for one that stays as it is.
    pub fn link(&self, text: &str) -> Option<String> {
        let parts = Reference::read(text)?;
        let is_own = parts.host.is_none_or(|host| host == self.asked || self.behind.iter().any(|name| name == host));
        if !is_own || !parts.path.starts_with('/') {
            return None;
        }
        // The host that the client asked is the way through the proxy already.
        let origin = match parts.host {
            Some(host) if host == self.asked => &text[..text.len() - parts.path.len() - parts.tail.len()],
            _ => "",
        };
        let path = if parts.path.starts_with(&self.prefix) { parts.path.to_owned() } else { self.below(parts.path) };
        Some(format!("{origin}{path}{}", parts.tail))
    }

    /// The path below the proxy, without empty parts and dots, as Go's `path.Join` has it.
    fn below(&self, path: &str) -> String {
        let mut kept: Vec<&str> = Vec::new();
        for part in self.prefix.split('/').chain(path.split('/')) {
            match &*percent_decode_str(part).decode_utf8_lossy() {
                "" | "." => {}
                ".." => drop(kept.pop()),
                _ => kept.push(part),
            }
        }
        let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
        format!("/{}{end}", kept.join("/"))
    }

    /// The answer as the client is to get it. What has no page in it goes through as it comes.
    pub async fn answer(&self, answer: Response<Body>, is_head: bool, behind: SocketAddr) -> Answer {
        let (mut parts, body) = answer.into_parts();
        for name in OF_ORIGINS {
            parts.headers.remove(name);
        }
        if let Some(location) = parts.headers.get(LOCATION) {
            let new = location.to_str().ok().and_then(|text| self.link(text));
            if let Some(value) = new.and_then(|new| HeaderValue::try_from(new).ok()) {
                parts.headers.insert(LOCATION, value);
            }
            return Ok(Response::from_parts(parts, body));
        }
        let bare = is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let encoding = parts.headers.get(CONTENT_ENCODING).map_or(&b""[..], |value| value.as_bytes());
        let packed = match encoding {
            b"" => false,
            b"gzip" => true,
            _ => return Ok(Response::from_parts(parts, body)),
        };
        if bare || !is_page(&parts.headers) {
            return Ok(Response::from_parts(parts, body));
        }
        let body = match held(body).await.map_err(|e| unreachable(behind, e))? {
            Held::All(page) => match self.page(&page, packed) {
                Some(new) => {
                    parts.headers.remove(CONTENT_LENGTH);
                    body_from(new)
                }
                None => body_from(page),
            },
            Held::More(body) => body,
        };
        Ok(Response::from_parts(parts, body))
    }

    fn page(&self, page: &[u8], packed: bool) -> Option<Bytes> {
        if !packed {
            return Some(links::rewritten(page, |text| self.link(text)).into());
        }
        let mut plain = Vec::new();
        GzDecoder::new(page).take(MAX_PAGE_BYTES as u64 + 1).read_to_end(&mut plain).ok()?;
        if plain.len() > MAX_PAGE_BYTES {
            return None;
        }
        response::gzip(&links::rewritten(&plain, |text| self.link(text)))
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().is_some_and(|media| media.trim() == "text/html")
}

/// A body that was read as far as it may be held.
enum Held {
    All(Bytes),
    /// It was longer: the same body, what was read first.
    More(Body),
}

async fn held(mut body: Body) -> Result<Held, BoxError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read.extend_from_slice(&data);
        if read.len() > MAX_PAGE_BYTES {
            let first = stream::once(std::future::ready(Ok(Frame::data(read.freeze()))));
            let rest = body.into_data_stream().map(|data| data.map(Frame::data));
            return Ok(Held::More(Body::new(StreamBody::new(first.chain(rest)))));
        }
    }
    Ok(Held::All(read.freeze()))
}

/// The parts of a link (RFC 3986, 4.1).
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    host: Option<&'a str>,
    path: &'a str,
    /// The query and the fragment, with what stands before them.
    tail: &'a str,
}

impl<'a> Reference<'a> {
    /// Nothing for what has no path (`mailto:…`, `data:…`), or is no link.
    fn read(text: &'a str) -> Option<Self> {
        if text.bytes().any(|c| c.is_ascii_control()) {
            return None;
        }
        let (head, tail) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
        let colon = head.find([':', '/']).filter(|at| head[*at..].starts_with(':'));
        let (scheme, rest) = colon.map_or((None, head), |at| (Some(&head[..at]), &head[at + 1..]));
        if scheme.is_some_and(|scheme| !is_scheme(scheme) || !rest.starts_with('/')) {
            return None;
        }
        // Three slashes without a scheme are a path.
        let authority = rest.strip_prefix("//").filter(|_| scheme.is_some() || !rest.starts_with("///"));
        let (host, path) = match authority {
            None => (None, rest),
            Some(rest) => {
                let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(host).filter(|host| !host.is_empty()), path)
            }
        };
        let is_encoded = |at: usize| path.get(at + 1..at + 3).is_some_and(|n| n.bytes().all(|c| c.is_ascii_hexdigit()));
        let well = path.match_indices('%').all(|(at, _)| is_encoded(at));
        well.then_some(Self { host, path, tail })
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "/api/v1/namespaces/a/pods/p:8080/proxy";

    fn rewriter() -> Rewriter {
        let path = format!("{PROXY}/x/y/");
        Rewriter::new(&path, "/x/y/", "10.42.0.5:8080".parse().unwrap(), "api.example:6443")
    }

    fn check(link: &str, expected: &str) {
        let got = rewriter().link(link).unwrap_or_else(|| link.to_owned());
        assert_eq!(got, expected.replace("{}", PROXY), "{link}");
    }

    #[test]
    fn links_of_the_host_behind_lead_through_the_proxy() {
        check("/", "{}/");
        check("/a/b?q=/c#/d", "{}/a/b?q=/c#/d");
        check("/a/b/", "{}/a/b/");
        check("/a//./b/../c", "{}/a/c");
        check("/%41%2Fb", "{}/%41%2Fb");
        check("http://10.42.0.5:8080/a", "{}/a");
        check("//10.42.0.5:8080/a", "{}/a");
        check("https://api.example:6443/a", "https://api.example:6443{}/a");
        check(&format!("{PROXY}/a"), "{}/a");
        check(&format!("http://10.42.0.5:8080{PROXY}/a"), "{}/a");
    }

    #[test]
    fn other_links_stay_as_they_are() {
        let others = [
            "",
            "a/b",
            "../a",
            "?q",
            "#f",
            "http://other/a",
            "//other/a",
            "mailto:a@b",
            "data:text/plain,/a",
            "http://10.42.0.5:8080",
            "javascript:x('/a')",
            "/a%zz",
            "/a\nb",
            "1:/a",
            "http://u@10.42.0.5:8080/a",
        ];
        for link in others {
            check(link, link);
        }
    }

    #[test]
    fn usual_ports_may_be_left_out() {
        let rewriter = Rewriter::new("/proxy/", "/", "10.0.0.1:80".parse().unwrap(), "");
        assert_eq!(rewriter.link("http://10.0.0.1/a").as_deref(), Some("/proxy/a"));
        assert_eq!(rewriter.link("http://10.0.0.1:80/a").as_deref(), Some("/proxy/a"));
        assert_eq!(rewriter.link("http://10.0.0.1:81/a"), None);
    }

    async fn passed(headers: &[(&str, &str)], body: impl Into<Bytes>) -> (HeaderMap, Bytes) {
        let mut answer = Response::builder();
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let answer = answer.body(body_from(body)).unwrap();
        let answer = rewriter().answer(answer, false, "10.42.0.5:8080".parse().unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        (parts.headers, pintle_client::collect(body, 64 << 20).await.unwrap())
    }

    #[tokio::test]
    async fn only_pages_are_changed_packed_ones_too() {
        let (page, new) = ("<a href='/x'>", format!("<a href='{PROXY}/x'>"));
        let (headers, body) =
            passed(&[("content-type", "text/html; charset=utf-8"), ("content-length", "13")], page).await;
        assert_eq!((&body[..], headers.get("content-length")), (new.as_bytes(), None));
        let (_, body) = passed(&[("content-type", "text/plain")], page).await;
        assert_eq!(body, page);
        let gzip = [("content-type", "text/html"), ("content-encoding", "gzip")];
        let (_, body) = passed(&gzip, response::gzip(page.as_bytes()).unwrap()).await;
        let mut plain = String::new();
        GzDecoder::new(&body[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, new);
        assert_eq!(passed(&gzip, "no gzip").await.1, "no gzip");
        let (_, body) = passed(&[("content-type", "text/html"), ("content-encoding", "br")], page).await;
        assert_eq!(body, page);
        let large = page.repeat(MAX_PAGE_BYTES / page.len() + 1);
        let (_, body) = passed(&[("content-type", "text/html")], large.clone()).await;
        assert!(body == large, "{} bytes", body.len());
        let (headers, _) = passed(&[("access-control-allow-origin", "*"), ("x-other", "1")], "").await;
        assert_eq!((headers.len(), &headers["x-other"]), (1, &"1".parse::<HeaderValue>().unwrap()));
    }
}
