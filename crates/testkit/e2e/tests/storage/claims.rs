//! Claims and their volumes on one node.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space, until};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(60);

/// A claim; `more` is of its spec.
pub fn claim(name: &str, more: &str) -> String {
    let size = "resources: {requests: {storage: 1Gi}}";
    let (meta, modes) = (format!("metadata: {{name: {name}}}"), "accessModes: [ReadWriteOnce]");
    let modes = if more.contains("accessModes") { String::new() } else { format!("{modes}, ") };
    format!("---\n{{apiVersion: v1, kind: PersistentVolumeClaim, {meta}, spec: {{{modes}{size}{more}}}}}\n")
}

/// A pod that runs a script with volumes; it has no time to say goodbye.
pub fn pod(name: &str, script: &str, mounts: &str, volumes: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: c\n    image: {BUSYBOX}\n    command: [sh, -c, {script:?}]\n    \
         volumeMounts: [{mounts}]\n  volumes: [{volumes}]\n"
    )
}

/// A pod that uses the claim `data` at `/data` and goes on after its script.
pub fn user(name: &str, script: &str) -> String {
    let volume = "{name: v, persistentVolumeClaim: {claimName: data}}";
    pod(name, &format!("{script}; exec sleep 3600"), "{name: v, mountPath: /data}", volume)
}

pub fn apply(space: &Space<'_>, objects: &str) -> Result<()> {
    space.ok_with(&["apply", "-f", "-"], objects).map(drop)
}

pub fn ready(space: &Space<'_>, pod: &str) -> Result<()> {
    let waited = space.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
    waited.map(drop).with_context(|| space.describe())
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits for an event with that reason whose message contains the words.
pub fn event(space: &Space<'_>, reason: &str, words: &str) -> Result<()> {
    let selector = format!("reason={reason}");
    let told = until(&format!("an event {reason}: {words}"), SOON, || {
        let list = space.json(&["events", "--field-selector", &selector])?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().any(|event| text(&event["message"]).contains(words)).then_some(()))
    });
    told.with_context(|| space.describe())
}

pub fn gone(space: &Space<'_>, what: &str) -> Result<()> {
    until(&format!("{what} is gone"), SOON, || {
        let left = space.ok(&["get", what, "--ignore-not-found", "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    })
    .with_context(|| space.describe())
}

/// The volume that a claim is bound to.
pub fn volume_of(space: &Space<'_>, name: &str) -> Result<Value> {
    let bound = |claim: &Value| claim["status"]["phase"] == "Bound";
    let claim = space.until("the claim is bound", &[&format!("pvc/{name}")], SOON, bound);
    let claim = claim.with_context(|| space.describe())?;
    space.json(&[&format!("pv/{}", text(&claim["spec"]["volumeName"]))])
}

pub fn default_class(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("claims")?;
    let class = space.ok(&["get", "storageclass"])?;
    ensure!(class.contains("local-path (default)") && class.contains("WaitForFirstConsumer"), "{class}");
    apply(&space, &claim("data", ""))?;
    event(&space, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")?;
    apply(&space, &user("writer", "echo kept > /data/file"))?;
    ready(&space, "writer")?;
    let volume = volume_of(&space, "data")?;
    let spec = &volume["spec"];
    ensure!(spec["storageClassName"] == "local-path" && spec["persistentVolumeReclaimPolicy"] == "Delete", "{spec}");
    ensure!(spec["capacity"]["storage"] == "1Gi" && spec["claimRef"]["name"] == "data", "{spec}");
    ensure!(spec["nodeAffinity"].to_string().contains("node-1"), "{spec}");
    event(&space, "ProvisioningSucceeded", "Successfully provisioned volume pvc-")?;
    event(&space, "Provisioning", "External provisioner is provisioning volume for claim")?;
    // A used claim stays until its last pod goes; the next pod finds the data.
    space.ok(&["delete", "pod", "writer"])?;
    apply(&space, &user("reader", "cat /data/file"))?;
    ready(&space, "reader")?;
    ensure!(space.logs(&["reader"])?.trim() == "kept");
    space.ok(&["delete", "pvc", "data", "--wait=false"])?;
    let claim = space.json(&["pvc/data"])?;
    ensure!(claim["metadata"]["finalizers"].to_string().contains("kubernetes.io/pvc-protection"), "{claim}");
    ensure!(space.ok(&["describe", "pvc", "data"])?.contains("Terminating"));
    ensure!(Path::new(&text(&spec["local"]["path"])).join("file").exists());
    space.ok(&["delete", "pod", "reader"])?;
    gone(&space, "pvc/data")?;
    gone(&space, &format!("pv/{}", text(&volume["metadata"]["name"])))?;
    ensure!(!Path::new(&text(&spec["local"]["path"])).exists(), "the directory is still there");
    Ok(())
}

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Delete}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: IMAGE
        command: [sh, -c, 'test -e /data/name || hostname > /data/name; exec sleep 3600']
        volumeMounts: [{name: data, mountPath: /data}]
        readinessProbe: {exec: {command: [test, -s, /data/name]}, periodSeconds: 1}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
";

pub fn stateful(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("stateful")?;
    apply(&space, &SET.replace("IMAGE", BUSYBOX))?;
    let all = |count: u64| move |set: &Value| set["status"]["readyReplicas"] == count;
    space.until("both are ready", &["sts/db"], SOON, all(2)).with_context(|| space.describe())?;
    let name = || space.ok(&["exec", "db-1", "--", "cat", "/data/name"]);
    ensure!(name()?.trim() == "db-1");
    let first = text(&space.json(&["pod/db-1"])?["metadata"]["uid"]);
    space.ok(&["delete", "pod", "db-1", "--wait=false"])?;
    space.until("another db-1 is ready", &["pod/db-1"], SOON, |pod| {
        let ready = pod["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        pod["metadata"]["uid"] != first.as_str() && ready
    })?;
    ensure!(name()?.trim() == "db-1", "the data are not its own");
    space.ok(&["scale", "sts/db", "--replicas=1"])?;
    gone(&space, "pvc/data-db-1")?;
    ensure!(space.ok(&["get", "pvc", "data-db-0"])?.contains("Bound"));
    space.ok(&["delete", "sts", "db"])?;
    gone(&space, "pvc/data-db-0")
}

pub fn growth(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("growth")?;
    apply(&space, &(claim("data", "") + &user("p", "true")))?;
    ready(&space, "p")?;
    let size = |size: &str| format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
    space.ok(&["patch", "pvc", "data", "-p", &size("2Gi")])?;
    space.until("the claim is larger", &["pvc/data"], SOON, |claim| claim["status"]["capacity"]["storage"] == "2Gi")?;
    ensure!(volume_of(&space, "data")?["spec"]["capacity"]["storage"] == "2Gi");
    event(&space, "VolumeResizeSuccessful", "Resize volume succeeded")?;
    let smaller = space.refused(&["patch", "pvc", "data", "-p", &size("1Gi")], "")?;
    ensure!(smaller.contains("field can not be less than status.capacity"), "{smaller}");
    Ok(())
}

pub fn ephemeral(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("ephemeral")?;
    let template = "{spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Mi}}}}";
    let volume = format!("{{name: scratch, ephemeral: {{volumeClaimTemplate: {template}}}}}");
    apply(&space, &pod("p", "echo x > /s/x; exec sleep 3600", "{name: scratch, mountPath: /s}", &volume))?;
    ready(&space, "p")?;
    let volume = volume_of(&space, "p-scratch")?;
    let claim = space.json(&["pvc/p-scratch"])?;
    ensure!(claim["metadata"]["ownerReferences"][0]["name"] == "p", "{claim}");
    space.ok(&["delete", "pod", "p"])?;
    gone(&space, "pvc/p-scratch")?;
    gone(&space, &format!("pv/{}", text(&volume["metadata"]["name"])))
}

pub fn refusals(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("refusals")?;
    apply(&space, &user("missing", "true"))?;
    event(&space, "FailedScheduling", "0/1 nodes are available: persistentvolumeclaim \"data\" not found.")?;
    let shared = claim("data", ", accessModes: [ReadWriteMany]");
    apply(&space, &shared)?;
    let words = "failed to provision volume with StorageClass \"local-path\": only ReadWriteOnce";
    event(&space, "ProvisioningFailed", words)?;
    // A claim without class and without a volume for it.
    let unbound = claim("none", ", storageClassName: ''");
    apply(&space, &(unbound + &user("unbound", "true").replace("claimName: data", "claimName: none")))?;
    event(&space, "FailedScheduling", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.")?;
    event(&space, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")?;
    let nfs = "{name: v, nfs: {server: 192.0.2.1, path: /export}}";
    apply(&space, &pod("nfs", "true", "{name: v, mountPath: /v}", nfs))?;
    event(&space, "FailedMount", "Mounting arguments: -t nfs 192.0.2.1:/export")
}

pub fn one_pod(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("one-pod")?;
    apply(&space, &(claim("data", ", accessModes: [ReadWriteOncePod]") + &user("first", "true")))?;
    ready(&space, "first")?;
    apply(&space, &user("second", "true"))?;
    let words = "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
    event(&space, "FailedScheduling", words)?;
    space.ok(&["delete", "pod", "first"])?;
    ready(&space, "second")
}

/// A volume of the class `manual`, unless `more` names another place.
fn by_person(name: &str, source: &str) -> String {
    let spec = "capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: manual";
    format!("---\n{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{{spec}, {source}}}}}\n")
}

const HERE: &str = "nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, \
                    operator: In, values: [NODE]}]}]}}";

pub fn by_hand(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("by-hand")?;
    let directory = cluster.path("by-hand");
    std::fs::create_dir_all(directory.join("inner"))?;
    std::fs::write(directory.join("inner/file"), "made by hand")?;
    let path = directory.to_string_lossy().into_owned();
    let local = by_person(&format!("local-{}", space.name), &format!("local: {{path: {path}}}, {HERE}"));
    let host = by_person(&format!("host-{}", space.name), &format!("hostPath: {{path: {path}, type: Directory}}"));
    let far = by_person(&format!("far-{}", space.name), &format!("local: {{path: {path}}}, {HERE}"));
    let objects = local.replace("NODE", "node-1") + &host + &far.replace("NODE", "elsewhere");
    apply(&space, &objects)?;
    let named = |name: &str, volume: &str| {
        claim(name, &format!(", storageClassName: manual, volumeName: {volume}-{}", space.name))
    };
    apply(&space, &(named("data", "local") + &named("host", "host") + &named("far", "far")))?;
    let volumes = "{name: l, persistentVolumeClaim: {claimName: data}}, \
                   {name: h, persistentVolumeClaim: {claimName: host, readOnly: true}}";
    let mounts = "{name: l, mountPath: /l}, {name: l, mountPath: /sub, subPath: inner}, {name: h, mountPath: /h}";
    let script = "cat /sub/file; echo; ls -lnd /l/inner | head -c 10; echo; ls -ln /sub/file; \
                  touch /l/new && echo written; touch /h/new 2>&1; exec sleep 3600";
    let pod_text = pod("p", script, mounts, volumes);
    apply(&space, &pod_text.replace("spec:\n", "spec:\n  securityContext: {fsGroup: 4321}\n"))?;
    ready(&space, "p")?;
    let told = space.logs_to("Read-only file system\n", &["p"])?;
    ensure!(told.starts_with("made by hand\ndrwxrws"), "{told}");
    ensure!(told.contains("-rw-rw-r--") && told.contains(" 4321 "), "{told}");
    ensure!(told.contains("written\n"), "{told}");
    ensure!(directory.join("new").exists());
    apply(&space, &user("q", "true").replace("claimName: data", "claimName: far"))?;
    let words = "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity.";
    event(&space, "FailedScheduling", words)?;
    space.ok(&["delete", "pod", "p", "q"])?;
    space.ok(&["delete", "pvc", "--all"])?;
    let volumes: Vec<String> =
        ["local", "host", "far"].iter().map(|kind| format!("pv/{kind}-{}", space.name)).collect();
    // The default of volumes made by hand is to be kept.
    for volume in &volumes {
        space.until("the volume is released", &[volume], SOON, |volume| volume["status"]["phase"] == "Released")?;
    }
    let words: Vec<&str> = ["delete"].into_iter().chain(volumes.iter().map(String::as_str)).collect();
    space.ok(&words)?;
    ensure!(directory.join("inner/file").exists(), "data of a kept volume are gone");
    Ok(())
}
