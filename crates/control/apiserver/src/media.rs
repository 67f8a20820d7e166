//! In which form the client wants the answer: the `Accept` header against what can be served.

use crate::response::{JSON, YAML};
use http::HeaderMap;
use http::header::ACCEPT;
use pintle_types::status::Details;
use pintle_types::{Reason, Status};

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
}

impl Written {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
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

/// Chooses the form. Clients that take both protobuf and JSON are served JSON: objects are kept in it.
pub(crate) fn negotiate(headers: &HeaderMap, shape: Shape) -> Result<Format, Box<Status>> {
    let text = accept(headers);
    if text.is_empty() {
        return Ok(Format::JSON);
    }
    let mut clauses: Vec<Clause<'_>> = text.split(',').take(MAX_CLAUSES).map(clause).collect();
    clauses.sort_by_key(|c| std::cmp::Reverse(c.quality));
    let known = |c: &Clause<'_>| matches!(c.media, JSON | YAML | "*/*" | PROTOBUF);
    if !clauses.iter().any(known) && !clauses.iter().any(|c| c.media == "application/*") {
        return Err(not_acceptable_by_route(shape));
    }
    let protobuf = || clauses.iter().any(|c| c.media == PROTOBUF && c.kind.is_empty());
    let binary = || protobuf().then_some(Format { written: Written::Protobuf, view: View::Whole });
    clauses.iter().find_map(|c| format(c, shape)).or_else(binary).ok_or_else(|| {
        let message = format!("only the following media types are accepted: {TYPES}");
        Box::new(Status::failure(406, Reason::NotAcceptable, message))
    })
}

/// What typed Go clients speak.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Whether answers can be in no other form than protobuf.
pub(crate) fn takes_only_protobuf(headers: &HeaderMap) -> bool {
    negotiate(headers, Shape::Other).is_ok_and(|format| format.written == Written::Protobuf)
}

/// What is served in JSON and YAML alone: custom resources.
pub(crate) const TEXT_TYPES: &str = "application/json, application/yaml";

/// Refuses a client that takes only protobuf, before anything is done for it.
pub(crate) fn refuse_only_protobuf(headers: &HeaderMap) -> Result<(), Box<Status>> {
    if !takes_only_protobuf(headers) {
        return Ok(());
    }
    let message = format!("only the following media types are accepted: {TEXT_TYPES}");
    Err(Box::new(Status::failure(406, Reason::NotAcceptable, message)))
}

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

fn accept(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    values.join(",")
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

fn format(clause: &Clause<'_>, shape: Shape) -> Option<Format> {
    let written = match clause.media {
        JSON | "*/*" | "application/*" => Written::Json,
        YAML => Written::Yaml,
        _ => return None,
    };
    let version = match clause.version {
        "v1" => Some("v1"),
        "v1beta1" => Some("v1beta1"),
        _ => None,
    };
    let view = match (clause.kind, clause.group, shape) {
        ("", ..) => View::Whole,
        (_, _, Shape::Other) => return None,
        ("Table", "meta.k8s.io", _) => View::Table(version?),
        ("PartialObjectMetadata", "meta.k8s.io", Shape::Object) => View::Metadata(version?),
        ("PartialObjectMetadataList", "meta.k8s.io", Shape::List) => View::Metadata(version?),
        _ => return None,
    };
    Some(Format { written, view })
}

/// The watch of a list: its objects come one by one, so both metadata forms mean the same.
pub(crate) fn negotiate_watch(headers: &HeaderMap) -> Result<Format, Box<Status>> {
    negotiate(headers, Shape::Object).or_else(|_| negotiate(headers, Shape::List))
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
    fn the_first_form_that_can_be_served_is_chosen() {
        let table = Format { written: Written::Json, view: View::Table("v1") };
        let whole = |written| Format { written, view: View::Whole };
        check("", Shape::Object, Ok(Format::JSON));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Shape::List, Ok(table));
        check("application/vnd.kubernetes.protobuf, application/json", Shape::List, Ok(Format::JSON));
        check("application/yaml", Shape::List, Ok(whole(Written::Yaml)));
        check("application/yaml;q=0.1, application/json;q=0.8", Shape::List, Ok(Format::JSON));
        check("application/json;as=Table;v=v9;g=meta.k8s.io", Shape::List, Err("only the following"));
        check("application/vnd.kubernetes.protobuf", Shape::List, Ok(whole(Written::Protobuf)));
        check("text/html", Shape::List, Err("406: Not Acceptable\n\nAvailable"));
    }
}
