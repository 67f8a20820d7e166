//! In which form the client wants the answer: the `Accept` header against what can be served.

use crate::response::{JSON, YAML};
use http::HeaderMap;
use http::header::ACCEPT;
use pintle_types::status::Details;
use pintle_types::{Reason, Status};
use std::borrow::Cow;

/// What the answer shows of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The objects themselves.
    Whole,
    /// `Table` of that version of `meta.k8s.io`.
    Table(&'static str),
    /// `PartialObjectMetadata` or its list, of that version of `meta.k8s.io`.
    Metadata(&'static str),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Written {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
            Self::Cbor => CBOR,
        }
    }
}

/// The negotiated form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub written: Written,
    pub view: View,
}

impl Format {
    pub const JSON: Self = Self { written: Written::Json, view: View::Whole };
}

/// The kinds of answer, which differ in what they can be shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One object.
    Object,
    List,
    /// Something that is no object of a resource: no tables.
    Other,
}

const TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const STREAMS: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// Longer lists of acceptable types are cut.
const MAX_CLAUSES: usize = 64;

/// One part of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    quality: u16,
}

/// What is offered beyond JSON and YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offers {
    /// Objects of built-in kinds; the metadata of objects is always offered in protobuf.
    pub protobuf: bool,
    /// Upstream's alpha feature `CBORServingAndStorage`.
    pub cbor: bool,
}

impl Offers {
    /// As messages list them.
    pub fn media_types(self) -> String {
        let mut types = vec![JSON, YAML];
        types.extend(self.protobuf.then_some(PROTOBUF));
        types.extend(self.cbor.then_some(CBOR));
        types.join(", ")
    }
}

/// Chooses the form among those that built-in kinds have.
pub(crate) fn negotiate(headers: &HeaderMap, shape: Shape) -> Result<Format, Box<Status>> {
    negotiate_among(headers, shape, Offers { protobuf: true, cbor: false })
}

/// Chooses the form: the first that can be served, in the order of quality, then of the header; wildcards come last.
pub(crate) fn negotiate_among(headers: &HeaderMap, shape: Shape, offers: Offers) -> Result<Format, Box<Status>> {
    let text = accept(headers);
    // What nearly all send who want JSON.
    if matches!(&*text, "" | JSON | "*/*") {
        return Ok(Format::JSON);
    }
    let clauses = preferred(&text);
    let known = |c: &Clause<'_>| {
        matches!(c.media, JSON | YAML | "*/*" | "application/*" | PROTOBUF) || (c.media == CBOR && offers.cbor)
    };
    if !clauses.iter().any(known) {
        return Err(not_acceptable_by_route(shape));
    }
    clauses.iter().find_map(|c| format(c, shape, offers)).ok_or_else(|| {
        let message = format!("only the following media types are accepted: {}", offers.media_types());
        Box::new(Status::failure(406, Reason::NotAcceptable, message))
    })
}

/// Which of some media types the client prefers; nothing if it takes none of them.
pub(crate) fn negotiate_type(headers: &HeaderMap, offered: &[&str]) -> Option<usize> {
    let text = accept(headers);
    if text.is_empty() {
        return Some(0);
    }
    let fits = |clause: &Clause<'_>| match clause.media {
        "*/*" | "application/*" => Some(0),
        media => offered.iter().position(|offer| *offer == media),
    };
    preferred(&text).iter().find_map(fits)
}

/// The parts of an `Accept` header in the order of quality, then of the header; wildcards come last.
fn preferred(text: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = text.split(',').take(MAX_CLAUSES).map(clause).collect();
    let wildcards = |media: &str| media.bytes().filter(|byte| *byte == b'*').count();
    clauses.sort_by_key(|c| (std::cmp::Reverse(c.quality), wildcards(c.media)));
    clauses
}

/// What typed Go clients speak.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Upstream's binary form of JSON, where it is enabled (KEP-4222).
pub(crate) const CBOR: &str = "application/cbor";

/// Whether the client asks for aggregated discovery, before any other form.
pub(crate) fn wants_aggregated_discovery(headers: &HeaderMap) -> bool {
    let text = accept(headers);
    let mut clauses = text.split(',').take(MAX_CLAUSES).map(clause);
    clauses.any(|c| {
        c.media == "application/json"
            && c.group == "apidiscovery.k8s.io"
            && c.kind == "APIGroupDiscoveryList"
            && c.version == "v2"
    })
}

fn accept(headers: &HeaderMap) -> Cow<'_, str> {
    let mut values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let first = values.next().unwrap_or_default();
    values.fold(Cow::Borrowed(first), |all, next| format!("{all},{next}").into())
}

fn clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let mut out = Clause { media, group: "", version: "", kind: "", quality: 1000 };
    for part in parts {
        match part.split_once('=') {
            Some(("g", value)) => out.group = value,
            Some(("v", value)) => out.version = value,
            Some(("as", value)) => out.kind = value,
            Some(("q", value)) => {
                // Quality is a fraction of three digits (RFC 9110, 12.4.2); it is compared in thousandths.
                out.quality = value.parse::<f32>().map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16);
            }
            _ => {}
        }
    }
    out
}

fn format(clause: &Clause<'_>, shape: Shape, offers: Offers) -> Option<Format> {
    let written = match clause.media {
        JSON | "*/*" | "application/*" => Written::Json,
        YAML => Written::Yaml,
        PROTOBUF => Written::Protobuf,
        CBOR if offers.cbor => Written::Cbor,
        _ => return None,
    };
    let version = match clause.version {
        "v1" => Some("v1"),
        "v1beta1" => Some("v1beta1"),
        _ => None,
    };
    let view = match (clause.kind, clause.group, shape) {
        ("", ..) if written == Written::Protobuf && !offers.protobuf => return None,
        ("", ..) => View::Whole,
        (_, _, Shape::Other) => return None,
        // Tables have no message.
        ("Table", "meta.k8s.io", _) if written != Written::Protobuf => View::Table(version?),
        ("PartialObjectMetadata", "meta.k8s.io", Shape::Object) => View::Metadata(version?),
        ("PartialObjectMetadataList", "meta.k8s.io", Shape::List) => View::Metadata(version?),
        _ => return None,
    };
    Some(Format { written, view })
}

/// The watch of a list: its objects come one by one, so both metadata forms mean the same.
pub(crate) fn negotiate_watch(headers: &HeaderMap, offers: Offers) -> Result<Format, Box<Status>> {
    negotiate_among(headers, Shape::Object, offers).or_else(|_| negotiate_among(headers, Shape::List, offers))
}

fn not_acceptable_by_route(shape: Shape) -> Box<Status> {
    let streams = if shape == Shape::List { format!(", {STREAMS}") } else { String::new() };
    let message = format!("406: Not Acceptable\n\nAvailable representations: {TYPES}{streams}");
    Box::new(Status::failure(406, Reason::NotAcceptable, message).with_details(Details::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &'static str, shape: Shape, expected: Result<Format, &str>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, http::HeaderValue::from_static(accept));
        let got = negotiate(&headers, shape).map_err(|s| s.message.clone());
        match expected {
            Ok(format) => assert_eq!(got, Ok(format), "{accept}"),
            Err(start) => assert!(got.as_ref().is_err_and(|m| m.starts_with(start)), "{accept}: {got:?}"),
        }
    }

    #[test]
    fn custom_resources_have_only_their_metadata_in_protobuf() {
        let offers = Offers { protobuf: false, cbor: true };
        let check = |accept: &'static str| {
            let headers = HeaderMap::from_iter([(ACCEPT, http::HeaderValue::from_static(accept))]);
            negotiate_among(&headers, Shape::List, offers).map(|f| f.written).map_err(|s| s.message.clone())
        };
        let types = "application/json, application/yaml, application/cbor";
        assert_eq!(
            check("application/vnd.kubernetes.protobuf").unwrap_err(),
            format!("only the following media types are accepted: {types}")
        );
        assert_eq!(check("application/vnd.kubernetes.protobuf, application/json"), Ok(Written::Json));
        assert_eq!(check("application/cbor, application/json"), Ok(Written::Cbor));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
        assert_eq!(check(metadata), Ok(Written::Protobuf));
    }

    #[test]
    fn the_first_form_that_can_be_served_is_chosen() {
        let table = Format { written: Written::Json, view: View::Table("v1") };
        let whole = |written| Format { written, view: View::Whole };
        check("", Shape::Object, Ok(Format::JSON));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Shape::List, Ok(table));
        let binary = whole(Written::Protobuf);
        check("application/vnd.kubernetes.protobuf, application/json", Shape::List, Ok(binary));
        check("application/json, application/vnd.kubernetes.protobuf", Shape::List, Ok(Format::JSON));
        check("application/vnd.kubernetes.protobuf;q=0.5, application/json", Shape::List, Ok(Format::JSON));
        check("*/*, application/vnd.kubernetes.protobuf", Shape::List, Ok(binary));
        let tables = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json";
        check(tables, Shape::List, Ok(Format::JSON));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        check(metadata, Shape::Object, Ok(Format { written: Written::Protobuf, view: View::Metadata("v1") }));
        check("application/cbor", Shape::List, Err("406: Not Acceptable"));
        check("application/cbor, application/json", Shape::List, Ok(Format::JSON));
        check("application/yaml", Shape::List, Ok(whole(Written::Yaml)));
        check("application/yaml;q=0.1, application/json;q=0.8", Shape::List, Ok(Format::JSON));
        check("application/json;as=Table;v=v9;g=meta.k8s.io", Shape::List, Err("only the following"));
        check("application/vnd.kubernetes.protobuf", Shape::List, Ok(whole(Written::Protobuf)));
        check("text/html", Shape::List, Err("406: Not Acceptable\n\nAvailable"));
    }
}
