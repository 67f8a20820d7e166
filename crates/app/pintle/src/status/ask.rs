//! What the API server says of itself, of this node, and of its pods.

use super::PATIENCE;
use crate::cluster::Cluster;
use crate::credentials::{self, ADMINISTRATOR};
use crate::identity::{self, AUTHORITY_FILE, NodeIdentity};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request};
use pintle_cli::status::{ApiServer, Condition, Node, Report};
use pintle_client::{Client, ListOptions, collect};
use pintle_pki::Identity;
use pintle_types::k8s::api::core::v1::{Node as NodeObject, Pod};
use std::collections::BTreeMap;

const MAX_TEXT_BYTES: usize = 64 << 10;

/// Fills in what the API server says; what it does not say within the time stays empty.
pub(super) async fn fill(cluster: &Cluster, report: &mut Report) {
    let url = cluster.settings.server.clone().unwrap_or_else(|| cluster.local_url());
    let client = match client(cluster, &url) {
        Ok(client) => client.with_timeout(PATIENCE),
        Err(error) => {
            report.api_server = Some(ApiServer { url, error: Some(format!("{error:#}")), ..ApiServer::default() });
            return;
        }
    };
    let name = &cluster.node_name;
    let options = ListOptions::fields(format!("spec.nodeName={name}"));
    let (health, version, node, pods) = tokio::join!(
        tokio::time::timeout(PATIENCE, health(&client)),
        client.json(Method::GET, "/version", None),
        client.get_opt::<NodeObject>("", name),
        // One page is enough to wait for.
        tokio::time::timeout(PATIENCE, client.list::<Pod>("", &options)),
    );
    let (failed_checks, error) = match health {
        Ok(Ok(failed)) => (failed, None),
        Ok(Err(error)) => (Vec::new(), Some(format!("{error:#}"))),
        Err(_) => (Vec::new(), Some(format!("no answer within {} s", PATIENCE.as_secs()))),
    };
    let version = version.ok().and_then(|version| version["gitVersion"].as_str().map(str::to_owned));
    let ready = error.is_none() && failed_checks.is_empty();
    report.api_server = Some(ApiServer { url, ready, version, failed_checks, error });
    report.node = node.ok().flatten().map(|node| describe(name, &node));
    if let Ok(Ok(pods)) = pods {
        for pod in &pods.items {
            *report.pods.entry(state(pod)).or_insert(0) += 1;
        }
    }
}

/// Asks as the administrator where this is a server, as the kubelet on an agent.
fn client(cluster: &Cluster, url: &str) -> Result<Client> {
    if cluster.settings.server.is_some() {
        return Ok(NodeIdentity::of_agent(cluster)?.kubelet);
    }
    let directory = credentials::directory(cluster);
    let path = directory.join(AUTHORITY_FILE);
    let authority = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let user = Identity::load(&directory, ADMINISTRATOR)?.context("the administrator has no certificate")?;
    identity::remote(url, pintle_pki::client_config(&authority, Some(&user))?, None)
}

/// The names of the checks that do not hold.
async fn health(client: &Client) -> Result<Vec<String>> {
    let answer = client.raw(Request::get("/readyz?verbose").body(Bytes::new())?).await?;
    let ok = answer.status().is_success();
    let body = collect(answer.into_body(), MAX_TEXT_BYTES).await.map_err(|error| anyhow::anyhow!(error))?;
    let failed = failed_checks(&String::from_utf8_lossy(&body));
    Ok(if !ok && failed.is_empty() { vec!["readyz".to_owned()] } else { failed })
}

fn failed_checks(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("[-]"));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn describe(name: &str, node: &NodeObject) -> Node {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let conditions: Vec<Condition> = conditions
        .into_iter()
        .map(|found| Condition {
            kind: found.type_,
            status: found.status,
            reason: found.reason.unwrap_or_default(),
            message: found.message.unwrap_or_default(),
        })
        .collect();
    Node {
        name: name.to_owned(),
        ready: conditions.iter().any(|found| found.kind == "Ready" && found.is_well()),
        schedulable: !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        conditions,
    }
}

/// A pod's state in a word: that it goes, why it waits, or its phase.
fn state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let Some(status) = &pod.status else { return "Pending".to_owned() };
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waits = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let waits: BTreeMap<String, ()> = waits.map(|reason| (reason, ())).collect();
    let usual = |reason: &String| ["PodInitializing", "ContainerCreating"].contains(&reason.as_str());
    let why = waits.into_keys().find(|reason| !usual(reason));
    why.or_else(|| status.reason.clone()).or_else(|| status.phase.clone()).unwrap_or_else(|| "Pending".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_types::Kind;
    use serde_json::json;

    #[test]
    fn checks_that_fail_are_named() {
        let text = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac/bootstrap-roles failed: reason \
                    withheld\nreadyz check failed\n";
        assert_eq!(failed_checks(text), ["etcd", "poststarthook/rbac/bootstrap-roles"]);
    }

    #[test]
    fn a_pods_state_is_what_matters_most() {
        let state_of = |status, deleted: Option<&str>| {
            let metadata = json!({ "name": "a", "deletionTimestamp": deleted });
            state(
                &Pod::from_value(json!({ "metadata": metadata, "spec": { "containers": [] }, "status": status }))
                    .unwrap(),
            )
        };
        let waiting = |reason| {
            let container = json!({
                "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason } },
            });
            json!({ "phase": "Pending", "containerStatuses": [container] })
        };
        assert_eq!(state_of(json!({ "phase": "Running" }), None), "Running");
        assert_eq!(state_of(json!({ "phase": "Running" }), Some("2026-01-01T00:00:00Z")), "Terminating");
        assert_eq!(state_of(waiting("ImagePullBackOff"), None), "ImagePullBackOff");
        assert_eq!(state_of(waiting("ContainerCreating"), None), "Pending");
        assert_eq!(state_of(json!({ "phase": "Failed", "reason": "Evicted" }), None), "Evicted");
    }

    #[test]
    fn a_node_is_described() {
        let ready = json!({ "type": "Ready", "status": "True", "reason": "KubeletReady" });
        let node = json!({
            "metadata": { "name": "n" }, "spec": { "unschedulable": true }, "status": { "conditions": [ready] },
        });
        let described = describe("n", &NodeObject::from_value(node).unwrap());
        assert!(described.ready && !described.schedulable && described.conditions[0].is_well());
    }
}
