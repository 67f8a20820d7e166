//! May they: what a request is about, put as the question that authorization answers.

pub(crate) mod aggregate;
mod nodes;

use crate::request::RequestInfo;

pub(crate) use pintle_auth::authorization::{Attributes, Authorizer, Decision};

/// What a request wants to do.
pub(crate) fn attributes_of(info: &RequestInfo) -> Attributes<'_> {
    match &info.resource {
        None => Attributes { verb: info.verb, path: Some(&info.path), ..Attributes::default() },
        Some(r) => Attributes {
            verb: info.verb,
            group: &r.group,
            version: &r.version,
            namespace: &r.namespace,
            resource: &r.resource,
            subresource: &r.subresource,
            name: &r.authorized_name,
            path: None,
            fields: &r.fields,
            labels: &r.labels,
        },
    }
}
