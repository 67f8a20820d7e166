//! CSI drivers: what they tell the cluster of themselves, of nodes, of attachments and of the room that is left.

use super::{pod, volume, workload};
use crate::{
    check::{Errors, Seen, name, resource, selector},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

pub struct CSIDriver;

static DRIVER_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "AttachRequired",
        "boolean",
        "",
        0,
        "attachRequired indicates this CSI volume driver requires an attach operation (because it implements the \
         CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the \
         attach volume interface which checks the volumeattachment status and waits until the volume is attached \
         before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates \
         the volumeattachment status when the attach operation is complete. If the value is specified to false, \
         the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is \
         immutable.",
    ),
    Column::new(
        "PodInfoOnMount",
        "boolean",
        "",
        0,
        "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, \
         podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be \
         passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver \
         deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() \
         calls. The CSI driver is responsible for parsing and validating the information passed in as \
         VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This \
         list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \
         \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \
         \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline volume\n                                \
         defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature \
         in Kubernetes 1.16. It is only required for drivers which support both the \"Persistent\" and \
         \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or ignore this field. \
         As Kubernetes 1.15 doesn't support this field, drivers can only support one mode when deployed on such \
         a cluster and the deployment determines which mode that is, for example via a command line parameter of \
         the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is mutable.",
    ),
    Column::new(
        "StorageCapacity",
        "boolean",
        "",
        0,
        "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage \
         capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity \
         information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that \
         case, provisioning new volumes with late binding will pause until the driver deployment has published \
         some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field \
         unset or false and it can be flipped later when storage capacity information has been \
         published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
    ),
    Column::new(
        "TokenRequests",
        "string",
        "",
        0,
        "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to \
         do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume \
         calls. The CSI driver should parse and validate the following VolumeContext: \
         \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": <token>,\n    \
         \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: Audience in each \
         TokenRequest should be different and at most one token is empty string. To receive a new token after \
         expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
    ),
    Column::new(
        "RequiresRepublish",
        "boolean",
        "",
        0,
        "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to \
         reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a \
         successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the \
         contents of the volume. New mount points will not be seen by a running container.",
    ),
    Column::new(
        "Modes",
        "string",
        "",
        0,
        "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the \
         list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in \
         Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes \
         are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the \
         lifecycle of that pod. A driver has to be aware of this because it is only going to get a \
         NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see \
         https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of \
         these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
    ),
    column::AGE,
];

impl Strategy for CSIDriver {
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = &new["spec"];
        let told = !tree::list(spec, "tokenRequests").is_empty() && !tree::has(spec, "serviceAccountTokenInSecrets");
        let words = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                     possible logging of tokens in volume attributes";
        if told && old.is_none() { vec![words.to_owned()] } else { Vec::new() }
    }

    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_to(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            tree::default_to(spec, field, false);
        }
        tree::default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        tree::default_empty(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }

    /// A driver is counted from its first change of these, not from the start.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let counted = ["tokenRequests", "requiresRepublish", "seLinuxMount"];
        if counted.iter().any(|field| new["spec"][*field] != old["spec"][*field])
            && let Some(metadata) = tree::child(new, "metadata")
        {
            tree::set(metadata, "generation", tree::int(&old["metadata"], "generation") + 1);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            // Upstream names the first field with a letter pair too many, here and below.
            let needed = ["attachedRequired", "podInfoOnMount", "storageCapacity"];
            for (field, shown) in ["attachRequired", "podInfoOnMount", "storageCapacity"].iter().zip(needed) {
                if !tree::has(spec, field) {
                    errors.required(&path.child(shown), "");
                }
            }
            if let Some(policy) = spec.get("fsGroupPolicy").and_then(Value::as_str) {
                errors.one_of(&path.child("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"]);
            }
            tokens(errors, &path.child("tokenRequests"), tree::list(spec, "tokenRequests"));
            for mode in tree::list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
                errors.one_of(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
            }
            if !tree::has(spec, "seLinuxMount") {
                errors.required(&path.child("seLinuxMount"), "");
            }
            if let Some(seconds) = spec.get("nodeAllocatableUpdatePeriodSeconds").and_then(Value::as_i64)
                && seconds < 10
            {
                let words = "must be greater than or equal to 10 seconds";
                errors.invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), seconds, words);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| {
            for (field, shown) in
                [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
            {
                errors.immutable(&Path::new("spec").child(shown), &new["spec"][field], &old["spec"][field]);
            }
        }));
        found
    }

    fn columns(&self) -> &[Column] {
        DRIVER_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let modes: Vec<&str> = tree::list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
        let audiences: Vec<&str> =
            tree::list(spec, "tokenRequests").iter().map(|request| tree::text(request, "audience")).collect();
        let flag = |key: &str| Value::from(tree::flag(spec, key));
        vec![
            workload::name(object),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            if audiences.is_empty() { "<unset>".into() } else { audiences.join(",").into() },
            flag("requiresRepublish"),
            if modes.is_empty() { "<none>".into() } else { modes.join(",").into() },
            column::age(object, now),
        ]
    }
}

fn tokens(errors: &mut Errors, path: &Path, requests: &[Value]) {
    let mut seen = Seen::default();
    for (i, request) in requests.iter().enumerate() {
        let at = path.index(i);
        let audience = tree::text(request, "audience");
        if !seen.first(audience) {
            errors.duplicate(&at.child("audience"), audience);
            continue;
        }
        let Some(seconds) = request.get("expirationSeconds").and_then(Value::as_i64) else { continue };
        let at = at.child("expirationSeconds");
        if seconds < 600 {
            errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

pub struct CSINode;

static NODE_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Drivers", "integer", "", 0, "Drivers indicates the number of CSI drivers registered on the node"),
    column::AGE,
];

impl Strategy for CSINode {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let mut seen = Seen::default();
            for (i, driver) in tree::list(&object["spec"], "drivers").iter().enumerate() {
                node_driver(errors, &Path::new("spec.drivers").index(i), driver, &mut seen);
            }
        })
    }

    /// A driver that is there may only learn how many volumes it can have.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        let driver = |object: &Value, own: &Value| {
            tree::list(&object["spec"], "drivers").iter().find(|one| one["name"] == own["name"]).cloned()
        };
        found.extend(Errors::of(|errors| {
            for own in tree::list(&old["spec"], "drivers") {
                let Some(now) = driver(new, own) else { continue };
                if ["nodeID", "topologyKeys"].iter().any(|field| now[*field] != own[*field]) {
                    let words = crate::check::IMMUTABLE;
                    errors.invalid_shown(&Path::new("CSINodeDriver"), &node_driver_shown(&now), words);
                }
            }
        }));
        found
    }

    fn columns(&self) -> &[Column] {
        NODE_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let drivers = tree::list(&object["spec"], "drivers").len();
        vec![workload::name(object), drivers.into(), column::age(object, now)]
    }
}

fn node_driver_shown(driver: &Value) -> String {
    let shown = |key: &str| driver.get(key).unwrap_or(&Value::Null).to_string();
    // What may change is not compared, and not shown.
    format!(
        "{{\"Name\":{},\"NodeID\":{},\"TopologyKeys\":{},\"Allocatable\":null}}",
        shown("name"),
        shown("nodeID"),
        shown("topologyKeys")
    )
}

fn node_driver(errors: &mut Errors, at: &Path, driver: &Value, seen: &mut Seen) {
    let (own, id) = (tree::text(driver, "name"), tree::text(driver, "nodeID"));
    pod::driver_name(errors, &at.child("name"), own);
    errors.needs(&at.child("nodeID"), id, "");
    if id.len() > 256 {
        errors.invalid(&at.child("nodeID"), id, "must be 256 characters or less");
    }
    if let Some(count) = driver["allocatable"].get("count").and_then(Value::as_i64).filter(|count| *count < 0) {
        errors.invalid(&at.child("allocatable").child("count"), count, crate::check::number::NOT_NEGATIVE);
    }
    if !seen.first(own) {
        errors.duplicate(&at.child("name"), own);
    }
    let mut keys = Seen::default();
    for key in tree::list(driver, "topologyKeys").iter().filter_map(Value::as_str) {
        errors.needs(at, key, "");
        if !keys.first(key) {
            errors.duplicate(at, key);
        }
        errors.invalid_for(at, key, name::qualified(key));
    }
}

pub struct VolumeAttachment;

static ATTACHMENT_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Attacher",
        "string",
        "name",
        0,
        "attacher indicates the name of the volume driver that MUST handle this request. This is the name \
         returned by GetPluginName().",
    ),
    Column::new("PV", "string", "", 0, "persistentVolumeName represents the name of the persistent volume to attach."),
    Column::new("Node", "string", "", 0, "nodeName represents the node that the volume should be attached to."),
    Column::new(
        "Attached",
        "boolean",
        "",
        0,
        "attached indicates the volume is successfully attached. This field must only be set by the entity \
         completing the attach operation, i.e. the external-attacher.",
    ),
    column::AGE,
];

impl Strategy for VolumeAttachment {
    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            pod::driver_name(errors, &path.child("attacher"), tree::text(spec, "attacher"));
            attached_source(errors, &path.child("source"), &spec["source"]);
            let node = tree::text(spec, "nodeName");
            errors.invalid_for(&path.child("nodeName"), node, names::dns1123_subdomain_errors(node));
            attachment_status(errors, &Path::new("status"), &object["status"]);
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        self.validate_update(new, old)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        if new["spec"] != old["spec"] {
            let spec = &new["spec"];
            let source = &spec["source"];
            let shown = format!(
                "{{\"Attacher\":{},\"Source\":{{\"PersistentVolumeName\":{},\"InlineVolumeSpec\":{}}},\"NodeName\":{}}}",
                spec["attacher"], source["persistentVolumeName"], source["inlineVolumeSpec"], spec["nodeName"]
            );
            let words = crate::check::IMMUTABLE;
            found.extend(Errors::of(|errors| errors.invalid_shown(&Path::new("spec"), &shown, words)));
        }
        found
    }

    fn columns(&self) -> &[Column] {
        ATTACHMENT_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            workload::name(object),
            tree::text(spec, "attacher").into(),
            tree::text(&spec["source"], "persistentVolumeName").into(),
            tree::text(spec, "nodeName").into(),
            tree::flag(&object["status"], "attached").into(),
            column::age(object, now),
        ]
    }
}

fn attached_source(errors: &mut Errors, at: &Path, source: &Value) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (tree::has(source, "inlineVolumeSpec"), source.get("persistentVolumeName").and_then(Value::as_str)) {
        (false, None) => errors.required(at, ONE),
        (true, Some(_)) => errors.forbidden(at, ONE),
        (false, Some("")) => {
            errors.required(&at.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (false, Some(name)) => {
            errors.invalid_for(&at.child("persistentVolumeName"), name, names::dns1123_subdomain_errors(name));
        }
        (true, None) => {
            volume::validate_inline(errors, &at.child("inlineVolumeSpec"), &source["inlineVolumeSpec"]);
        }
    }
}

/// What the attacher tells is limited in size.
fn attachment_status(errors: &mut Errors, path: &Path, status: &Value) {
    const MOST_BYTES: usize = 256 * 1024;
    const LONGEST_MESSAGE: usize = 1024;
    let told = tree::entries(status, "attachmentMetadata");
    let size: usize = told.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MOST_BYTES {
        errors.too_long(&path.child("attachmentMetadata"), MOST_BYTES);
    }
    for field in ["attachError", "detachError"] {
        let (at, message) = (path.child(field).child("message"), tree::text(&status[field], "message"));
        if message.len() > LONGEST_MESSAGE {
            // Upstream names the other limit.
            errors.too_long(&at, MOST_BYTES);
        }
    }
}

pub struct CSIStorageCapacity;

impl Strategy for CSIStorageCapacity {
    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let topology = &new["nodeTopology"];
        let mut found = Vec::new();
        for (i, requirement) in tree::list(topology, "matchExpressions").iter().enumerate() {
            let told = pod::old_label(tree::text(requirement, "key"));
            found.extend(told.map(|words| format!("nodeTopology.matchExpressions[{i}].key: {words}")));
        }
        for (key, _) in tree::entries(topology, "matchLabels") {
            found.extend(pod::old_label(key).map(|words| format!("nodeTopology.matchLabels.{key}: {words}")));
        }
        found
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            selector::labels(errors, &Path::new("nodeTopology"), &object["nodeTopology"]);
            let class = tree::text(object, "storageClassName");
            errors.invalid_for(&Path::new("storageClassName"), class, names::dns1123_subdomain_errors(class));
            resource::not_negative(errors, &Path::new("capacity"), &object["capacity"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| {
            let topology = &new["nodeTopology"];
            if *topology != old["nodeTopology"] {
                errors.invalid_shown(&Path::new("nodeTopology"), &selector::shown(topology), crate::check::IMMUTABLE);
            }
            let class = &Path::new("storageClassName");
            errors.immutable(class, &new["storageClassName"], &old["storageClassName"]);
        }));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers() {
        let mut object = json!({"spec": {}});
        CSIDriver.default("storage.k8s.io/v1", &mut object);
        assert!(CSIDriver.validate(&object).is_empty());
        object["spec"]["tokenRequests"] = json!([{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]);
        assert_eq!(CSIDriver.validate(&object).len(), 2);
    }

    #[test]
    fn tokens_in_attributes_are_warned_of() {
        let mut driver = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
        assert_eq!(CSIDriver.warnings(&driver, None).len(), 1);
        assert!(CSIDriver.warnings(&driver, Some(&driver)).is_empty(), "only once");
        driver["spec"]["serviceAccountTokenInSecrets"] = json!(false);
        assert!(CSIDriver.warnings(&driver, None).is_empty(), "it was decided");
    }
}
