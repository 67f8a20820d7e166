//! What comes from the API into volumes, how it looks there, and the life of storage objects.

use crate::claims::{SOON, apply, gone, pod, ready, text};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space, until};
use serde_json::Value;

pub const SOURCES: &str = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {one: first, two: second}
binaryData: {raw: AAEC/w==}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {user: alice, password: hunter2}
";

/// A pod with every kind of content. `ls` shows modes and owners, `cat` what is there.
const LOOKING: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: looking, labels: {app: looking}, annotations: {note: hello}}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, fsGroup: 1001}
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, 'for f in /map/one /map-mode/one /items/deep/er/file /items/own /secret/user /secret-mode/user /projected/one /projected/labels /down/cpu; do
      echo $f $(ls -lnL $f | head -c 10) $(ls -lnL $f | grep -c \" 1001 \") $(cat $f); done;
      echo raw $(wc -c < /map/raw); ls /items; cat /down/name; echo; cat /down/request; echo; cat /down/memory; echo; cat /down/note; echo;
      cat /all/user /all/one; echo; cat /one/sub; echo; ls /none;
      touch /disk/x /memory/x && echo writable; ls -lnd /disk | head -c 10; echo; ls -lnd /memory | head -c 10; echo;
      grep -c \" /memory tmpfs \" /proc/mounts; echo mine > /shared/x; id -G; touch /map/new 2>&1']
    resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 1250m, memory: 64Mi}}
    volumeMounts:
    - {name: map, mountPath: /map}
    - {name: map-mode, mountPath: /map-mode}
    - {name: items, mountPath: /items}
    - {name: secret, mountPath: /secret}
    - {name: secret-mode, mountPath: /secret-mode}
    - {name: projected, mountPath: /projected}
    - {name: down, mountPath: /down}
    - {name: all, mountPath: /all}
    - {name: map, mountPath: /one/sub, subPath: two}
    - {name: none, mountPath: /none}
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: shared, mountPath: /shared}
  - name: reader
    image: IMAGE
    command: [sh, -c, 'while ! test -s /shared/x; do sleep 0.1; done; cat /shared/x']
    volumeMounts: [{name: shared, mountPath: /shared}]
  volumes:
  - {name: map, configMap: {name: map}}
  - {name: map-mode, configMap: {name: map, defaultMode: 0400}}
  - {name: items, configMap: {name: map, items: [{key: one, path: deep/er/file}, {key: two, path: own, mode: 0444}]}}
  - {name: secret, secret: {secretName: secret}}
  - {name: secret-mode, secret: {secretName: secret, defaultMode: 0440}}
  - name: projected
    projected: {defaultMode: 0400, sources: [{configMap: {name: map}}, {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}
  - name: down
    downwardAPI:
      items:
      - {path: name, fieldRef: {fieldPath: metadata.name}}
      - {path: note, fieldRef: {fieldPath: \"metadata.annotations['note']\"}}
      - {path: cpu, mode: 0400, resourceFieldRef: {containerName: c, resource: limits.cpu}}
      - {path: request, resourceFieldRef: {containerName: c, resource: requests.cpu, divisor: 1m}}
      - {path: memory, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}
  - {name: all, projected: {sources: [{secret: {name: secret}}, {configMap: {name: map}}]}}
  - {name: none, configMap: {name: nothing, optional: true}}
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: shared, emptyDir: {}}
";

pub fn modes(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("contents")?;
    apply(&space, &(SOURCES.to_owned() + &LOOKING.replace("IMAGE", BUSYBOX)))?;
    let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    space.until("the pod has looked", &["pod/looking"], SOON, over).with_context(|| space.describe())?;
    let told = space.logs(&["looking", "-c", "c"])?;
    // A group that owns a volume may read what is in it, whatever the mode says.
    for line in [
        "/map/one -rw-r--r-- 1 first",
        "/map-mode/one -r--r----- 1 first",
        "/items/deep/er/file -rw-r--r-- 1 first",
        "/items/own -r--r--r-- 1 second",
        "/secret/user -rw-r--r-- 1 alice",
        "/secret-mode/user -r--r----- 1 alice",
        "/projected/one -r--r----- 1 first",
        "/projected/labels -r--r----- 1 app=\"looking\"",
        "/down/cpu -r--r----- 1 2",
        "raw 4\ndeep\nown\nlooking\n250\n64\nhello\nalicefirst\nsecond\nwritable\ndrwxrwsrwx\ndrwxrwsrwx\n1\n",
        "1001",
        "Read-only file system",
    ] {
        ensure!(told.contains(line), "{line:?} is missing in:\n{told}");
    }
    ensure!(space.logs(&["looking", "-c", "reader"])?.trim() == "mine");
    Ok(())
}

/// What a file holds in the pod `p`; nothing when it is not there.
fn file(space: &Space<'_>, path: &str) -> Result<String> {
    let shown = space.run(&["exec", "p", "--", "cat", path])?;
    Ok(if shown.status.success() { shown.stdout.trim().to_owned() } else { String::new() })
}

fn becomes(space: &Space<'_>, path: &str, wanted: &str) -> Result<()> {
    until(&format!("{path} holds {wanted:?}"), SOON, || Ok((file(space, path)? == wanted).then_some(())))
}

pub fn updates(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("updates")?;
    let mounts = "{name: map, mountPath: /map}, {name: later, mountPath: /later}, {name: all, mountPath: /all}, \
                  {name: down, mountPath: /down}";
    let labels = "{downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}";
    let volumes = format!(
        "{{name: map, configMap: {{name: map}}}}, {{name: later, secret: {{secretName: later, optional: true}}}}, \
         {{name: all, projected: {{sources: [{{secret: {{name: secret}}}}, {{configMap: {{name: later, optional: true}}}}, \
         {labels}]}}}}, {{name: down, downwardAPI: {{items: [{{path: note, fieldRef: {{fieldPath: metadata.annotations}}}}]}}}}"
    );
    apply(&space, &(SOURCES.to_owned() + &pod("p", "exec sleep 3600", mounts, &volumes)))?;
    ready(&space, "p")?;
    ensure!(file(&space, "/map/one")? == "first" && file(&space, "/all/user")? == "alice");
    space.ok(&["patch", "configmap", "map", "-p", r#"{"data":{"one":"changed","two":null,"three":"new"}}"#])?;
    space.ok(&["patch", "secret", "secret", "-p", r#"{"stringData":{"user":"bob"}}"#])?;
    space.ok(&["create", "secret", "generic", "later", "--from-literal=key=came"])?;
    space.ok(&["create", "configmap", "later", "--from-literal=late=too"])?;
    space.ok(&["label", "pod", "p", "tier=gold"])?;
    space.ok(&["annotate", "pod", "p", "seen=yes"])?;
    for (path, wanted) in [
        ("/map/one", "changed"),
        ("/map/three", "new"),
        ("/map/two", ""),
        ("/all/user", "bob"),
        ("/later/key", "came"),
        ("/all/late", "too"),
        ("/all/labels", "tier=\"gold\""),
    ] {
        becomes(&space, path, wanted).with_context(|| space.describe())?;
    }
    until("the annotation is there", SOON, || Ok(file(&space, "/down/note")?.contains("seen=\"yes\"").then_some(())))?;
    space.ok(&["delete", "secret/later"])?;
    becomes(&space, "/later/key", "")?;
    immutable(&space)
}

fn immutable(space: &Space<'_>) -> Result<()> {
    for (kind, data) in [("configmap", "data"), ("secret", "stringData")] {
        let name = if kind == "secret" { "secret" } else { "map" };
        space.ok(&["patch", kind, name, "-p", r#"{"immutable":true}"#])?;
        let patch = format!(r#"{{"{data}":{{"more":"x"}}}}"#);
        let refused = space.refused(&["patch", kind, name, "-p", &patch], "")?;
        ensure!(refused.contains("field is immutable when `immutable` is set"), "{refused}");
        let refused = space.refused(&["patch", kind, name, "-p", r#"{"immutable":false}"#], "")?;
        ensure!(refused.contains("field is immutable when `immutable` is set"), "{refused}");
        space.ok(&["delete", kind, name])?;
    }
    Ok(())
}

/// One object of each kind: created, read, patched, listed by label, deleted as a collection.
const OBJECTS: &str = "---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: driver-SPACE, labels: {of: SPACE}}
spec: {attachRequired: false}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: node-SPACE, labels: {of: SPACE}}
spec: {drivers: [{name: driver-SPACE, nodeID: one}]}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: class-SPACE, labels: {of: SPACE}}
provisioner: example.com/none
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {name: attachment-SPACE, labels: {of: SPACE}}
spec: {attacher: example.com, nodeName: node-1, source: {persistentVolumeName: none}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: attributes-SPACE, labels: {of: SPACE}}
driverName: example.com/none
parameters: {speed: high}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-SPACE, labels: {of: SPACE}}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: unused, hostPath: {path: /tmp/x}}
---
apiVersion: storage.k8s.io/v1
kind: CSIStorageCapacity
metadata: {name: capacity, labels: {of: SPACE}}
storageClassName: class-SPACE
capacity: 1Gi
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim, labels: {of: SPACE}}
spec: {accessModes: [ReadWriteOnce], storageClassName: class-SPACE, resources: {requests: {storage: 1Gi}}}
";

pub fn objects(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("objects")?;
    apply(&space, &OBJECTS.replace("SPACE", &space.name))?;
    let selector = format!("of={}", space.name);
    let kinds = [
        "csidriver",
        "csinode",
        "csistoragecapacity",
        "pvc",
        "pv",
        "volumeattachment",
        "volumeattributesclass",
        "storageclass",
    ];
    for kind in kinds {
        let list = space.json(&[kind, "-l", &selector])?;
        ensure!(list["items"].as_array().is_some_and(|items| items.len() == 1), "{kind}: {list}");
        let name = text(&list["items"][0]["metadata"]["name"]);
        let object = format!("{kind}/{name}");
        space.ok(&["patch", &object, "--type=merge", "-p", r#"{"metadata":{"labels":{"patched":"yes"}}}"#])?;
        ensure!(space.json(&[&object])?["metadata"]["labels"]["patched"] == "yes", "{kind}");
    }
    statuses(&space)?;
    for kind in kinds {
        space.ok(&["delete", kind, "-l", &selector, "--timeout=30s"])?;
        ensure!(space.ok(&["get", kind, "-l", &selector, "-o", "name"])?.trim().is_empty(), "{kind}");
    }
    gone(&space, "pvc/claim")
}

/// Statuses are written through their subresource only.
fn statuses(space: &Space<'_>) -> Result<()> {
    let patch = |object: &str, patch: &str| {
        space.ok(&["patch", object, "--subresource=status", "--type=merge", "-p", patch]).map(drop)
    };
    patch("pvc/claim", r#"{"status":{"conditions":[{"type":"StatusPatched","status":"True"}]}}"#)?;
    ensure!(space.json(&["pvc/claim"])?["status"]["conditions"].to_string().contains("StatusPatched"));
    let volume = format!("pv/volume-{}", space.name);
    patch(&volume, r#"{"status":{"message":"patched","reason":"E2E"}}"#)?;
    ensure!(space.json(&[&volume])?["status"]["message"] == "patched");
    let attachment = format!("volumeattachment/attachment-{}", space.name);
    patch(&attachment, r#"{"status":{"attached":true}}"#)?;
    ensure!(space.json(&[&attachment])?["status"]["attached"] == true);
    Ok(())
}
