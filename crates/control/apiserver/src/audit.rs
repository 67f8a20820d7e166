//! Audit of requests: from the settings to the auditor, and from a request to what the policy asks about it.

use crate::pipeline::Call;
use crate::request::RequestInfo;
use crate::server::Server;
use http::HeaderMap;
use pintle_audit::{Auditor, LogOptions, LogSink, Policy, Record, Sink, WebhookOptions, WebhookSink};
use pintle_auth::User;
use pintle_client::Kubeconfig;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is audited and where it is written. Without any sink, nothing is.
#[derive(Clone, Debug, Default)]
pub struct AuditConfig {
    /// A file with an `audit.k8s.io/v1` `Policy`.
    pub policy_file: PathBuf,
    pub log: Option<LogOptions>,
    /// A kubeconfig that names the server to send events to.
    pub webhook: Option<PathBuf>,
}

/// Longer names of programs are cut, as upstream cuts them.
const MAX_AGENT_CHARACTERS: usize = 1024;
const MAX_ID_CHARACTERS: usize = 64;

impl Server {
    /// Opens what the settings name, and spawns what writes to it.
    pub(crate) fn open_audit(&self, stop: &CancellationToken) -> Result<Option<Arc<Auditor>>, String> {
        let Some(config) = &self.config.audit else { return Ok(None) };
        let path = config.policy_file.display();
        let text = std::fs::read_to_string(&config.policy_file).map_err(|e| format!("read {path}: {e}"))?;
        let policy = Policy::parse(&text).map_err(|e| format!("{path}: {e}"))?;
        let registry = &self.metrics.registry;
        let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
        if let Some(options) = &config.log {
            let opened = LogSink::open(options.clone(), self.clock.clone(), registry, stop.clone());
            let (sink, task) = opened.map_err(|e| e.to_string())?;
            self.tasks.spawn(task);
            sinks.push(sink);
        }
        if let Some(path) = &config.webhook {
            let failed = |e: pintle_client::KubeconfigError| format!("the audit webhook's {}: {e}", path.display());
            let kubeconfig = Kubeconfig::load(path).map_err(failed)?;
            let transport = Arc::new(kubeconfig.transport().map_err(failed)?);
            let address: http::Uri = kubeconfig.server().parse().unwrap_or_default();
            let path = address.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            let options = WebhookOptions { path, ..WebhookOptions::default() };
            let (sink, task) = WebhookSink::new(options, transport, registry, stop.clone());
            self.tasks.spawn(task);
            sinks.push(sink);
        }
        Ok((!sinks.is_empty()).then(|| Auditor::new(policy, sinks, self.clock.clone(), registry)))
    }
}

/// A record of a request, if it is to be audited. `user` is who asks, nobody when that is not known.
pub(crate) fn begin(call: &Call, user: Option<&User>, peer: Option<SocketAddr>) -> Option<Record> {
    let auditor = call.server.auditor.get()?;
    let nobody = User::default();
    let user = user.unwrap_or(&nobody);
    let asked = attributes(&call.info, user);
    auditor.begin(&asked, |event| {
        event.audit_id.clone_from(&call.audit_id);
        event.request_uri = call.uri.path_and_query().map_or_else(String::new, |p| p.as_str().to_owned());
        event.user = described(user);
        event.source_ips = source_addresses(&call.headers, peer);
        event.user_agent = call.header("user-agent").chars().take(MAX_AGENT_CHARACTERS).collect();
    })
}

fn attributes<'a>(info: &'a RequestInfo, user: &'a User) -> pintle_audit::Attributes<'a> {
    pintle_audit::Attributes {
        user: &user.name,
        groups: &user.groups,
        verb: info.verb,
        path: &info.path,
        resource: info.resource.as_ref().map(|r| pintle_audit::Resource {
            group: &r.group,
            version: &r.version,
            resource: &r.resource,
            subresource: &r.subresource,
            namespace: &r.namespace,
            name: &r.name,
        }),
    }
}

pub(crate) fn described(user: &User) -> pintle_audit::User {
    pintle_audit::User {
        username: user.name.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
    }
}

/// What the client, and proxies on the way, say of where the request comes from; then where it does come from.
fn source_addresses(headers: &HeaderMap, peer: Option<SocketAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let valid = |text: &str| text.trim().parse::<std::net::IpAddr>().ok().map(|address| address.to_string());
    let mut addresses: Vec<String> = text("x-forwarded-for").split(',').filter_map(valid).collect();
    let mut add = |address: Option<String>| {
        if let Some(address) = address.filter(|a| !addresses.contains(a)) {
            addresses.push(address);
        }
    };
    add(valid(&text("x-real-ip")));
    add(peer.map_or_else(|| Some("127.0.0.1".into()), |peer| Some(peer.ip().to_canonical().to_string())));
    addresses
}

/// The number of a request: the client's own, or a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let own = headers.get("audit-id").and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty());
    match own {
        Some(id) => id.chars().take(MAX_ID_CHARACTERS).collect(),
        // It need not be hard to guess: the system is not asked for random bytes.
        None => uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_on_the_way_are_named() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "10.0.0.1, x, 10.0.0.2".parse().unwrap());
        headers.insert("x-real-ip", "10.0.0.1".parse().unwrap());
        let peer = Some("[::ffff:10.0.0.3]:1".parse().unwrap());
        assert_eq!(source_addresses(&headers, peer), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(request_id(&headers).len(), 36);
        headers.insert("audit-id", "mine".parse().unwrap());
        assert_eq!(request_id(&headers), "mine");
    }
}
