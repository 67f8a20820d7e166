//! `pintle up`: a server for a person at a terminal, with its progress, an application, and what to try next.

use crate::cluster::{self, Cluster, private_directory};
use crate::node::EVICTION_ON_DESKS;
use crate::server::{Running, until_told_to_stop};
use crate::{logging, say};
use anyhow::{Context, Result, bail};
use futures::StreamExt;
use pintle_client::{Client, ListOptions, Patch, PatchOptions, WatchEvent, WatchOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::apps::v1::Deployment;
use pintle_types::k8s::api::core::v1::{Node, Service};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const MANIFEST_MAX_BYTES: u64 = 8 << 20;
const REQUESTS: usize = 20;

/// Prints what happens and how long after the start.
struct Progress(Instant);

impl Progress {
    fn tell(&self, line: impl std::fmt::Display) {
        say(format_args!("{:>7.2}s  {line}", self.0.elapsed().as_secs_f64()));
    }
}

pub(crate) async fn run(arguments: pintle_cli::Up) -> Result<()> {
    let progress = Progress(Instant::now());
    let mut settings = cluster::settings(arguments.daemon.configured)?;
    settings.eviction_hard.get_or_insert_with(|| EVICTION_ON_DESKS.to_owned());
    let cluster = Cluster::new(settings)?;
    private_directory(&cluster.settings.data_dir())?;
    let log = cluster.data("server.log");
    logging::start(&arguments.daemon.log_level, Some(&log))?;
    progress.tell(format_args!("starting (log: {})", log.display()));
    let running = Running::start(&cluster).await?;
    progress.tell(format_args!("the API server answers at {}", cluster.local_url()));
    let shown = tokio::select! {
        shown = show(&arguments.manifests, &cluster, &running.client, &progress) => shown,
        stopped = until_told_to_stop() => stopped.map(|()| false),
    };
    let ended = match shown {
        Ok(true) => until_told_to_stop().await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    progress.tell("stopping");
    running.stop().await?;
    progress.tell("stopped; the cluster's state is kept, the next start continues it");
    ended
}

/// Waits for the node, applies the manifests, and shows that they work. Returns whether to go on running.
async fn show(manifests: &[PathBuf], cluster: &Cluster, client: &Client, progress: &Progress) -> Result<bool> {
    within(READY_TIMEOUT, "the node is not Ready", node_ready(client, &cluster.node_name)).await?;
    progress.tell(format_args!("node {} is Ready", cluster.node_name));
    let mut applied = Vec::new();
    for path in manifests {
        applied.extend(apply(client, path).await?);
    }
    for object in &applied {
        let (kind, name) =
            (object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default());
        if kind == "Deployment" {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            let rolled_out = deployment_available(client, namespace, name);
            within(READY_TIMEOUT, &format!("deployment {name} is not available"), rolled_out).await?;
            progress.tell(format_args!("deployment {name} is available"));
        }
    }
    for url in node_port_urls(client, cluster, &applied).await? {
        let answers = answers_of(cluster.node_ip, url.1).await;
        progress.tell(format_args!("{} answers:", url.0));
        for answer in answers {
            say(format_args!("            {answer}"));
        }
    }
    next_steps(cluster, &applied);
    Ok(true)
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => bail!("{what} after {} s; the log says why", limit.as_secs()),
    }
}

/// Waits until an object of a kind is as it should be, by watching.
async fn until<K: Kind>(client: &Client, namespace: &str, name: &str, good: fn(&K) -> bool) -> Result<()> {
    let fields = format!("metadata.name={name}");
    loop {
        let list = client.list::<K>(namespace, &ListOptions::fields(&fields)).await?;
        if list.items.iter().any(good) {
            return Ok(());
        }
        let options = WatchOptions {
            field_selector: fields.clone(),
            resource_version: list.resource_version,
            ..WatchOptions::default()
        };
        let mut watch = client.watch::<K>(namespace, &options).await?;
        while let Some(event) = watch.next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event?
                && good(&object)
            {
                return Ok(());
            }
        }
    }
}

async fn node_ready(client: &Client, name: &str) -> Result<()> {
    until::<Node>(client, "", name, |node| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    })
    .await
}

async fn deployment_available(client: &Client, namespace: &str, name: &str) -> Result<()> {
    until::<Deployment>(client, namespace, name, |deployment| {
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        status.observed_generation == deployment.metadata.generation
            && status.available_replicas.unwrap_or(0) >= wanted
            && status.updated_replicas.unwrap_or(0) >= wanted
    })
    .await
}

/// Applies every document of a manifest, as `kubectl apply --server-side` would.
async fn apply(client: &Client, path: &Path) -> Result<Vec<Value>> {
    let meta = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
    anyhow::ensure!(meta.len() <= MANIFEST_MAX_BYTES, "{} is larger than {MANIFEST_MAX_BYTES} bytes", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut applied = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let object = Value::deserialize(document).with_context(|| format!("read {}", path.display()))?;
        if object.is_null() {
            continue;
        }
        let place = object_path(client, &object).await.with_context(|| format!("in {}", path.display()))?;
        let options = PatchOptions { field_manager: "pintle".into(), force: true, ..PatchOptions::default() };
        let answer = client.patch_path(&place, &Patch::Apply(object), &options).await?;
        applied.push(serde_json::from_slice(&answer)?);
    }
    Ok(applied)
}

/// The path of an object; discovery tells the plural of its kind.
async fn object_path(client: &Client, object: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind, name) =
        (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
    let version =
        pintle_types::GroupVersion::parse(&api_version).with_context(|| format!("apiVersion {api_version:?}"))?;
    let root = if version.group.is_empty() { format!("/api/{api_version}") } else { format!("/apis/{api_version}") };
    let resources = client.json(http::Method::GET, &root, None).await?;
    let of_kind = |r: &&Value| r["kind"] == kind.as_str() && !text(&r["name"]).contains('/');
    let found = resources["resources"].as_array().into_iter().flatten().find(of_kind);
    let resource = found.with_context(|| format!("{api_version} has no kind {kind:?}"))?;
    let namespace = if resource["namespaced"] == true {
        let named = text(&object["metadata"]["namespace"]);
        if named.is_empty() { "default".to_owned() } else { named }
    } else {
        String::new()
    };
    let plural = text(&resource["name"]);
    Ok(pintle_client::resource_path(&version.group, &version.version, &plural, &namespace, &name, ""))
}

async fn node_port_urls(client: &Client, cluster: &Cluster, applied: &[Value]) -> Result<Vec<(String, u16)>> {
    let mut urls = Vec::new();
    for object in applied.iter().filter(|o| o["kind"] == "Service") {
        let (namespace, name) = (object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str());
        let service = client.get::<Service>(namespace.unwrap_or("default"), name.unwrap_or_default()).await?;
        for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
            if let Some(port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0) {
                urls.push((format!("http://{}:{port}", cluster.node_ip), port));
            }
        }
    }
    Ok(urls)
}

/// The different answers of a few requests, each on a connection of its own. While some fail, as right after a start
/// that continues a stopped cluster, they are made again.
async fn answers_of(ip: IpAddr, port: u16) -> BTreeSet<String> {
    let start = Instant::now();
    loop {
        let (mut answers, mut failed) = (BTreeSet::new(), false);
        for _ in 0..REQUESTS {
            let answer = match tokio::time::timeout(Duration::from_secs(2), get(ip, port)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(format!("({error})")),
                Err(_) => Err("(no answer within 2 s)".into()),
            };
            failed |= answer.is_err();
            answers.insert(answer.unwrap_or_else(|failure| failure));
        }
        if !failed || start.elapsed() > READY_TIMEOUT {
            return answers;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn get(ip: IpAddr, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((ip, port)).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {ip}:{port}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body).trim().to_owned())
}

fn next_steps(cluster: &Cluster, applied: &[Value]) {
    let deployment = applied.iter().find(|o| o["kind"] == "Deployment").and_then(|o| o["metadata"]["name"].as_str());
    let kubeconfig = cluster.settings.write_kubeconfig();
    say("\nTry next, in another terminal (as root):");
    say(format_args!("  export KUBECONFIG={}", kubeconfig.display()));
    say("  kubectl get nodes,pods -A -o wide");
    say(format_args!("  docker -H unix://{} ps", cluster.settings.docker_socket().display()));
    if let Some(name) = deployment {
        say(format_args!("  kubectl logs -f deployment/{name}"));
    }
    say("\nCtrl-C stops the cluster; the next start continues it.");
}
