//! Acting as somebody else: the `Impersonate-*` headers, each of which must be allowed.
//!
//! There are several ways to be allowed, from the narrowest to the oldest: as the node that the asker runs on, as any
//! node, as a service account, as another user (these four for some verbs only), and as anybody by `impersonate`.
//! Source: apiserver's `pkg/endpoints/filters/impersonation`.

use crate::authorization::{Attributes, attributes_of};
use crate::request::RequestInfo;
use crate::server::Server;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use pintle_auth::authorization::refusal;
use pintle_auth::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};
use pintle_types::Status;
use std::sync::Arc;

const EXTRA: &str = "impersonate-extra-";
const NODE: &str = "system:node:";
const NODE_NAME_KEY: &str = "authentication.kubernetes.io/node-name";
const GROUP: &str = "authentication.k8s.io";
/// With so many groups or values, the right to all of them is looked for first.
const MANY: usize = 4;

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok())
}

/// Who the headers name; nothing when they name nobody.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Box<Status>> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let mut user = User {
        name: texts(headers, "impersonate-user").next().unwrap_or_default().to_owned(),
        uid: texts(headers, "impersonate-uid").next().unwrap_or_default().to_owned(),
        groups: texts(headers, "impersonate-group").map(str::to_owned).collect(),
        ..User::default()
    };
    for (header, value) in headers {
        let Some(key) = header.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        user.extra.entry(key).or_default().extend(value.to_str().ok().map(str::to_owned));
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty() {
        return Ok(None);
    }
    Err(Box::new(Status::bad_request(format!("requested {} without impersonating a user name", shown(&user)))))
}

/// The headers as upstream's message shows them, in the notation of its language.
fn shown(user: &User) -> String {
    let list = |items: &[String], none: &str| match items {
        [] => none.to_owned(),
        items => {
            let quoted: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
            format!("[]string{{{}}}", quoted.join(", "))
        }
    };
    let groups = list(&user.groups, "[]string(nil)");
    let extra = match user.extra.len() {
        0 => "map[string][]string(nil)".to_owned(),
        _ => {
            let entries: Vec<String> =
                user.extra.iter().map(|(k, v)| format!("{k:?}:{}", list(v, "[]string{}"))).collect();
            format!("map[string][]string{{{}}}", entries.join(", "))
        }
    };
    format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.name, user.uid)
}

/// The user to go on as: the one who asks, or the one they name and may act as.
pub(crate) async fn impersonate(
    server: &Server,
    asker: Arc<User>,
    headers: &HeaderMap,
    info: &RequestInfo,
) -> Result<Arc<User>, Box<Status>> {
    let Some(wanted) = wanted(headers)? else { return Ok(asker) };
    Box::pin(act_as(server, asker, wanted, info)).await
}

async fn act_as(server: &Server, asker: Arc<User>, wanted: User, info: &RequestInfo) -> Result<Arc<User>, Box<Status>> {
    let mut first = None;
    for mode in Mode::all().into_iter().filter(|mode| mode.is_for(&asker, &wanted)) {
        let attempt = Attempt { server, asker: &asker, mode };
        match attempt.check(&wanted, &attributes_of(info)).await {
            Ok(user) => return Ok(Arc::new(user)),
            Err(refusal) => {
                first.get_or_insert(refusal);
            }
        }
    }
    Err(first.unwrap_or_else(|| Box::new(Status::internal("all impersonation modes failed"))))
}

/// A way to be allowed to act as somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix(NODE).filter(|node| pintle_types::names::check_dns1123_subdomain(node).is_ok())
}

impl Mode {
    fn all() -> [Self; 5] {
        [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo, Self::Legacy]
    }

    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn is_for(self, asker: &User, wanted: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_of(&wanted.name), wanted.as_service_account());
        match self {
            Self::AssociatedNode => {
                let home = asker.extra.get(NODE_NAME_KEY).map(Vec::as_slice);
                let is_home = node.is_some_and(|node| home.is_some_and(|home| home == [node]));
                only_name && asker.as_service_account().is_some() && is_home
            }
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

struct Attempt<'a> {
    server: &'a Server,
    asker: &'a User,
    mode: Mode,
}

impl Attempt<'_> {
    fn is_legacy(&self) -> bool {
        self.mode == Mode::Legacy
    }

    async fn may(&self, what: &Attributes<'_>) -> Result<(), Box<Status>> {
        if self.mode != Mode::AssociatedNode {
            return self.server.authorizer.check(self.asker, what).await;
        }
        // Which node it is has been settled: the question is asked in the same words for all of them.
        let keys = self.asker.extra.keys().cloned().collect();
        let mut asker = self.asker.clone();
        asker.extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)].into();
        let any = Attributes { name: "*", ..*what };
        let what = if what.verb == "impersonate:associated-node" { &any } else { what };
        self.server.authorizer.check(&asker, what).await
    }

    async fn check(&self, wanted: &User, request: &Attributes<'_>) -> Result<User, Box<Status>> {
        if !self.is_legacy() {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), request.verb);
            self.may(&Attributes { verb: &verb, ..*request }).await?;
        }
        let verb = match self.mode {
            Mode::Legacy => "impersonate".to_owned(),
            mode => format!("impersonate:{}", mode.name()),
        };
        let user = self.name(&verb, wanted).await?;
        let uids = Attributes { verb: &verb, group: GROUP, version: "v1", ..Attributes::default() };
        if !wanted.uid.is_empty() {
            self.may(&Attributes { resource: "uids", name: &wanted.uid, ..uids }).await?;
        }
        self.groups(&verb, wanted).await?;
        self.extra(&verb, wanted).await?;
        Ok(settle(user))
    }

    /// The group of the API that users and groups are asked about in.
    fn base<'a>(&self, verb: &'a str) -> Attributes<'a> {
        let group = if self.is_legacy() { "" } else { GROUP };
        Attributes { verb, group, version: "v1", ..Attributes::default() }
    }

    async fn name(&self, verb: &str, wanted: &User) -> Result<User, Box<Status>> {
        let mut user = wanted.clone();
        let base = self.base(verb);
        let node = node_of(&wanted.name).filter(|_| !self.is_legacy());
        let what = if let Some(node) = node {
            user.groups = vec!["system:nodes".to_owned()];
            Attributes { resource: "nodes", name: node, ..base }
        } else if let Some((namespace, account)) = wanted.as_service_account() {
            if wanted.groups.is_empty() {
                user.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            }
            Attributes { resource: "serviceaccounts", namespace, name: account, ..base }
        } else {
            Attributes { resource: "users", name: &wanted.name, ..base }
        };
        self.may(&what).await?;
        Ok(user)
    }

    async fn groups(&self, verb: &str, wanted: &User) -> Result<(), Box<Status>> {
        let what = Attributes { resource: "groups", ..self.base(verb) };
        if !self.is_legacy() {
            let forbid = |what: &Attributes<'_>, why| Err(Box::new(refusal(self.asker, what, why)));
            if wanted.groups.iter().any(String::is_empty) {
                return forbid(&what, "impersonating the empty string group is not allowed");
            }
            if wanted.in_group(MASTERS) {
                let what = Attributes { name: MASTERS, ..what };
                return forbid(&what, "impersonating the system:masters group is not allowed");
            }
            if wanted.groups.len() >= MANY && self.may(&Attributes { name: "*", ..what }).await.is_ok() {
                return Ok(());
            }
        }
        for group in &wanted.groups {
            self.may(&Attributes { name: group, ..what }).await?;
        }
        Ok(())
    }

    async fn extra(&self, verb: &str, wanted: &User) -> Result<(), Box<Status>> {
        let base = Attributes { verb, group: GROUP, version: "v1", resource: "userextras", ..Attributes::default() };
        if !self.is_legacy() && !wanted.extra.is_empty() {
            if let Err(why) = check_extra(wanted) {
                return Err(Box::new(refusal(self.asker, &base, &why)));
            }
            let many = wanted.extra.len() >= MANY || wanted.extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if many && self.may(&Attributes { subresource: "*", name: "*", ..base }).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in &wanted.extra {
            for value in values {
                self.may(&Attributes { subresource: key, name: value, ..base }).await?;
            }
        }
        Ok(())
    }
}

fn check_extra(wanted: &User) -> Result<(), String> {
    for (key, values) in &wanted.extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".into());
        }
        if key.to_lowercase() != *key {
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
        }
        if values.is_empty() {
            return Err("impersonating empty values in extra is not allowed".into());
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".into());
        }
    }
    Ok(())
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
