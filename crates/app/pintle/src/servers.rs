//! The API servers that an agent knows: learned from the cluster, written down, and asked in turn when one is away.
//!
//! The EndpointSlice of the Service `kubernetes` names all that live. What was learned is in the file `servers` of the
//! data directory, a URL a line, so that the next start knows them even if the one that was joined is gone. That one,
//! which may be the address of a load balancer, always stays the first.

use crate::cluster::Cluster;
use crate::join;
use anyhow::{Context, Result};
use http::Uri;
use parking_lot::Mutex;
use pintle_client::{Client, Failover, HttpConfig};
use pintle_informer::Informers;
use pintle_types::Kind;
use pintle_types::k8s::api::discovery::v1::EndpointSlice;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const FILE: &str = "servers";
const MAX_BYTES: u64 = 16 << 10;
const MAX_SERVERS: usize = 64;
const SERVICE: (&str, &str) = ("kubernetes.io/service-name", "kubernetes");
const PORT: &str = "https";

/// What one agent knows, and the clients that it tells.
pub(crate) struct Servers {
    path: PathBuf,
    /// The one that the settings name.
    named: Uri,
    told: Mutex<Vec<Arc<Failover>>>,
}

impl Servers {
    /// # Errors
    /// When the address in the settings makes no sense.
    pub(crate) fn open(cluster: &Cluster, named: &str) -> Result<Self> {
        let named = named.parse().with_context(|| format!("the API server's address {named:?}"))?;
        Ok(Self { path: cluster.data(FILE), named, told: Mutex::default() })
    }

    /// A client of all servers, also of those that are learned later.
    pub(crate) fn client(&self, tls: Arc<rustls::ClientConfig>) -> Result<Client> {
        let config = HttpConfig { server: self.named.clone(), tls: Some(tls), server_name: None, token: None };
        let transport = Arc::new(Failover::new(config, &self.all(written(&self.path)))?);
        self.told.lock().push(Arc::clone(&transport));
        Ok(Client::new(transport))
    }

    fn all(&self, learned: Vec<Uri>) -> Vec<Uri> {
        let mut all = vec![self.named.clone()];
        all.extend(learned.into_iter().filter(|server| *server != self.named).take(MAX_SERVERS));
        all
    }

    /// Learns of servers until `stop`. The informers are those that the proxy has of EndpointSlices anyway.
    pub(crate) async fn follow(self: Arc<Self>, informers: Informers, stop: CancellationToken) {
        let slices = informers.of::<EndpointSlice>();
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        slices.on_change(move |change| {
            if is_of_servers(change.object()) {
                notify.notify_one();
            }
        });
        let mut known = written(&self.path);
        while stop.run_until_cancelled(changed.notified()).await.is_some() {
            let live = addresses(slices.in_namespace("default").iter().map(|slice| &**slice));
            // None is never the truth: somebody has told us.
            if live.is_empty() || live == known {
                continue;
            }
            if let Err(error) = self.learn(&live) {
                tracing::warn!(error = format!("{error:#}"), "the cluster's API servers can't be noted");
            }
            known = live;
        }
    }

    fn learn(&self, live: &[Uri]) -> Result<()> {
        for transport in self.told.lock().iter() {
            transport.set(&self.all(live.to_vec()))?;
        }
        let text: String = live.iter().map(|server| format!("{server}\n")).collect();
        join::write(&self.path, &text)?;
        tracing::debug!(servers = text.replace('\n', " "), "the API servers of the cluster are known");
        Ok(())
    }
}

fn is_of_servers(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    slice.namespace() == "default" && labels.and_then(|all| all.get(SERVICE.0)).is_some_and(|name| name == SERVICE.1)
}

/// The URLs of the servers in slices of their Service, in the order of their text.
fn addresses<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Uri> {
    let mut found: Vec<String> = slices.filter(|slice| is_of_servers(slice)).flat_map(of_slice).collect();
    found.sort();
    found.dedup();
    found.iter().filter_map(|url| url.parse().ok()).take(MAX_SERVERS).collect()
}

fn of_slice(slice: &EndpointSlice) -> Vec<String> {
    let ports = slice.ports.iter().flatten();
    let Some(port) = ports.filter(|port| port.name.as_deref() == Some(PORT)).find_map(|port| port.port) else {
        return Vec::new();
    };
    let ready = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    let url = |address: &String| match address.contains(':') {
        true => format!("https://[{address}]:{port}/"),
        false => format!("https://{address}:{port}/"),
    };
    ready.flat_map(|endpoint| endpoint.addresses.iter().map(url)).collect()
}

/// What an earlier run has learned; what can't be read is as if it had learned nothing.
fn written(path: &Path) -> Vec<Uri> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "the API servers of an earlier run can't be read");
            Vec::new()
        }
        _ => text.lines().filter_map(|line| line.trim().parse().ok()).take(MAX_SERVERS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(name: &str, endpoints: Value) -> EndpointSlice {
        let value = json!({
            "metadata": { "name": name, "namespace": "default", "labels": { SERVICE.0: SERVICE.1 } },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "https", "port": 6443, "protocol": "TCP" }],
        });
        EndpointSlice::from_value(value).unwrap()
    }

    fn texts(servers: &[Uri]) -> Vec<String> {
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_are_the_ready_endpoints() {
        let four = slice(
            "kubernetes",
            json!([
                { "addresses": ["10.0.0.2"], "conditions": { "ready": true } },
                { "addresses": ["10.0.0.1"] },
                { "addresses": ["10.0.0.3"], "conditions": { "ready": false } },
            ]),
        );
        let mut six = slice("kubernetes-6", json!([{ "addresses": ["fd00::1"] }]));
        let mut other = slice("web", json!([{ "addresses": ["10.0.0.9"] }]));
        other.metadata.labels = None;
        let found = texts(&addresses([&four, &six, &other].into_iter()));
        assert_eq!(found, ["https://10.0.0.1:6443/", "https://10.0.0.2:6443/", "https://[fd00::1]:6443/"]);
        six.ports = None;
        assert!(addresses([&six].into_iter()).is_empty());
    }

    #[test]
    fn what_was_learned_is_known_again_and_nonsense_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers {
            path: folder.path().join(FILE),
            named: "https://lb:6443".parse().unwrap(),
            told: Mutex::default(),
        };
        assert!(written(&servers.path).is_empty());
        let tls = pintle_pki::client_config_unverified().unwrap();
        servers.client(tls).unwrap();
        servers.learn(&["https://10.0.0.1:6443/".parse().unwrap()]).unwrap();
        assert_eq!(texts(&written(&servers.path)), ["https://10.0.0.1:6443/"]);
        let told = servers.told.lock()[0].servers();
        assert_eq!(texts(&told), ["https://lb:6443/", "https://10.0.0.1:6443/"]);
        std::fs::write(&servers.path, "https://a:1\n\u{0} no\n\n").unwrap();
        assert_eq!(texts(&written(&servers.path)), ["https://a:1/"]);
    }
}
