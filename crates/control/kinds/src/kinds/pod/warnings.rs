//! What is allowed in a pod but hardly meant so: the texts of `Warning` headers about pods and their templates.

use crate::{
    check::{name, net, resource},
    tree,
};
use pintle_types::field::Path;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// Labels of nodes that have newer names.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
];

const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// About the addresses in the status of a pod.
pub(super) fn of_addresses(status: &Value) -> Vec<String> {
    let list = |field: &'static str| {
        let path = Path::new("status").child(field);
        let warning =
            move |(i, one): (usize, &Value)| net::ip_warning(&path.index(i).child("ip"), tree::text(one, "ip"));
        tree::list(status, field).iter().enumerate().filter_map(warning)
    };
    list("podIPs").chain(list("hostIPs")).collect()
}

/// About a pod, or (with a path) about a template at that path.
pub(crate) fn of(path: Option<&str>, object: &Value) -> Vec<String> {
    let at = |field: &str| path.map_or_else(|| Path::new(field), |path| Path::new(path).child(field));
    let (spec_path, metadata_path) = (at("spec"), at("metadata"));
    let (spec, annotations) = (&object["spec"], &object["metadata"]["annotations"]);
    let mut found = Found(Vec::new());
    found.placement(&spec_path, spec);
    for (key, words) in OLD_ANNOTATIONS {
        if annotations.get(key).is_some() {
            found.add(&metadata_path.child("annotations").key(key), words);
        }
    }
    found.volumes(&spec_path.child("volumes"), tree::list(spec, "volumes"));
    found.repeated(&spec_path.child("hostAliases"), tree::list(spec, "hostAliases"), "ip");
    found.repeated(&spec_path.child("imagePullSecrets"), tree::list(spec, "imagePullSecrets"), "name");
    for (i, secret) in tree::list(spec, "imagePullSecrets").iter().enumerate() {
        if tree::text(secret, "name").is_empty() {
            found.add(&spec_path.child("imagePullSecrets").index(i).child("name"), "invalid empty name \"\"");
        }
    }
    found.fractions(&spec_path.child("overhead"), &spec["overhead"]);
    found.seccomp_of_pod(&metadata_path.child("annotations"), annotations, spec);
    for (at, container) in containers(&spec_path, spec) {
        found.seccomp_of_container(&metadata_path.child("annotations"), annotations, container);
        if path.is_some() {
            found.apparmor(&metadata_path.child("annotations"), annotations, spec, container);
        }
        for field in ["limits", "requests"] {
            found.fractions(&at.child("resources").child(field), &container["resources"][field]);
        }
        found.variables(&at.child("env"), tree::list(container, "env"));
    }
    found.ports(&spec_path, spec);
    if tree::int(spec, "terminationGracePeriodSeconds") < 0 {
        let words = "must be >= 0; negative values are invalid and will be treated as 1";
        found.add(&spec_path.child("terminationGracePeriodSeconds"), words);
    }
    found.selectors(&spec_path.child("affinity"), &spec["affinity"]);
    found.0
}

/// The same about a template, when it is new or its owner's spec changed.
pub(crate) fn of_template(path: &str, template: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some_and(|old| old["spec"] == new["spec"]) { Vec::new() } else { of(Some(path), template) }
}

/// What is told of a key of a node's label that has a newer name.
pub(crate) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(old, _)| *old == key).map(|(_, words)| *words)
}

/// About one term of a node selector.
pub(crate) fn of_node_term(path: &Path, term: &Value) -> Vec<String> {
    let mut found = Found(Vec::new());
    found.node_term(path, term);
    found.0
}

/// About amounts of storage that are no whole bytes.
pub(crate) fn of_claim_spec(path: &Path, spec: &Value) -> Vec<String> {
    let mut found = Found(Vec::new());
    for field in ["requests", "limits"] {
        found.fraction(&path.child("resources").child(field), &spec["resources"][field], "storage");
    }
    found.0
}

/// All containers with their paths, in upstream's order of visiting.
fn containers<'a>(path: &Path, spec: &'a Value) -> Vec<(Path, &'a Value)> {
    let of = |field: &'static str| {
        let at = path.child(field);
        tree::list(spec, field).iter().enumerate().map(move |(i, container)| (at.index(i), container))
    };
    of("initContainers").chain(of("containers")).chain(of("ephemeralContainers")).collect()
}

struct Found(Vec<String>);

impl Found {
    fn add(&mut self, path: &Path, words: &str) {
        self.0.push(format!("{}: {words}", path.as_str()));
    }

    fn placement(&mut self, path: &Path, spec: &Value) {
        for (key, _) in tree::entries(spec, "nodeSelector") {
            if let Some(words) = old_label(key) {
                self.add(&path.child("nodeSelector").key(key), words);
            }
        }
        let (at, affinity) = (path.child("affinity").child("nodeAffinity"), &spec["affinity"]["nodeAffinity"]);
        let (required, preferred) =
            ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in tree::list(&affinity[required], "nodeSelectorTerms").iter().enumerate() {
            self.node_term(&at.child(required).child("nodeSelectorTerms").index(i), term);
        }
        for (i, term) in tree::list(affinity, preferred).iter().enumerate() {
            self.node_term(&at.child(preferred).index(i).child("preference"), &term["preference"]);
        }
        for (i, constraint) in tree::list(spec, "topologySpreadConstraints").iter().enumerate() {
            let at = path.child("topologySpreadConstraints").index(i);
            let key = tree::text(constraint, "topologyKey");
            if let Some(words) = old_label(key) {
                self.add(&at.child("topologyKey"), &format!("{key} is {words}"));
            }
            if !tree::has(constraint, "labelSelector") {
                self.add(&at.child("labelSelector"), NO_SELECTOR);
            }
        }
    }

    fn node_term(&mut self, path: &Path, term: &Value) {
        for (i, requirement) in tree::list(term, "matchExpressions").iter().enumerate() {
            let (at, key) = (path.child("matchExpressions").index(i), tree::text(requirement, "key"));
            if let Some(words) = old_label(key) {
                self.add(&at.child("key"), &format!("{key} is {words}"));
            }
            for (j, value) in tree::list(requirement, "values").iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                for why in name::label_value(value) {
                    self.add(&at.child("values").index(j), &format!("{value} is invalid, {why}"));
                }
            }
        }
    }

    fn volumes(&mut self, path: &Path, volumes: &[Value]) {
        for (i, volume) in volumes.iter().enumerate() {
            for (field, words) in OLD_VOLUMES.iter().filter(|(field, _)| tree::has(volume, field)) {
                self.add(&path.index(i).child(field), words);
            }
            let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
            let at = path.index(i).child("ephemeral").child("volumeClaimTemplate").child("spec");
            self.0.extend(of_claim_spec(&at, claim));
            self.overlaps(volume);
        }
    }

    fn overlaps(&mut self, volume: &Value) {
        let sources = [
            ("configMap", format!("ConfigMap {:?}", tree::text(&volume["configMap"], "name"))),
            ("secret", format!("Secret {:?}", tree::text(&volume["secret"], "secretName"))),
            ("downwardAPI", "DownwardAPI".to_owned()),
        ];
        for (field, shown) in sources {
            let mut before: Vec<&str> = Vec::new();
            let mut pairs = Vec::new();
            for item in tree::list(&volume[field], "items") {
                let path = tree::text(item, "path").trim_end_matches('/');
                let overlapping = before.iter().filter(|other| overlap(path, other));
                pairs.extend(overlapping.map(|other| format!("{path:?} with {other:?}")));
                before.push(path);
            }
            if !pairs.is_empty() {
                let (name, pairs) = (tree::text(volume, "name"), pairs.join(", "));
                self.0.push(format!("volume {name:?} ({shown}): overlapping paths: {pairs}"));
            }
        }
    }

    fn repeated(&mut self, path: &Path, items: &[Value], field: &str) {
        let mut seen = HashSet::new();
        for (i, item) in items.iter().enumerate() {
            let value = tree::text(item, field);
            if !seen.insert(value) {
                self.add(&path.index(i).child(field), &format!("duplicate {field} {value:?}"));
            }
        }
    }

    fn fractions(&mut self, path: &Path, amounts: &Value) {
        for key in ["memory", "ephemeral-storage"] {
            self.fraction(path, amounts, key);
        }
    }

    fn fraction(&mut self, path: &Path, amounts: &Value, key: &str) {
        let amount = amounts.get(key).and_then(resource::quantity);
        if let Some(amount) = amount.filter(|amount| !amount.is_whole()) {
            self.add(
                &path.key(key),
                &format!("fractional byte value {:?} is invalid, must be an integer", amount.to_string()),
            );
        }
    }

    fn seccomp_of_pod(&mut self, path: &Path, annotations: &Value, spec: &Value) {
        let profile = tree::has(&spec["securityContext"], "seccompProfile");
        if !profile && annotations.get(SECCOMP_POD).is_some() {
            self.add(&path.key(SECCOMP_POD), "non-functional in v1.27+; use the \"seccompProfile\" field instead");
        }
    }

    fn seccomp_of_container(&mut self, path: &Path, annotations: &Value, container: &Value) {
        let key = format!("{SECCOMP_CONTAINER}{}", tree::text(container, "name"));
        let profile = tree::has(&container["securityContext"], "seccompProfile");
        if !profile && annotations.get(&key).is_some() {
            self.add(&path.key(&key), "non-functional in v1.27+; use the \"seccompProfile\" field instead");
        }
    }

    fn apparmor(&mut self, path: &Path, annotations: &Value, spec: &Value, container: &Value) {
        let key = format!("{APPARMOR}{}", tree::text(container, "name"));
        let profile = [spec, container].iter().any(|it| tree::has(&it["securityContext"], "appArmorProfile"));
        if !profile && annotations.get(&key).is_some() {
            self.add(&path.key(&key), "deprecated since v1.30; use the \"appArmorProfile\" field instead");
        }
    }

    /// A variable that is set again hides what came before, unless it builds on that.
    fn variables(&mut self, path: &Path, variables: &[Value]) {
        let mut seen = HashSet::new();
        for (i, variable) in variables.iter().enumerate() {
            let (name, value) = (tree::text(variable, "name"), tree::text(variable, "value"));
            if seen.insert(name) {
                continue;
            }
            let reference = format!("$({name})");
            let builds_on = value.contains(&reference) && value != reference && !tree::has(variable, "valueFrom");
            if !builds_on {
                let words = format!("hides previous definition of {name:?}, which may be dropped when using apply");
                self.add(&path.index(i), &words);
            }
        }
    }

    fn ports(&mut self, path: &Path, spec: &Value) {
        let mut seen: BTreeMap<(i64, &str), Vec<(Path, &Value)>> = BTreeMap::new();
        for (at, container) in containers(path, spec) {
            for (i, port) in tree::list(container, "ports").iter().enumerate() {
                let at = at.child("ports").index(i);
                let (ip, number) = (tree::text(port, "hostIP"), tree::int(port, "hostPort"));
                if !ip.is_empty() && number == 0 {
                    self.add(&at, &format!("hostIP set without hostPort: {}", port_shown(port)));
                }
                let same = (tree::int(port, "containerPort"), tree::text(port, "protocol"));
                let others = seen.entry(same).or_default();
                for (other_at, other) in others.iter() {
                    if let Some(how) = clash(port, other) {
                        self.add(&at, &format!("{how} port definition with {}", other_at.as_str()));
                    }
                }
                others.push((at, port));
            }
        }
    }

    fn selectors(&mut self, path: &Path, affinity: &Value) {
        for side in ["podAffinity", "podAntiAffinity"] {
            let required = "requiredDuringSchedulingIgnoredDuringExecution";
            for (i, term) in tree::list(&affinity[side], required).iter().enumerate() {
                if !tree::has(term, "labelSelector") {
                    self.add(&path.child(side).child(required).index(i).child("labelSelector"), NO_SELECTOR);
                }
            }
            let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
            for (i, term) in tree::list(&affinity[side], preferred).iter().enumerate() {
                if !tree::has(&term["podAffinityTerm"], "labelSelector") {
                    let at = path.child(side).child(preferred).index(i);
                    self.add(&at.child("podAffinityTerm").child("labelSelector"), NO_SELECTOR);
                }
            }
        }
    }
}

/// Whether one path is the other, or is below it.
fn overlap(a: &str, b: &str) -> bool {
    let below = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    a == b || below(a, b) || below(b, a)
}

/// How two definitions of the same container port get in each other's way.
fn clash(port: &Value, other: &Value) -> Option<&'static str> {
    let (ip, other_ip) = (tree::text(port, "hostIP"), tree::text(other, "hostIP"));
    let (number, other_number) = (tree::int(port, "hostPort"), tree::int(other, "hostPort"));
    if ip == other_ip && number == other_number {
        Some("duplicate")
    } else if number == 0 || other_number == 0 {
        Some("overlapping")
    } else if number == other_number && ip.is_empty() != other_ip.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

/// A port as Go prints the struct.
fn port_shown(port: &Value) -> String {
    let (text, number) = (|key| tree::text(port, key), |key| tree::int(port, key));
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text("name"),
        number("hostPort"),
        number("containerPort"),
        text("protocol"),
        text("hostIP")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_odd_thing_is_told_once() {
        let container = |more: Value| {
            let mut container = json!({"name": "c", "image": "i"});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"containers": [container]})
        };
        let cases = [
            ("a plain pod", container(json!({})), vec![]),
            (
                "an old label",
                json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
                vec![
                    "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                ],
            ),
            (
                "a constraint for no pod",
                json!({"topologySpreadConstraints": [{"topologyKey": "zone"}]}),
                vec![
                    "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
            (
                "an old volume",
                json!({"volumes": [{"name": "v", "gitRepo": {}}]}),
                vec!["spec.volumes[0].gitRepo: deprecated in v1.11"],
            ),
            (
                "two items at one path",
                json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"path": "a"}, {"path": "a/b"}]}}]}),
                vec!["volume \"v\" (Secret \"s\"): overlapping paths: \"a/b\" with \"a\""],
            ),
            (
                "a repeated pull secret",
                json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
                vec!["spec.imagePullSecrets[1].name: duplicate name \"a\""],
            ),
            (
                "half a byte",
                container(json!({"resources": {"limits": {"memory": "500m"}}})),
                vec![
                    "spec.containers[0].resources.limits[memory]: fractional byte value \"500m\" is invalid, must be an integer",
                ],
            ),
            (
                "a variable that hides another",
                container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]})),
                vec![
                    "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                ],
            ),
            (
                "a variable that builds on another",
                container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]})),
                vec![],
            ),
            (
                "the same port twice",
                container(
                    json!({"ports": [{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 1, "protocol": "TCP"}]}),
                ),
                vec!["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
            ),
            (
                "no time at all",
                json!({"terminationGracePeriodSeconds": -1}),
                vec![
                    "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                ],
            ),
        ];
        for (name, spec, expected) in cases {
            assert_eq!(of(None, &json!({"spec": spec})), expected, "{name}");
        }
        let template =
            json!({"metadata": {"annotations": {format!("{APPARMOR}c"): "x"}}, "spec": container(json!({}))});
        assert!(of(None, &template).is_empty(), "pods get the field itself instead");
        assert_eq!(
            of(Some("spec.template"), &template),
            [format!(
                "spec.template.metadata.annotations[{APPARMOR}c]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            )]
        );
    }
}
