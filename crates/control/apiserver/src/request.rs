//! What a request is for: its path and method read as verb, resource, namespace and name.
//!
//! Source: apiserver's `pkg/endpoints/request/requestinfo.go`.

use crate::query::Query;
use http::Method;
use percent_encoding::percent_decode_str;
use pintle_auth::authorization::Requirement;
use pintle_types::selector::{FieldSelector, LabelSelector, Operator};

/// The parts of a path and the verb, as authorization speaks of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub verb: &'static str,
    pub path: String,
    /// Nothing when the path names no resource (discovery, health, …).
    pub resource: Option<ResourceRequest>,
}

/// A path under `/api/VERSION/` or `/apis/GROUP/VERSION/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourceRequest {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource, still encoded, without the first slash (proxies use it).
    pub rest: Option<String>,
    /// What the request is limited to by its selectors, as authorization sees it.
    pub fields: Vec<Requirement>,
    pub labels: Vec<Requirement>,
    /// The name as authorization sees it: a list of one name is about that name.
    pub authorized_name: String,
}

/// Longer paths have no meaning here.
const MAX_SEGMENTS: usize = 32;

impl RequestInfo {
    /// Reads a request line. `query` decides between list and watch.
    pub fn new(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { verb: http_verb(method), path: path.to_owned(), resource: None };
        let trimmed = path.trim_matches('/');
        let segments: Vec<&str> = trimmed.splitn(MAX_SEGMENTS, '/').collect();
        let (group, rest) = match segments.as_slice() {
            ["api", rest @ ..] if rest.len() >= 2 => ("", rest),
            ["apis", group, rest @ ..] if rest.len() >= 2 => (*group, rest),
            _ => return info,
        };
        let (version, mut rest) = (rest[0], &rest[1..]);
        info.verb = resource_verb(method);
        if rest[0] == "watch" && rest.len() > 1 {
            info.verb = "watch";
            rest = &rest[1..];
        }
        let mut resource = split(rest);
        resource.group = decoded(group);
        resource.version = decoded(version);
        if path.ends_with('/') && resource.rest.is_none() && !resource.subresource.is_empty() {
            resource.rest = Some(String::new());
        }
        resource.authorized_name.clone_from(&resource.name);
        info.verb = collection_verb(info.verb, &mut resource, query);
        if matches!(info.verb, "list" | "watch" | "deletecollection") {
            resource.fields = query.get("fieldSelector").map(field_requirements).unwrap_or_default();
            resource.labels = query.get("labelSelector").map(label_requirements).unwrap_or_default();
        }
        info.resource = Some(resource);
        info
    }
}

/// The parts of a field selector; none when it can't be read, which is refused later.
pub(crate) fn field_requirements(text: &str) -> Vec<Requirement> {
    let parsed = FieldSelector::parse(text).unwrap_or_default();
    let part = |r: pintle_types::selector::FieldRequirement| {
        let operator = if r.negated { "NotIn" } else { "In" }.to_owned();
        Requirement { key: r.field, operator, values: vec![r.value] }
    };
    parsed.requirements.into_iter().map(part).collect()
}

/// The parts of a label selector; none when it can't be read, which is refused later.
pub(crate) fn label_requirements(text: &str) -> Vec<Requirement> {
    let parsed = LabelSelector::parse(text).unwrap_or_default();
    // Numeric comparisons can't be told to authorizers: leaving them out only makes the question wider.
    let part = |r: pintle_types::selector::Requirement| {
        let operator = match r.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            _ => return None,
        };
        Some(Requirement { key: r.key, operator: operator.to_owned(), values: r.values })
    };
    parsed.requirements.into_iter().filter_map(part).collect()
}

fn http_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "HEAD" => "head",
        "OPTIONS" => "options",
        _ => "",
    }
}

fn resource_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn collection_verb(verb: &'static str, resource: &mut ResourceRequest, query: &Query) -> &'static str {
    if !resource.name.is_empty() {
        return verb;
    }
    let verb = match verb {
        "get" if query.flag("watch") => "watch",
        "get" => "list",
        "delete" => "deletecollection",
        other => other,
    };
    if matches!(verb, "list" | "watch" | "deletecollection")
        && let Some(selector) = query.get("fieldSelector")
        && let Some(name) = selector.split(',').find_map(|part| part.strip_prefix("metadata.name="))
    {
        resource.authorized_name = name.trim_start_matches('=').to_owned();
    }
    verb
}

/// Splits what follows the version.
fn split(parts: &[&str]) -> ResourceRequest {
    let mut request = ResourceRequest::default();
    let mut parts = parts;
    if parts[0] == "namespaces" && parts.len() > 1 {
        request.namespace = decoded(parts[1]);
        if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
            parts = &parts[2..];
        }
    }
    request.resource = decoded(parts[0]);
    request.name = parts.get(1).map(|s| decoded(s)).unwrap_or_default();
    request.subresource = parts.get(2).map(|s| decoded(s)).unwrap_or_default();
    if parts.len() > 3 {
        request.rest = Some(parts[3..].join("/"));
    }
    request
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, uri: &str, expected: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let info = RequestInfo::new(&method, path, &Query::parse(query));
        let shown = match info.resource {
            None => format!("{} {}", info.verb, info.path),
            Some(r) => format!(
                "{} {}/{} ns={} {}/{}/{} rest={:?} as={}",
                info.verb,
                r.group,
                r.version,
                r.namespace,
                r.resource,
                r.name,
                r.subresource,
                r.rest,
                r.authorized_name
            ),
        };
        assert_eq!(shown, expected, "{method} {uri}");
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        check(Method::GET, "/healthz", "get /healthz");
        check(Method::GET, "/api/v1", "get /api/v1");
        check(Method::GET, "/apis/apps/v1", "get /apis/apps/v1");
        check(Method::GET, "/api/v1/pods", "list /v1 ns= pods// rest=None as=");
        check(Method::GET, "/api/v1/pods?watch=1", "watch /v1 ns= pods// rest=None as=");
        check(Method::GET, "/api/v1/watch/pods", "watch /v1 ns= pods// rest=None as=");
        check(Method::GET, "/api/v1/namespaces", "list /v1 ns= namespaces// rest=None as=");
        check(Method::GET, "/api/v1/namespaces/a", "get /v1 ns=a namespaces/a/ rest=None as=a");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces/a/finalize rest=None as=a");
        check(Method::POST, "/api/v1/namespaces/a/pods", "create /v1 ns=a pods// rest=None as=");
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection apps/v1 ns=a deployments// rest=None as=",
        );
        check(
            Method::GET,
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx",
            "list /v1 ns=a pods// rest=None as=x",
        );
        check(
            Method::GET,
            "/api/v1/namespaces/a/services/b:80/proxy/x/y%2Fz",
            "get /v1 ns=a services/b:80/proxy rest=Some(\"x/y%2Fz\") as=b:80",
        );
    }
}
