//! One row for each resource that is built in. Adding a kind: a row here, and a file in `kinds/` if it needs one.

use crate::{
    def::{Extract, ResourceDef, ScalePaths, SelectableField, StorageDef, Subresource, api_version},
    kinds::{
        apiservice, autoscaler, certificate, claim, class, component, config, crd, cronjob, csi, daemonset, deployment,
        device, disruption, endpoints, event, flow, ingress, job, lease, migration, namespace, network, node, pod,
        policy, quota, rbac, replicaset, scheduling, service, statefulset, storage, volume, webhook,
    },
    strategy::{Plain, Strategy, StrategyRef},
};
use base64::Engine;
use pintle_types::names::GroupVersionKind;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE_ONLY: &[&str] = &["create"];
const READ_ONLY: &[&str] = &["get", "list"];

/// What a row says of one resource in all its versions.
struct Row {
    group: &'static str,
    /// The stored one first.
    versions: &'static [&'static str],
    kind: &'static str,
    resource: &'static str,
    namespaced: bool,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static [&'static str],
    subs: &'static [Sub],
    strategy: &'static dyn Strategy,
}

impl Row {
    const fn new(
        group: &'static str,
        versions: &'static [&'static str],
        kind: &'static str,
        resource: &'static str,
        strategy: &'static dyn Strategy,
    ) -> Self {
        Self {
            group,
            versions,
            kind,
            resource,
            namespaced: true,
            short: &[],
            categories: &[],
            verbs: ALL_VERBS,
            subs: &[],
            strategy,
        }
    }
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }
    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }
    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }
    const fn extends_api(mut self) -> Self {
        self.categories = &["api-extensions"];
        self
    }
    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }
    const fn subs(mut self, subs: &'static [Sub]) -> Self {
        self.subs = subs;
        self
    }
}

/// A subresource of a row: its name, the group, version and kind of a body of its own, its verbs.
struct Sub(&'static str, Option<(&'static str, &'static str, &'static str)>, &'static [&'static str]);

const CHANGE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const STATUS: Sub = Sub("status", None, CHANGE);
const SCALE: Sub = Sub("scale", Some(("autoscaling", "v1", "Scale")), CHANGE);
const NAMESPACES: &[Sub] = &[Sub("finalize", None, &["update"]), STATUS];
const NODES: &[Sub] = &[Sub("proxy", Some(("", "v1", "NodeProxyOptions")), PROXY), STATUS];
const PODS: &[Sub] = &[
    Sub("attach", Some(("", "v1", "PodAttachOptions")), CONNECT),
    Sub("binding", Some(("", "v1", "Binding")), CREATE_ONLY),
    Sub("ephemeralcontainers", None, CHANGE),
    Sub("eviction", Some(("policy", "v1", "Eviction")), CREATE_ONLY),
    Sub("exec", Some(("", "v1", "PodExecOptions")), CONNECT),
    Sub("log", None, &["get"]),
    Sub("portforward", Some(("", "v1", "PodPortForwardOptions")), CONNECT),
    Sub("proxy", Some(("", "v1", "PodProxyOptions")), PROXY),
    Sub("resize", None, CHANGE),
    STATUS,
];
const SERVICEACCOUNTS: &[Sub] = &[Sub("token", Some(("authentication.k8s.io", "v1", "TokenRequest")), CREATE_ONLY)];
const SERVICES: &[Sub] = &[Sub("proxy", Some(("", "v1", "ServiceProxyOptions")), PROXY), STATUS];
const CERTIFICATESIGNINGREQUESTS: &[Sub] = &[Sub("approval", None, CHANGE), STATUS];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row::new("", &["v1"], "Binding", "bindings", &Plain).verbs(CREATE_ONLY),
    Row::new("", &["v1"], "ComponentStatus", "componentstatuses", &component::ComponentStatus).cluster().short(&["cs"]).verbs(READ_ONLY),
    Row::new("", &["v1"], "ConfigMap", "configmaps", &config::ConfigMap).short(&["cm"]),
    Row::new("", &["v1"], "Endpoints", "endpoints", &endpoints::Endpoints).short(&["ep"]),
    Row::new("", &["v1"], "Event", "events", &event::Event).short(&["ev"]),
    Row::new("", &["v1"], "LimitRange", "limitranges", &quota::LimitRange).short(&["limits"]),
    Row::new("", &["v1"], "Namespace", "namespaces", &namespace::Namespace).cluster().short(&["ns"]).verbs(NO_COLLECTION).subs(NAMESPACES),
    Row::new("", &["v1"], "Node", "nodes", &node::Node).cluster().short(&["no"]).subs(NODES),
    Row::new("", &["v1"], "PersistentVolumeClaim", "persistentvolumeclaims", &claim::PersistentVolumeClaim).short(&["pvc"]).subs(&[STATUS]),
    Row::new("", &["v1"], "PersistentVolume", "persistentvolumes", &volume::PersistentVolume).cluster().short(&["pv"]).subs(&[STATUS]),
    Row::new("", &["v1"], "Pod", "pods", &pod::Pod).short(&["po"]).all().subs(PODS),
    Row::new("", &["v1"], "PodTemplate", "podtemplates", &pod::PodTemplate),
    Row::new("", &["v1"], "ReplicationController", "replicationcontrollers", &replicaset::ReplicationController).short(&["rc"]).all().subs(&[SCALE, STATUS]),
    Row::new("", &["v1"], "ResourceQuota", "resourcequotas", &quota::ResourceQuota).short(&["quota"]).subs(&[STATUS]),
    Row::new("", &["v1"], "Secret", "secrets", &config::Secret),
    Row::new("", &["v1"], "ServiceAccount", "serviceaccounts", &config::ServiceAccount).short(&["sa"]).subs(SERVICEACCOUNTS),
    Row::new("", &["v1"], "Service", "services", &service::Service).short(&["svc"]).all().subs(SERVICES),

    Row::new("apiregistration.k8s.io", &["v1"], "APIService", "apiservices", &apiservice::APIService).cluster().extends_api().subs(&[STATUS]),

    Row::new("apps", &["v1"], "ControllerRevision", "controllerrevisions", &replicaset::ControllerRevision),
    Row::new("apps", &["v1"], "DaemonSet", "daemonsets", &daemonset::DaemonSet).short(&["ds"]).all().subs(&[STATUS]),
    Row::new("apps", &["v1"], "Deployment", "deployments", &deployment::Deployment).short(&["deploy"]).all().subs(&[SCALE, STATUS]),
    Row::new("apps", &["v1"], "ReplicaSet", "replicasets", &replicaset::ReplicaSet).short(&["rs"]).all().subs(&[SCALE, STATUS]),
    Row::new("apps", &["v1"], "StatefulSet", "statefulsets", &statefulset::StatefulSet).short(&["sts"]).all().subs(&[SCALE, STATUS]),

    Row::new("events.k8s.io", &["v1"], "Event", "events", &event::Event).short(&["ev"]),

    Row::new("authentication.k8s.io", &["v1"], "SelfSubjectReview", "selfsubjectreviews", &Plain).cluster().verbs(CREATE_ONLY),
    Row::new("authentication.k8s.io", &["v1"], "TokenReview", "tokenreviews", &Plain).cluster().verbs(CREATE_ONLY),

    Row::new("authorization.k8s.io", &["v1"], "LocalSubjectAccessReview", "localsubjectaccessreviews", &Plain).verbs(CREATE_ONLY),
    Row::new("authorization.k8s.io", &["v1"], "SelfSubjectAccessReview", "selfsubjectaccessreviews", &Plain).cluster().verbs(CREATE_ONLY),
    Row::new("authorization.k8s.io", &["v1"], "SelfSubjectRulesReview", "selfsubjectrulesreviews", &Plain).cluster().verbs(CREATE_ONLY),
    Row::new("authorization.k8s.io", &["v1"], "SubjectAccessReview", "subjectaccessreviews", &Plain).cluster().verbs(CREATE_ONLY),

    Row::new("autoscaling", &["v2", "v1"], "HorizontalPodAutoscaler", "horizontalpodautoscalers", &autoscaler::HorizontalPodAutoscaler).short(&["hpa"]).all().subs(&[STATUS]),

    Row::new("batch", &["v1"], "CronJob", "cronjobs", &cronjob::CronJob).short(&["cj"]).all().subs(&[STATUS]),
    Row::new("batch", &["v1"], "Job", "jobs", &job::Job).all().subs(&[STATUS]),

    Row::new("certificates.k8s.io", &["v1"], "CertificateSigningRequest", "certificatesigningrequests", &certificate::CertificateSigningRequest).cluster().short(&["csr"]).subs(CERTIFICATESIGNINGREQUESTS),
    Row::new("certificates.k8s.io", &["v1beta1", "v1alpha1"], "ClusterTrustBundle", "clustertrustbundles", &certificate::ClusterTrustBundle).cluster(),
    Row::new("certificates.k8s.io", &["v1beta1"], "PodCertificateRequest", "podcertificaterequests", &certificate::PodCertificateRequest).subs(&[STATUS]),

    Row::new("networking.k8s.io", &["v1"], "IngressClass", "ingressclasses", &ingress::IngressClass).cluster(),
    Row::new("networking.k8s.io", &["v1"], "Ingress", "ingresses", &ingress::Ingress).short(&["ing"]).subs(&[STATUS]),
    Row::new("networking.k8s.io", &["v1", "v1beta1"], "IPAddress", "ipaddresses", &network::IPAddress).cluster().short(&["ip"]),
    Row::new("networking.k8s.io", &["v1"], "NetworkPolicy", "networkpolicies", &network::NetworkPolicy).short(&["netpol"]),
    Row::new("networking.k8s.io", &["v1", "v1beta1"], "ServiceCIDR", "servicecidrs", &network::ServiceCIDR).cluster().subs(&[STATUS]),

    Row::new("policy", &["v1"], "PodDisruptionBudget", "poddisruptionbudgets", &disruption::PodDisruptionBudget).short(&["pdb"]).subs(&[STATUS]),

    Row::new("rbac.authorization.k8s.io", &["v1"], "ClusterRoleBinding", "clusterrolebindings", &rbac::Binding { cluster: true }).cluster(),
    Row::new("rbac.authorization.k8s.io", &["v1"], "ClusterRole", "clusterroles", &rbac::Role { cluster: true }).cluster(),
    Row::new("rbac.authorization.k8s.io", &["v1"], "RoleBinding", "rolebindings", &rbac::Binding { cluster: false }),
    Row::new("rbac.authorization.k8s.io", &["v1"], "Role", "roles", &rbac::Role { cluster: false }),

    Row::new("storage.k8s.io", &["v1"], "CSIDriver", "csidrivers", &csi::CSIDriver).cluster(),
    Row::new("storage.k8s.io", &["v1"], "CSINode", "csinodes", &csi::CSINode).cluster(),
    Row::new("storage.k8s.io", &["v1"], "CSIStorageCapacity", "csistoragecapacities", &csi::CSIStorageCapacity),
    Row::new("storage.k8s.io", &["v1"], "StorageClass", "storageclasses", &storage::StorageClass).cluster().short(&["sc"]),
    Row::new("storage.k8s.io", &["v1"], "VolumeAttachment", "volumeattachments", &csi::VolumeAttachment).cluster().subs(&[STATUS]),
    Row::new("storage.k8s.io", &["v1", "v1beta1"], "VolumeAttributesClass", "volumeattributesclasses", &storage::VolumeAttributesClass).cluster().short(&["vac"]),

    Row::new("admissionregistration.k8s.io", &["v1beta1", "v1", "v1alpha1"], "MutatingAdmissionPolicy", "mutatingadmissionpolicies", &policy::AdmissionPolicy { mutating: true }).cluster().extends_api(),
    Row::new("admissionregistration.k8s.io", &["v1beta1", "v1", "v1alpha1"], "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", &policy::AdmissionPolicyBinding { mutating: true }).cluster().extends_api(),
    Row::new("admissionregistration.k8s.io", &["v1"], "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &webhook::WebhookConfiguration { mutating: true }).cluster().extends_api(),
    Row::new("admissionregistration.k8s.io", &["v1"], "ValidatingAdmissionPolicy", "validatingadmissionpolicies", &policy::AdmissionPolicy { mutating: false }).cluster().extends_api().subs(&[STATUS]),
    Row::new("admissionregistration.k8s.io", &["v1"], "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", &policy::AdmissionPolicyBinding { mutating: false }).cluster().extends_api(),
    Row::new("admissionregistration.k8s.io", &["v1"], "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", &webhook::WebhookConfiguration { mutating: false }).cluster().extends_api(),

    Row::new("apiextensions.k8s.io", &["v1"], "CustomResourceDefinition", "customresourcedefinitions", &crd::CustomResourceDefinition).cluster().short(&["crd", "crds"]).extends_api().subs(&[STATUS]),

    Row::new("scheduling.k8s.io", &["v1alpha2"], "PodGroup", "podgroups", &scheduling::PodGroup).subs(&[STATUS]),
    Row::new("scheduling.k8s.io", &["v1"], "PriorityClass", "priorityclasses", &class::PriorityClass).cluster().short(&["pc"]),
    Row::new("scheduling.k8s.io", &["v1alpha2"], "Workload", "workloads", &scheduling::Workload),

    Row::new("coordination.k8s.io", &["v1beta1", "v1alpha2"], "LeaseCandidate", "leasecandidates", &lease::LeaseCandidate),
    Row::new("coordination.k8s.io", &["v1"], "Lease", "leases", &lease::Lease),

    Row::new("node.k8s.io", &["v1"], "RuntimeClass", "runtimeclasses", &class::RuntimeClass).cluster(),

    Row::new("discovery.k8s.io", &["v1"], "EndpointSlice", "endpointslices", &endpoints::EndpointSlice),

    Row::new("resource.k8s.io", &["v1", "v1beta2", "v1beta1"], "DeviceClass", "deviceclasses", &device::DeviceClass).cluster(),
    Row::new("resource.k8s.io", &["v1alpha3", "v1beta2"], "DeviceTaintRule", "devicetaintrules", &device::DeviceTaintRule).cluster().subs(&[STATUS]),
    Row::new("resource.k8s.io", &["v1", "v1beta2", "v1beta1"], "ResourceClaim", "resourceclaims", &device::ResourceClaim { template: false }).subs(&[STATUS]),
    Row::new("resource.k8s.io", &["v1", "v1beta2", "v1beta1"], "ResourceClaimTemplate", "resourceclaimtemplates", &device::ResourceClaim { template: true }),
    Row::new("resource.k8s.io", &["v1alpha3"], "ResourcePoolStatusRequest", "resourcepoolstatusrequests", &device::ResourcePoolStatusRequest).cluster().subs(&[STATUS]),
    Row::new("resource.k8s.io", &["v1", "v1beta2", "v1beta1"], "ResourceSlice", "resourceslices", &device::ResourceSlice).cluster(),

    Row::new("flowcontrol.apiserver.k8s.io", &["v1"], "FlowSchema", "flowschemas", &flow::FlowSchema).cluster().subs(&[STATUS]),
    Row::new("flowcontrol.apiserver.k8s.io", &["v1"], "PriorityLevelConfiguration", "prioritylevelconfigurations", &flow::PriorityLevelConfiguration).cluster().subs(&[STATUS]),

    Row::new("internal.apiserver.k8s.io", &["v1alpha1"], "StorageVersion", "storageversions", &Plain).cluster().subs(&[STATUS]),

    Row::new("storagemigration.k8s.io", &["v1beta1"], "StorageVersionMigration", "storageversionmigrations", &migration::StorageVersionMigration).cluster().subs(&[STATUS]),
];

/// The definitions of all rows, one for each version.
pub(crate) fn builtin() -> Vec<Arc<ResourceDef>> {
    ROWS.iter().flat_map(defs_of).map(Arc::new).collect()
}

fn defs_of(row: &'static Row) -> impl Iterator<Item = ResourceDef> {
    let storage = Arc::new(storage_of(row));
    row.versions.iter().map(move |version| ResourceDef {
        group: row.group.into(),
        version: (*version).into(),
        kind: row.kind.into(),
        list_kind: format!("{}List", row.kind),
        resource: row.resource.into(),
        singular: row.kind.to_lowercase(),
        short_names: row.short.iter().map(|name| (*name).into()).collect(),
        categories: row.categories.iter().map(|name| (*name).into()).collect(),
        namespaced: row.namespaced,
        verbs: row.verbs.to_vec(),
        subresources: row.subs.iter().map(|sub| subresource(row, sub)).collect(),
        storage: storage.clone(),
        selectable_fields: selectable_fields(row),
        scale: row.subs.iter().any(|sub| sub.0 == "scale").then(scale_paths),
        definition: definition(row.group, version, row.kind),
        schema: None,
        strategy: StrategyRef::Static(row.strategy),
    })
}

fn subresource(row: &Row, sub: &Sub) -> Subresource {
    Subresource {
        name: sub.0.into(),
        body: sub.1.map(|(group, version, kind)| GroupVersionKind::new(group, version, kind)),
        foreign: sub.1.is_some_and(|(group, _, _)| group != row.group),
        verbs: sub.2.to_vec(),
    }
}

fn scale_paths() -> ScalePaths {
    ScalePaths {
        spec_replicas: "spec.replicas".into(),
        status_replicas: "status.replicas".into(),
        selector: Some("spec.selector".into()),
    }
}

fn storage_of(row: &Row) -> StorageDef {
    // Both groups that serve events store them in the core group's form.
    let group = if row.resource == "events" { "" } else { row.group };
    let version = row.versions[0];
    // Upstream still stores these in a version that it no longer serves, and tells so in the hash.
    let hashed = if row.resource == "customresourcedefinitions" { "v1beta1" } else { version };
    StorageDef {
        group: group.into(),
        version: version.into(),
        kind: row.kind.into(),
        resource: row.resource.into(),
        key_prefix: key_prefix(row.group, row.resource),
        version_hash: match row.verbs.contains(&"watch") {
            true => version_hash(group, hashed, row.kind),
            false => String::new(),
        },
    }
}

/// Where upstream keeps the objects of a resource.
fn key_prefix(group: &str, resource: &str) -> String {
    match resource {
        "services" => "/registry/services/specs".into(),
        "endpoints" => "/registry/services/endpoints".into(),
        "nodes" => "/registry/minions".into(),
        "replicationcontrollers" => "/registry/controllers".into(),
        "ingresses" => "/registry/ingress".into(),
        "customresourcedefinitions" | "apiservices" => format!("/registry/{group}/{resource}"),
        _ => format!("/registry/{resource}"),
    }
}

/// Discovery's `storageVersionHash`: clients compare it to see that the stored form changed.
pub fn version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// The OpenAPI definition of a built-in kind.
fn definition(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        "apiregistration.k8s.io" => {
            format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
        }
        "internal.apiserver.k8s.io" => format!("io.k8s.api.apiserverinternal.{version}.{kind}"),
        _ => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)),
    }
}

fn selectable_fields(row: &Row) -> Vec<SelectableField> {
    let field = |path: &str, extract: Extract| SelectableField { path: path.into(), extract };
    let mut fields = vec![field("metadata.name", Extract::Text)];
    if row.namespaced {
        fields.push(field("metadata.namespace", Extract::Text));
    }
    for (path, extract) in own_fields(&api_version(row.group, row.versions[0]), row.resource) {
        fields.push(field(path, extract));
    }
    fields
}

/// What a resource can be filtered by besides name and namespace.
fn own_fields(api_version: &str, resource: &str) -> Vec<(&'static str, Extract)> {
    let texts = |paths: &[&'static str]| paths.iter().map(|path| (*path, Extract::Text)).collect();
    match (api_version, resource) {
        ("v1", "pods") => vec![
            ("spec.nodeName", Extract::Text),
            ("spec.restartPolicy", Extract::Text),
            ("spec.schedulerName", Extract::Text),
            ("spec.serviceAccountName", Extract::Text),
            ("spec.hostNetwork", Extract::Flag),
            ("status.phase", Extract::Text),
            ("status.podIP", Extract::Text),
            ("status.nominatedNodeName", Extract::Text),
        ],
        ("v1", "nodes") => vec![("spec.unschedulable", Extract::Flag)],
        ("v1", "namespaces") => texts(&["status.phase"]),
        ("v1", "secrets") => texts(&["type"]),
        ("v1", "services") => texts(&["spec.clusterIP", "spec.type"]),
        ("v1", "replicationcontrollers") => vec![("status.replicas", Extract::Number("status.replicas"))],
        ("apps/v1", "replicasets") => vec![("status.replicas", Extract::Number("status.replicas"))],
        ("batch/v1", "jobs") => vec![("status.successful", Extract::Number("status.succeeded"))],
        ("v1", "events") => CORE_EVENT_FIELDS.to_vec(),
        ("events.k8s.io/v1", "events") => EVENT_FIELDS.to_vec(),
        ("certificates.k8s.io/v1", "certificatesigningrequests") => texts(&["spec.signerName"]),
        ("certificates.k8s.io/v1beta1", "clustertrustbundles") => texts(&["spec.signerName"]),
        ("certificates.k8s.io/v1beta1", "podcertificaterequests") => {
            texts(&["spec.signerName", "spec.podName", "spec.nodeName"])
        }
        ("resource.k8s.io/v1", "resourceslices") => texts(&["spec.nodeName", "spec.driver"]),
        _ => Vec::new(),
    }
}

const CORE_EVENT_FIELDS: &[(&str, Extract)] = &[
    ("involvedObject.kind", Extract::Text),
    ("involvedObject.namespace", Extract::Text),
    ("involvedObject.name", Extract::Text),
    ("involvedObject.uid", Extract::Text),
    ("involvedObject.apiVersion", Extract::Text),
    ("involvedObject.resourceVersion", Extract::Text),
    ("involvedObject.fieldPath", Extract::Text),
    ("reason", Extract::Text),
    ("reportingComponent", Extract::Text),
    ("source", Extract::Custom(event_source)),
    ("type", Extract::Text),
];

const EVENT_FIELDS: &[(&str, Extract)] = &[
    ("regarding.kind", Extract::At("involvedObject.kind")),
    ("regarding.namespace", Extract::At("involvedObject.namespace")),
    ("regarding.name", Extract::At("involvedObject.name")),
    ("regarding.uid", Extract::At("involvedObject.uid")),
    ("regarding.apiVersion", Extract::At("involvedObject.apiVersion")),
    ("regarding.resourceVersion", Extract::At("involvedObject.resourceVersion")),
    ("regarding.fieldPath", Extract::At("involvedObject.fieldPath")),
    ("reason", Extract::Text),
    ("reportingController", Extract::At("reportingComponent")),
    ("type", Extract::Text),
];

fn event_source(event: &serde_json::Value) -> String {
    let component = crate::tree::text(&event["source"], "component");
    if component.is_empty() { crate::tree::text(event, "reportingComponent").into() } else { component.into() }
}
