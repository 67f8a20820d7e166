//! The graph of what nodes may see: edges from objects to the objects that use them, ending at nodes.
//!
//! Each pod, volume, attachment and slice owns the edges that it brought; they go with it. Only references between
//! names are kept, nothing of the objects themselves.

use parking_lot::RwLock;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A kind of object that the graph knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vertex {
    Node,
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    Attachment,
    ServiceAccount,
    ResourceClaim,
    Slice,
    PodCertificate,
}

/// Kind, namespace (empty for cluster-scoped kinds) and name.
type Key = (Vertex, Box<str>, Box<str>);

fn vertex(kind: Vertex, namespace: &str, name: &str) -> Key {
    (kind, namespace.into(), name.into())
}

/// Who may see what, by node. Fed with the objects as they change.
#[derive(Debug, Default)]
pub struct Graph {
    edges: RwLock<Edges>,
}

#[derive(Debug, Default)]
struct Edges {
    /// From an object to what leads on towards nodes, with the number of owners that brought the edge.
    from: HashMap<Key, HashMap<Key, u32>>,
    /// The edges that an object brought.
    brought: HashMap<Key, Vec<(Key, Key)>>,
}

impl Edges {
    /// Replaces what `owner` brought.
    fn set(&mut self, owner: Key, edges: HashSet<(Key, Key)>) {
        if let Some(known) = self.brought.get(&owner)
            && known.len() == edges.len()
            && known.iter().all(|edge| edges.contains(edge))
        {
            return;
        }
        self.remove(&owner);
        if edges.is_empty() {
            return;
        }
        for (from, to) in &edges {
            *self.from.entry(from.clone()).or_default().entry(to.clone()).or_default() += 1;
        }
        self.brought.insert(owner, edges.into_iter().collect());
    }

    fn remove(&mut self, owner: &Key) {
        for (from, to) in self.brought.remove(owner).unwrap_or_default() {
            let Some(targets) = self.from.get_mut(&from) else { continue };
            if let Some(count) = targets.get_mut(&to) {
                *count -= 1;
                if *count == 0 {
                    targets.remove(&to);
                }
            }
            if targets.is_empty() {
                self.from.remove(&from);
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn own(kind: Vertex, object: &Value) -> Key {
    vertex(kind, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Graph {
    /// Whether the object is something that the node may see.
    pub fn leads_to(&self, node: &str, kind: Vertex, namespace: &str, name: &str) -> bool {
        let edges = self.edges.read();
        let target = vertex(Vertex::Node, "", node);
        let start = vertex(kind, namespace, name);
        let (mut open, mut seen) = (vec![&start], HashSet::new());
        while let Some(at) = open.pop() {
            let Some(next) = edges.from.get(at) else { continue };
            if next.contains_key(&target) {
                return true;
            }
            open.extend(next.keys().filter(|key| key.0 != Vertex::Node && seen.insert(*key)));
        }
        false
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        let edges = self.edges.read();
        edges.from.is_empty() && edges.brought.is_empty()
    }

    /// A pod as it is now. One that has ended needs nothing any more.
    pub fn set_pod(&self, pod: &Value) {
        let key = own(Vertex::Pod, pod);
        let node = text(&pod["spec"]["nodeName"]);
        let ended = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
        let mut edges = HashSet::new();
        if !node.is_empty() && !ended {
            edges.insert((key.clone(), vertex(Vertex::Node, "", node)));
            // Mirror pods come from the kubelet itself: what they name is no reason to let it read more.
            if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_none() {
                used_by_pod(pod, &key.1, |used| {
                    edges.insert((used, key.clone()));
                });
            }
        }
        self.edges.write().set(key, edges);
    }

    pub fn remove_pod(&self, pod: &Value) {
        self.edges.write().remove(&own(Vertex::Pod, pod));
    }

    /// A PersistentVolume as it is now.
    pub fn set_volume(&self, volume: &Value) {
        let key = own(Vertex::Volume, volume);
        let claim = &volume["spec"]["claimRef"];
        let mut edges = HashSet::new();
        if claim.is_object() {
            let namespace = text(&claim["namespace"]);
            edges.insert((key.clone(), vertex(Vertex::Claim, namespace, text(&claim["name"]))));
            secrets(&volume["spec"], &mut |reference| {
                let home = reference["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or(namespace);
                edges.insert((vertex(Vertex::Secret, home, text(&reference["name"])), key.clone()));
            });
        }
        self.edges.write().set(key, edges);
    }

    pub fn remove_volume(&self, volume: &Value) {
        self.edges.write().remove(&own(Vertex::Volume, volume));
    }

    /// A VolumeAttachment as it is now.
    pub fn set_attachment(&self, attachment: &Value) {
        self.of_node(Vertex::Attachment, attachment, &attachment["spec"]["nodeName"]);
    }

    pub fn remove_attachment(&self, attachment: &Value) {
        self.edges.write().remove(&own(Vertex::Attachment, attachment));
    }

    /// A ResourceSlice as it is now.
    pub fn set_slice(&self, slice: &Value) {
        self.of_node(Vertex::Slice, slice, &slice["spec"]["nodeName"]);
    }

    pub fn remove_slice(&self, slice: &Value) {
        self.edges.write().remove(&own(Vertex::Slice, slice));
    }

    /// A PodCertificateRequest as it is now.
    pub fn set_pod_certificate(&self, request: &Value) {
        self.of_node(Vertex::PodCertificate, request, &request["spec"]["nodeName"]);
    }

    pub fn remove_pod_certificate(&self, request: &Value) {
        self.edges.write().remove(&own(Vertex::PodCertificate, request));
    }

    fn of_node(&self, kind: Vertex, object: &Value, node: &Value) {
        let key = own(kind, object);
        let node = node.as_str().filter(|name| !name.is_empty());
        let edges = node.map(|name| (key.clone(), vertex(Vertex::Node, "", name))).into_iter().collect();
        self.edges.write().set(key, edges);
    }
}

/// Everything in the pod's namespace that it needs to run.
fn used_by_pod(pod: &Value, namespace: &str, mut add: impl FnMut(Key)) {
    let spec = &pod["spec"];
    let mut named = |kind, name: &Value| {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
            add(vertex(kind, namespace, name));
        }
    };
    named(Vertex::ServiceAccount, &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        named(Vertex::Secret, &secret["name"]);
    }
    for container in ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(|f| list(&spec[f])) {
        for source in list(&container["envFrom"]) {
            named(Vertex::ConfigMap, &source["configMapRef"]["name"]);
            named(Vertex::Secret, &source["secretRef"]["name"]);
        }
        for variable in list(&container["env"]) {
            named(Vertex::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            named(Vertex::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
        }
    }
    for volume in list(&spec["volumes"]) {
        used_by_volume(pod, volume, &mut named);
    }
    for claim in list(&spec["resourceClaims"]) {
        named(Vertex::ResourceClaim, &claim["resourceClaimName"]);
    }
    for status in list(&pod["status"]["resourceClaimStatuses"]) {
        named(Vertex::ResourceClaim, &status["resourceClaimName"]);
    }
    named(Vertex::ResourceClaim, &pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]);
}

fn used_by_volume(pod: &Value, volume: &Value, named: &mut impl FnMut(Vertex, &Value)) {
    named(Vertex::ConfigMap, &volume["configMap"]["name"]);
    named(Vertex::Claim, &volume["persistentVolumeClaim"]["claimName"]);
    if volume["ephemeral"].is_object() {
        let name = format!("{}-{}", text(&pod["metadata"]["name"]), text(&volume["name"]));
        named(Vertex::Claim, &name.into());
    }
    for source in list(&volume["projected"]["sources"]) {
        named(Vertex::ConfigMap, &source["configMap"]["name"]);
        named(Vertex::Secret, &source["secret"]["name"]);
    }
    named(Vertex::Secret, &volume["secret"]["secretName"]);
    named(Vertex::Secret, &volume["azureFile"]["secretName"]);
    secrets(volume, &mut |reference| named(Vertex::Secret, &reference["name"]));
}

/// Calls `see` for the secret references that drivers of volumes have (`secretRef`, `nodePublishSecretRef`, …).
fn secrets(volume: &Value, see: &mut impl FnMut(&Value)) {
    for source in volume.as_object().into_iter().flatten().filter_map(|(_, source)| source.as_object()) {
        // What the controllers of a driver use is no business of nodes.
        let node_side = |field: &str| field.ends_with("ecretRef") && !field.starts_with("controller");
        for (_, reference) in source.iter().filter(|(field, reference)| node_side(field) && reference.is_object()) {
            see(reference);
        }
    }
}
