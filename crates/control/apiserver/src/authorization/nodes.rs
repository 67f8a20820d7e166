//! Keeps the graph of what nodes may see in step with the objects that it is made of.

use super::{Attributes, Decision};
use crate::follow::{Change, Follower};
use crate::server::Server;
use pintle_auth::User;
use pintle_auth::authorization::node::{Graph, identity};
use pintle_registry::ListOptions;
use pintle_types::Status;
use pintle_types::selector::FieldSelector;
use serde_json::Value;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

type Step = fn(&Graph, &Value);

/// Group and resource, and what the graph does about an object that is there or gone.
const FOLLOWED: [(&str, &str, Step, Step); 5] = [
    ("", "pods", Graph::set_pod, Graph::remove_pod),
    ("", "persistentvolumes", Graph::set_volume, Graph::remove_volume),
    ("storage.k8s.io", "volumeattachments", Graph::set_attachment, Graph::remove_attachment),
    ("resource.k8s.io", "resourceslices", Graph::set_slice, Graph::remove_slice),
    ("certificates.k8s.io", "podcertificaterequests", Graph::set_pod_certificate, Graph::remove_pod_certificate),
];

impl Server {
    /// Follows what the graph needs, until `stop`; nothing when nodes are not told apart.
    pub(crate) async fn follow_node_graph(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), Status> {
        if !self.authorizer.uses_nodes() {
            return Ok(());
        }
        for (group, resource, set, remove) in FOLLOWED {
            // Kinds that this server does not serve in v1 bring no edges.
            if self.registry.table().get(group, "v1", resource).is_none() {
                continue;
            }
            let authorizer = self.authorizer.clone();
            let apply = move |change: Change<'_>| match change {
                Change::Set(object) => set(&authorizer.nodes, object),
                Change::Gone(object) => remove(&authorizer.nodes, object),
            };
            // A pod without a node lets no node see anything, and costs nothing here.
            let fields = if resource == "pods" { "spec.nodeName!=" } else { "" };
            let fields = FieldSelector::parse(fields).unwrap_or_default();
            let follower = Follower::load_selected(self, group, resource, fields, apply).await?;
            self.tasks.spawn(follower.run(stop.clone()));
        }
        Ok(())
    }

    /// Whether a node may see something because of the pods that are on it now: its kubelet may hear of a pod a moment
    /// before the graph does, and must not be refused what the pod needs. The graph itself is not touched: only the
    /// follower knows the order of changes.
    pub(crate) async fn node_may_by_now(&self, user: &User, what: &Attributes<'_>) -> Option<Decision> {
        let by_pods = matches!(what.resource, "secrets" | "configmaps" | "serviceaccounts" | "persistentvolumeclaims");
        let node = identity(user).filter(|_| by_pods && what.group.is_empty() && self.authorizer.uses_nodes())?;
        let table = self.registry.table();
        let fields = FieldSelector::parse(&format!("spec.nodeName={node}")).ok()?;
        let options = ListOptions { fields, ..ListOptions::default() };
        let pods = self.registry.list(table.get("", "v1", "pods")?, what.namespace, &options).await.ok()?;
        let present = Graph::default();
        for pod in &pods.items {
            present.set_pod(&pod.to_value());
        }
        Some(present.decide(&self.authorizer.rbac, user, what)).filter(|decision| decision.allowed)
    }
}
