//! Acting as somebody else: the `Impersonate-*` headers, each of which must be allowed.
//!
//! Source: apiserver's `pkg/endpoints/filters/impersonation`.

use crate::authorization::Attributes;
use crate::server::Server;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use pintle_auth::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use pintle_types::{Reason, Status};
use std::sync::Arc;

const EXTRA: &str = "impersonate-extra-";

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok())
}

/// The user to go on as: the one who asks, or the one they name and may act as.
pub(crate) fn impersonate(server: &Server, asker: Arc<User>, headers: &HeaderMap) -> Result<Arc<User>, Box<Status>> {
    let name = texts(headers, "impersonate-user").next().unwrap_or_default();
    let groups: Vec<&str> = texts(headers, "impersonate-group").collect();
    let extras = headers.keys().any(|k| k.as_str().starts_with(EXTRA));
    let uid = texts(headers, "impersonate-uid").next();
    if name.is_empty() {
        if groups.is_empty() && !extras && uid.is_none() {
            return Ok(asker);
        }
        let message = "requested impersonation of groups, uid or extra without impersonating a user";
        return Err(Box::new(Status::failure(500, Reason::InternalError, message)));
    }
    let may = |what: Attributes<'_>| server.authorizer.check(&asker, &Attributes { verb: "impersonate", ..what });
    let mut user = User { name: name.to_owned(), ..User::default() };
    if let Some((namespace, account)) = user.as_service_account() {
        may(Attributes { resource: "serviceaccounts", namespace, name: account, ..Attributes::default() })?;
        if groups.is_empty() {
            user.groups = User::service_account(namespace, account).groups;
        }
    } else {
        may(Attributes { resource: "users", name, ..Attributes::default() })?;
    }
    for group in groups {
        may(Attributes { resource: "groups", name: group, ..Attributes::default() })?;
        user.groups.push(group.to_owned());
    }
    let authentication = Attributes { group: "authentication.k8s.io", ..Attributes::default() };
    if let Some(uid) = uid {
        may(Attributes { resource: "uids", name: uid, ..authentication })?;
        user.uid = uid.to_owned();
    }
    for (header, value) in headers {
        let Some(key) = header.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        let Ok(value) = value.to_str() else { continue };
        may(Attributes { resource: "userextras", subresource: &key, name: value, ..authentication })?;
        user.extra.entry(key).or_default().push(value.to_owned());
    }
    Ok(Arc::new(settle(user)))
}

/// Adds the group that says whether the user is known.
fn settle(mut user: User) -> User {
    if user.name == ANONYMOUS && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(UNAUTHENTICATED.into());
    } else if user.name != ANONYMOUS && !user.in_group(UNAUTHENTICATED) && !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}
