//! The paths and queries of requests.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write;

/// Everything but the characters that RFC 3986 never needs encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// In a path also the colon stands for itself (`system:node`).
const ENCODED_IN_PATH: &AsciiSet = &ENCODED.remove(b':');

/// The path of a resource, of an object or of a subresource. Empty parts are left out.
pub fn resource_path(
    group: &str,
    version: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    subresource: &str,
) -> String {
    let mut path = String::with_capacity(96);
    if group.is_empty() {
        path.push_str("/api/");
    } else {
        path.push_str("/apis/");
        path.push_str(group);
        path.push('/');
    }
    path.push_str(version);
    if !namespace.is_empty() {
        path.push_str("/namespaces");
        segment(&mut path, namespace);
    }
    segment(&mut path, resource);
    segment(&mut path, name);
    for part in subresource.split('/') {
        segment(&mut path, part);
    }
    path
}

fn segment(path: &mut String, text: &str) {
    if !text.is_empty() {
        // Writing to a string can't fail.
        let _ = write!(path, "/{}", utf8_percent_encode(text, ENCODED_IN_PATH));
    }
}

/// A query under construction, behind a path.
pub(crate) struct Query {
    uri: String,
    any: bool,
}

impl Query {
    pub fn new(path: &str) -> Self {
        Self { uri: path.to_owned(), any: path.contains('?') }
    }

    /// Adds a parameter, unless its value is empty.
    pub fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.uri.push(if self.any { '&' } else { '?' });
            self.any = true;
            // Writing to a string can't fail.
            let _ = write!(self.uri, "{name}={}", utf8_percent_encode(value, ENCODED));
        }
    }

    pub fn uri(self) -> String {
        self.uri
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_group_namespace_object_and_subresource() {
        for (parts, expected) in [
            (("", "v1", "pods", "default", "a", "status"), "/api/v1/namespaces/default/pods/a/status"),
            (("", "v1", "nodes", "", "", ""), "/api/v1/nodes"),
            (("apps", "v1", "deployments", "d", "x/../y", ""), "/apis/apps/v1/namespaces/d/deployments/x%2F..%2Fy"),
            (("rbac.x", "v1", "clusterroles", "", "system:node", ""), "/apis/rbac.x/v1/clusterroles/system:node"),
            (("", "v1", "services", "d", "a", "proxy/x"), "/api/v1/namespaces/d/services/a/proxy/x"),
        ] {
            let (group, version, resource, namespace, name, sub) = parts;
            assert_eq!(resource_path(group, version, resource, namespace, name, sub), expected);
        }
    }

    #[test]
    fn queries_encode_their_values() {
        let mut query = Query::new("/x");
        query.add("labelSelector", "a in (b,c)");
        query.add("empty", "");
        query.add("limit", "5");
        assert_eq!(query.uri(), "/x?labelSelector=a%20in%20%28b%2Cc%29&limit=5");
    }
}
