//! `pintle join`: makes this machine a node of a cluster.
//!
//! Discovered (the cluster's authority is known, by the token and the hash) → bootstrapped (the kubelet has a client
//! certificate, asked for with the token; with it the serving certificate and that of the proxy) → written down → the
//! agent runs in the background and has registered its Node. A join that fails leaves nothing but private files in the
//! data directory, and can be tried again; what is written down last, the settings, is what makes an agent.

mod certificates;
mod control_plane;
mod discovery;

pub(crate) use control_plane::upload as upload_keys;
pub(crate) use discovery::cluster_of;

use crate::cluster::{Cluster, SAVED, private_directory};
use crate::identity::{self, AUTHORITY_FILE, KUBELET_CLIENT, KUBELET_SERVING, NodeIdentity, PROXY_CLIENT};
use crate::{background, say};
use anyhow::{Context, Result, ensure};
use certificates::Wanted;
use futures::future::BoxFuture;
use pintle_cli::{PodNetwork, Settings};
use pintle_client::Client;
use pintle_clock::Clock;
use pintle_pki::{Identity, LiveIdentity};
use pintle_types::k8s::api::core::v1::{ConfigMap, Node};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const REGISTER_TIMEOUT: Duration = Duration::from_secs(120);
/// Clocks that jump are noticed by then.
const LOOK_AGAIN: Duration = Duration::from_secs(6 * 60 * 60);
const RENEWAL_RETRY: Duration = Duration::from_secs(60);

pub(crate) async fn run(arguments: pintle_cli::Join) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "pintle join makes containers and networks: run it as root (sudo)");
    let settings = arguments.configured.clone().settings()?;
    let saved = settings.data_dir().join(SAVED);
    ensure!(
        !saved.exists() && !settings.data_dir().join("pki/ca.key").exists(),
        "{} is the data directory of a cluster or a node already: run `pintle reset` first",
        settings.data_dir().display()
    );
    say("[preflight] Running pre-flight checks");
    let found = discovery::discover(&arguments).await?;
    let tls = pintle_pki::client_config(&found.authority_pem, None)?;
    let bootstrap = identity::remote(&found.server, tls, Some(arguments.token.clone()))?.with_user_agent("pintle");
    say("[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
    let settings = complete(settings, &found.server, &bootstrap).await?;
    let cluster = Cluster::new(settings)?;
    check_name(&cluster, &bootstrap).await?;
    for directory in [cluster.settings.data_dir(), cluster.settings.run_dir(), cluster.data("pki")] {
        private_directory(&directory)?;
    }
    if let Some(key) = arguments.certificate_key.as_deref().filter(|_| arguments.control_plane) {
        return join_servers(cluster, key, &bootstrap).await;
    }
    enroll(&cluster, &found, &bootstrap).await?;
    write(&cluster.data(SAVED), &cluster.settings.to_text()?)?;
    say("[kubelet-start] Starting the kubelet");
    start_agent(&cluster).await?;
    say("
This node has joined the cluster:
* Certificate signing request was sent to apiserver and a response was received.
* The Kubelet was informed of the new secure connection details.

Run 'kubectl get nodes' on the control-plane to see this node join the cluster.
");
    Ok(())
}

/// Makes this machine one more server, which shares the keys and the store of the others.
async fn join_servers(mut cluster: Cluster, key: &str, bootstrap: &Client) -> Result<()> {
    ensure!(
        cluster.settings.datastore_endpoints.is_some(),
        "several servers work on one etcd cluster: name it with --datastore-endpoints, as on the first server"
    );
    say("[download-certs] Downloading the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace");
    control_plane::download(bootstrap, key, &cluster.data("pki")).await?;
    cluster.settings.server = None;
    write(&cluster.data(SAVED), &cluster.settings.to_text()?)?;
    let mut server = background::start(&cluster, "server")?;
    let what = format!("the server has registered node {}", cluster.node_name);
    let registered = async || bootstrap.get_opt::<Node>("", &cluster.node_name).await.ok().flatten();
    server.until(&what, REGISTER_TIMEOUT, registered).await?;
    say(format_args!(
        "
This node has joined the cluster and a new control plane instance was created:

* The server runs in the background; its messages are in {}
* To use the cluster from here, run as root: export KUBECONFIG={}
",
        server.log(),
        cluster.settings.write_kubeconfig().display()
    ));
    Ok(())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path));
    written.with_context(|| format!("write {}", path.display()))
}

/// What the cluster says about itself, for all flags that were not given.
async fn complete(flags: Settings, server: &str, client: &Client) -> Result<Settings> {
    let map = client.get::<ConfigMap>("kube-system", "kubeadm-config").await;
    let map = map.context("read the cluster's configuration; the token may be unknown or over")?;
    let part = |key: &str| -> Result<Value> {
        let text = map.data.as_ref().and_then(|data| data.get(key));
        let text = text.with_context(|| format!("the ConfigMap kubeadm-config has no {key}"))?;
        serde_yaml_ng::from_str(text).with_context(|| format!("read {key} of the ConfigMap kubeadm-config"))
    };
    let (networking, own) = (part("ClusterConfiguration")?["networking"].take(), part("PintleConfiguration")?);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let of_cluster = Settings {
        server: Some(server.to_owned()),
        pod_cidr: text(&networking["podSubnet"]),
        service_cidr: text(&networking["serviceSubnet"]),
        cluster_domain: text(&networking["dnsDomain"]),
        cluster_dns: text(&own["clusterDNS"]).and_then(|address| address.parse().ok()),
        // One that this program does not know is no reason to take another: pods would not reach each other.
        pod_network: serde_json::from_value::<Option<PodNetwork>>(own["podNetwork"].clone())
            .context("podNetwork of the ConfigMap kubeadm-config; join with the version that the cluster has")?,
        ..Settings::default()
    };
    // These must be the same everywhere: what the cluster says wins.
    Ok(of_cluster.or(flags))
}

/// Nobody takes the name of a node that runs.
async fn check_name(cluster: &Cluster, client: &Client) -> Result<()> {
    let name = &cluster.node_name;
    let there = client.get_opt::<Node>("", name).await.context("look for a node of the same name")?;
    let ready = there.and_then(|node| node.status?.conditions).unwrap_or_default();
    ensure!(
        !ready.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        "a Node with name {name:?} and status \"Ready\" already exists in the cluster. You must delete the existing \
         Node or change the name of this new joining Node"
    );
    Ok(())
}

/// Gets all certificates of the node and writes them down.
async fn enroll(cluster: &Cluster, found: &discovery::Found, bootstrap: &Client) -> Result<()> {
    let directory = cluster.data("pki");
    let client = certificates::obtain(bootstrap, &Wanted::kubelet(cluster)).await?;
    client.save(&directory, KUBELET_CLIENT)?;
    let tls = pintle_pki::client_config(&found.authority_pem, Some(&client))?;
    let kubelet = identity::remote(&found.server, tls, None)?.with_user_agent("kubelet");
    let (serving, proxy) = (Wanted::serving(cluster), Wanted::proxy());
    let (serving, proxy) =
        tokio::try_join!(certificates::obtain(&kubelet, &serving), certificates::obtain(&kubelet, &proxy))?;
    serving.save(&directory, KUBELET_SERVING)?;
    proxy.save(&directory, PROXY_CLIENT)?;
    write(&directory.join(AUTHORITY_FILE), &found.authority_pem)
}

/// Starts the agent and waits until the cluster knows the node.
async fn start_agent(cluster: &Cluster) -> Result<()> {
    let kubelet = NodeIdentity::of_agent(cluster)?.kubelet;
    let mut agent = background::start(cluster, "agent")?;
    let what = format!("the agent has registered node {}", cluster.node_name);
    let registered = async || kubelet.get_opt::<Node>("", &cluster.node_name).await.ok().flatten();
    agent.until(&what, REGISTER_TIMEOUT, registered).await?;
    say(format_args!("[kubelet-start] The agent runs in the background; its messages are in {}", agent.log()));
    Ok(())
}

/// Gets a new certificate for an agent, in the place of the old one of this name.
pub(crate) async fn renew(cluster: &Cluster, name: &str) -> Result<()> {
    let wanted = match name {
        KUBELET_CLIENT => Wanted::kubelet(cluster),
        KUBELET_SERVING => Wanted::serving(cluster),
        PROXY_CLIENT => Wanted::proxy(),
        _ => anyhow::bail!("an agent has no certificate {name:?}"),
    };
    let client = NodeIdentity::of_agent(cluster)?.kubelet;
    let fresh = certificates::obtain(&client, &wanted).await?;
    Ok(fresh.save(&cluster.data("pki"), name)?)
}

/// What keeps an agent's certificates from running out: each waits until a fifth of the time is left, asks for a new
/// one, and puts it in the place of the old; connections go on.
pub(crate) fn renewals(
    cluster: &Cluster,
    identity: &NodeIdentity,
    clock: &Arc<dyn Clock>,
) -> Vec<BoxFuture<'static, ()>> {
    let Some((kubelet, proxy)) = &identity.certificates else { return Vec::new() };
    let all = [
        (KUBELET_CLIENT, Wanted::kubelet(cluster), kubelet),
        (KUBELET_SERVING, Wanted::serving(cluster), &identity.serving),
        (PROXY_CLIENT, Wanted::proxy(), proxy),
    ];
    all.into_iter()
        .map(|(name, wanted, live)| {
            let renewal = Renewal {
                name,
                wanted,
                live: Arc::clone(live),
                client: identity.kubelet.clone(),
                clock: Arc::clone(clock),
                directory: cluster.data("pki"),
            };
            Box::pin(renewal.run()) as BoxFuture<'static, ()>
        })
        .collect()
}

struct Renewal {
    name: &'static str,
    wanted: Wanted,
    live: Arc<LiveIdentity>,
    client: Client,
    clock: Arc<dyn Clock>,
    directory: std::path::PathBuf,
}

impl Renewal {
    async fn run(self) {
        loop {
            let left = self.live.identity().time_to_renewal(self.clock.now()).unwrap_or_default();
            if !left.is_zero() {
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                continue;
            }
            if let Err(error) = self.renew().await {
                tracing::warn!(name = self.name, error = format!("{error:#}"), "a certificate can't be renewed yet");
                tokio::time::sleep(RENEWAL_RETRY).await;
            }
        }
    }

    async fn renew(&self) -> Result<()> {
        let fresh: Identity = certificates::obtain(&self.client, &self.wanted).await?;
        fresh.save(&self.directory, self.name)?;
        self.live.replace(fresh)?;
        tracing::info!(name = self.name, "a certificate was renewed");
        Ok(())
    }
}
