//! What kubelets may do: read what their pods use, write about themselves.
//!
//! The graph leads from each object to the pods that use it and from there to their nodes. It is kept from the objects
//! as they change; a decision follows it from the object that is asked for. Sources:
//! `plugin/pkg/auth/authorizer/node/{graph,node_authorizer}.go` of Kubernetes.

mod graph;

use super::{Attributes, Decision, Requirement, rbac};
use crate::User;
pub use graph::{Graph, Vertex};

/// The cluster role whose rules every kubelet has, as far as they are not divided by node.
const NODE_ROLE: &str = "system:node";
const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
const LEASES: &str = "kube-node-lease";

/// The name of the node whose kubelet this is. Empty when it is some kubelet that names no node.
pub fn identity(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX);
    name.filter(|_| user.in_group(GROUP))
}

type Reply = Result<(), String>;

fn refuse(why: &str) -> Reply {
    Err(why.to_owned())
}

impl Graph {
    /// What a kubelet may do; no opinion about others.
    pub fn decide(&self, rules: &rbac::Index, user: &User, what: &Attributes<'_>) -> Decision {
        let Some(node) = identity(user) else { return Decision::default() };
        if node.is_empty() {
            return Decision::no_opinion(format!("unknown node for user {:?}", user.name));
        }
        match self.divided(node, what) {
            Some(Ok(())) => Decision::allow(""),
            Some(Err(why)) => Decision::no_opinion(why),
            None if rules.role_allows(NODE_ROLE, what) => Decision::allow(""),
            None => Decision::default(),
        }
    }

    /// The answer for resources of which a node may see its own only; nothing for all others.
    fn divided(&self, node: &str, what: &Attributes<'_>) -> Option<Reply> {
        if what.path.is_some() {
            return None;
        }
        Some(match (what.group, what.resource) {
            ("", "secrets") => self.read_namespaced(node, Vertex::Secret, what),
            ("", "configmaps") => self.read_namespaced(node, Vertex::ConfigMap, what),
            ("", "persistentvolumeclaims") if what.subresource == "status" => self.update_status(node, what),
            ("", "persistentvolumeclaims") => self.get(node, Vertex::Claim, what),
            ("", "persistentvolumes") => self.get(node, Vertex::Volume, what),
            ("resource.k8s.io", "resourceclaims") => self.get(node, Vertex::ResourceClaim, what),
            ("storage.k8s.io", "volumeattachments") => self.get(node, Vertex::Attachment, what),
            ("", "serviceaccounts") => self.create_token(node, what),
            ("coordination.k8s.io", "leases") => lease(node, what),
            ("storage.k8s.io", "csinodes") => csi_node(node, what),
            ("resource.k8s.io", "resourceslices") => self.slice(node, what),
            ("certificates.k8s.io", "podcertificaterequests") => self.certificate(node, what),
            ("", "nodes") => own_node(node, what),
            ("", "pods") => self.pod(node, what),
            _ => return None,
        })
    }

    fn related(&self, node: &str, kind: Vertex, what: &Attributes<'_>) -> Reply {
        if what.name.is_empty() {
            return refuse("No Object name found");
        }
        if self.leads_to(node, kind, what.namespace, what.name) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn get(&self, node: &str, kind: Vertex, what: &Attributes<'_>) -> Reply {
        if what.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !what.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, kind, what)
    }

    fn read_namespaced(&self, node: &str, kind: Vertex, what: &Attributes<'_>) -> Reply {
        if !matches!(what.verb, "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !what.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if what.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, kind, what)
    }

    fn update_status(&self, node: &str, what: &Attributes<'_>) -> Reply {
        if !matches!(what.verb, "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.related(node, Vertex::Claim, what)
    }

    fn create_token(&self, node: &str, what: &Attributes<'_>) -> Reply {
        if what.verb == "get" && what.subresource.is_empty() {
            // Credential providers of the kubelet read the annotations of their pods' accounts.
            return self.related(node, Vertex::ServiceAccount, what);
        }
        if what.verb != "create" || what.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if what.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, Vertex::ServiceAccount, what)
    }

    fn slice(&self, node: &str, what: &Attributes<'_>) -> Reply {
        if !what.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match what.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, Vertex::Slice, what),
            "watch" | "list" | "deletecollection" if selects(what.fields, "nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                 delete, deletecollection",
            ),
        }
    }

    fn certificate(&self, node: &str, what: &Attributes<'_>) -> Reply {
        match (what.subresource, what.verb) {
            ("", "create") => Ok(()),
            ("", "get") => self.related(node, Vertex::PodCertificate, what),
            ("", "list" | "watch") if selects(what.fields, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !what.name.is_empty() => self.related(node, Vertex::PodCertificate, what),
            ("", "list" | "watch") => refuse("can only list/watch podcertificaterequests with nodeName field selector"),
            _ => refuse(""),
        }
    }

    fn pod(&self, node: &str, what: &Attributes<'_>) -> Reply {
        match (what.subresource, what.verb) {
            ("", "get") => self.get(node, Vertex::Pod, what),
            ("", "list" | "watch") if selects(what.fields, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !what.name.is_empty() => self.related(node, Vertex::Pod, what),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}

/// Whether a selector admits objects of this node only.
fn selects(fields: &[Requirement], key: &str, node: &str) -> bool {
    fields.iter().any(|r| r.key == key && r.operator == "In" && r.values == [node])
}

fn lease(node: &str, what: &Attributes<'_>) -> Reply {
    if !matches!(what.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if what.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if what.verb != "create" && what.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, what: &Attributes<'_>) -> Reply {
    if !matches!(what.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !what.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if what.verb != "create" && what.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(node: &str, what: &Attributes<'_>) -> Reply {
    match (what.subresource, what.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match what.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => refuse(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(graph: &Graph, what: Attributes<'_>, expected: Result<(), &str>) {
        let node = User::new("system:node:n1", &[GROUP]);
        let decision = graph.decide(&rbac::Index::default(), &node, &what);
        assert_eq!(decision.allowed, expected.is_ok(), "{what:?}: {decision:?}");
        assert_eq!(decision.reason, expected.err().unwrap_or_default(), "{what:?}");
    }

    #[test]
    fn a_node_reads_what_its_pods_use_as_long_as_they_do() {
        let graph = Graph::default();
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "1"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "bot", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "env"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}],
            "volumes": [
                {"name": "v", "projected": {"sources": [{"secret": {"name": "deep"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}}
            ],
        }});
        graph.set_pod(&pod);
        graph.set_volume(&json!({"metadata": {"name": "pv"}, "spec": {
            "claimRef": {"namespace": "a", "name": "claim"},
            "csi": {"nodePublishSecretRef": {"namespace": "csi", "name": "mount"}}}}));
        let get =
            |resource, namespace, name| Attributes { verb: "get", resource, namespace, name, ..Attributes::default() };
        const NONE: Result<(), &str> = Err("no relationship found between node 'n1' and this object");
        for (resource, name) in [
            ("secrets", "pull"),
            ("secrets", "key"),
            ("secrets", "deep"),
            ("configmaps", "env"),
            ("persistentvolumeclaims", "claim"),
        ] {
            check(&graph, get(resource, "a", name), Ok(()));
            check(&graph, get(resource, "b", name), NONE);
        }
        check(&graph, get("persistentvolumes", "", "pv"), Ok(()));
        check(&graph, get("secrets", "csi", "mount"), Ok(()));
        let token = Attributes { verb: "create", subresource: "token", ..get("serviceaccounts", "a", "bot") };
        check(&graph, token, Ok(()));
        let mut gone = pod.clone();
        gone["status"] = json!({"phase": "Succeeded"});
        graph.set_pod(&gone);
        check(&graph, get("secrets", "a", "pull"), NONE);
        graph.set_pod(&pod);
        check(&graph, get("secrets", "a", "pull"), Ok(()));
        graph.remove_pod(&pod);
        check(&graph, get("persistentvolumes", "", "pv"), NONE);
        graph.remove_volume(&json!({"metadata": {"name": "pv"}}));
        assert!(graph.is_empty());
    }

    #[test]
    fn refusals_say_what_a_node_may_do_instead() {
        let graph = Graph::default();
        let what = |verb, resource| Attributes { verb, resource, namespace: "a", ..Attributes::default() };
        check(&graph, what("update", "secrets"), Err("can only read resources of this type"));
        check(&graph, what("list", "secrets"), Err("No Object name found"));
        check(&graph, what("list", "persistentvolumes"), Err("can only get individual resources of this type"));
        check(&graph, what("list", "pods"), Err("can only list/watch pods with spec.nodeName field selector"));
        let own = [Requirement { key: "spec.nodeName".into(), operator: "In".into(), values: vec!["n1".into()] }];
        check(&graph, Attributes { fields: &own, ..what("list", "pods") }, Ok(()));
        check(&graph, what("list", "nodes"), Err("node 'n1' cannot read all nodes, only its own Node object"));
        let lease = Attributes { group: "coordination.k8s.io", name: "n2", ..what("get", "leases") };
        check(&graph, lease, Err("can only access leases in the \"kube-node-lease\" system namespace"));
        let lease = Attributes { namespace: LEASES, ..lease };
        check(&graph, lease, Err("can only access node lease with the same name as the requesting node"));
        check(&graph, Attributes { name: "n1", ..lease }, Ok(()));
    }
}
