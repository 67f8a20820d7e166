//! Rewrites the links in pages: which attributes of which tags are links, and where they stand.
//!
//! A page keeps its own spelling; only the values of links change. Source: the tokenization of the HTML standard, and
//! the attributes that apimachinery's `pkg/util/proxy/transport.go` rewrites.

use std::ops::Range;

/// Tags with the attributes that hold links.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// What stands in these is text, up to their end tag.
const TEXTS: [&str; 9] = ["iframe", "noembed", "noframes", "noscript", "script", "style", "textarea", "title", "xmp"];

/// The page with every link replaced for which `link` gives another.
pub(super) fn rewritten(page: &[u8], link: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut copied = 0;
    let mut at = 0;
    while let Some(tag) = next_tag(page, &mut at) {
        let names = LINKS.iter().find(|(name, _)| tag.name.eq_ignore_ascii_case(name.as_bytes()));
        let mut cursor = tag.attributes;
        while let Some(attribute) = next_attribute(page, &mut cursor) {
            let is_link = |name: &&str| page[attribute.name.clone()].eq_ignore_ascii_case(name.as_bytes());
            if names.is_none_or(|(_, names)| !names.iter().any(is_link)) {
                continue;
            }
            let value = std::str::from_utf8(&page[attribute.value.clone()]).ok();
            if let Some(new) = value.and_then(|value| replaced(value, &link)) {
                out.extend_from_slice(&page[copied..attribute.value.start]);
                out.extend_from_slice(new.as_bytes());
                copied = attribute.value.end;
            }
        }
        at = cursor;
        skip_text(page, tag.name, &mut at);
    }
    out.extend_from_slice(&page[copied..]);
    out
}

/// The new value of an attribute as it stands in a page. The query and the fragment stay as they are.
fn replaced(value: &str, link: impl Fn(&str) -> Option<String>) -> Option<String> {
    // A number sign after an ampersand begins a character reference.
    let begins_tail = |(at, c): &(usize, char)| *c == '?' || (*c == '#' && !value[..*at].ends_with('&'));
    let (head, tail) = value.split_at(value.char_indices().find(begins_tail).map_or(value.len(), |(at, _)| at));
    let new = link(&plain(head))?;
    Some(escaped(&new) + tail)
}

/// The usual character references of links, read.
fn plain(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let known = [("&#47;", "/"), ("&#x2F;", "/"), ("&#x2f;", "/"), ("&sol;", "/"), ("&colon;", ":"), ("&#58;", ":")];
    let quotes = [("&#39;", "'"), ("&apos;", "'"), ("&#34;", "\""), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">")];
    let text = known.iter().chain(&quotes).fold(text.to_owned(), |text, (name, c)| text.replace(name, c));
    text.replace("&amp;", "&")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

struct Tag<'a> {
    name: &'a [u8],
    /// Where its attributes begin.
    attributes: usize,
}

/// The next start tag from `at` on.
fn next_tag<'a>(page: &'a [u8], at: &mut usize) -> Option<Tag<'a>> {
    loop {
        let open = *at + find(&page[*at..], b"<")?;
        let rest = &page[open + 1..];
        if rest.starts_with(b"!--") {
            // The dashes of the beginning may be those of the end: `<!-->` is a comment.
            *at = open + 3 + find(&page[open + 3..], b"->")? + 2;
        } else if matches!(rest.first(), Some(b'!' | b'?' | b'/')) {
            *at = open + 1 + find(rest, b">")? + 1;
        } else if rest.first().is_some_and(u8::is_ascii_alphabetic) {
            let length = rest.iter().position(|c| ends_name(*c)).unwrap_or(rest.len());
            return Some(Tag { name: &rest[..length], attributes: open + 1 + length });
        } else {
            *at = open + 1;
        }
    }
}

fn ends_name(c: u8) -> bool {
    c.is_ascii_whitespace() || matches!(c, b'/' | b'>')
}

struct Attribute {
    name: Range<usize>,
    /// Without its quotes.
    value: Range<usize>,
}

/// The next attribute with a value; at the tag's end `at` stands behind it.
fn next_attribute(page: &[u8], at: &mut usize) -> Option<Attribute> {
    loop {
        *at = skip(page, *at, |c| c.is_ascii_whitespace() || c == b'/');
        if *page.get(*at)? == b'>' {
            *at += 1;
            return None;
        }
        let start = *at;
        // An equals sign can begin a name, not be in it.
        *at = skip(page, start + 1, |c| !ends_name(c) && c != b'=');
        let name = start..*at;
        let sign = skip(page, *at, |c| c.is_ascii_whitespace());
        if page.get(sign) != Some(&b'=') {
            continue;
        }
        let begin = skip(page, sign + 1, |c| c.is_ascii_whitespace());
        let value = match page.get(begin) {
            Some(quote @ (b'"' | b'\'')) => begin + 1..skip(page, begin + 1, |c| c != *quote),
            _ => begin..skip(page, begin, |c| !c.is_ascii_whitespace() && c != b'>'),
        };
        let quoted = value.start > begin;
        // A page that ends within a tag has no such tag.
        if value.end >= page.len() {
            *at = page.len();
            return None;
        }
        *at = value.end + usize::from(quoted);
        return Some(Attribute { name, value });
    }
}

fn skip(page: &[u8], from: usize, what: impl Fn(u8) -> bool) -> usize {
    let from = from.min(page.len());
    from + page[from..].iter().position(|c| !what(*c)).unwrap_or(page.len() - from)
}

/// Goes to the end tag of an element that holds only text.
fn skip_text(page: &[u8], name: &[u8], at: &mut usize) {
    if name.eq_ignore_ascii_case(b"plaintext") {
        *at = page.len();
    }
    if !TEXTS.iter().any(|text| name.eq_ignore_ascii_case(text.as_bytes())) {
        return;
    }
    let mut from = (*at).min(page.len());
    while let Some(found) = find(&page[from..], b"</") {
        let end = from + found + 2;
        let is_own = page.get(end..end + name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name));
        if is_own && page.get(end + name.len()).is_none_or(|c| ends_name(*c)) {
            *at = end - 2;
            return;
        }
        from = end;
    }
    *at = page.len();
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str, expected: &str) {
        let link = |text: &str| text.starts_with('/').then(|| format!("/P{text}"));
        assert_eq!(String::from_utf8(rewritten(page.as_bytes(), link)).unwrap(), expected);
    }

    #[test]
    fn links_are_found_where_browsers_find_them() {
        check(r#"<a href="/x">/x</a>"#, r#"<a href="/P/x">/x</a>"#);
        check(
            "<A HREF = '/x' class=c><img alt=\"/no\" src=/y/>",
            "<A HREF = '/P/x' class=c><img alt=\"/no\" src=/P/y/>",
        );
        check(r#"<a href="x"><a href><a title="<a href='/n'>">"#, r#"<a href="x"><a href><a title="<a href='/n'>">"#);
        check(r#"<form action="/f?a=1&b=2#c">"#, r#"<form action="/P/f?a=1&b=2#c">"#);
        check(r#"<a href="/a&amp;b&#47;c">"#, r#"<a href="/P/a&amp;b/c">"#);
        check(r#"<div href="/x"><video poster=/p src="/v">"#, r#"<div href="/x"><video poster=/P/p src="/P/v">"#);
    }

    #[test]
    fn what_only_looks_like_a_link_stays() {
        check(r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/P/y">"#);
        let script = r#"<script src="/s.js">'<a href="/x">'</Script ><a href="/y">"#;
        check(script, &script.replace("/s.js", "/P/s.js").replace("\"/y\"", "\"/P/y\""));
        check("<title><a href='/x'></title>", "<title><a href='/x'></title>");
        check("1 < 2 <a href=\"/x", "1 < 2 <a href=\"/x");
        check("<!doctype html><?x <a href='/x'>", "<!doctype html><?x <a href='/x'>");
        check("<plaintext><a href='/x'>", "<plaintext><a href='/x'>");
    }

    #[test]
    fn broken_pages_are_read_to_their_end() {
        let mut noise = pintle_noise::Noise::new(17);
        let seeds = ["<a href='/x'>", "<script>", "</script", "<!--", "-->", "=\"", "<img src=/y ", ">", "\u{e9}&#47;"];
        for _ in 0..2000 {
            let page: String = (0..12).map(|_| seeds[noise.below(seeds.len())]).collect();
            let kept = rewritten(page.as_bytes(), |_| None);
            assert_eq!(kept, page.as_bytes());
        }
    }
}
