//! Images as volumes: their content, whole and in part, and what is told when there is none.

use crate::claims::{SOON, apply, event, pod};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space};
use serde_json::Value;

/// A volume `v` of an image, and a pod that runs a script with the mounts once.
fn once(name: &str, image: &str, policy: &str, mounts: &str, script: &str) -> String {
    let volume = format!("{{name: v, image: {{reference: {image:?}, pullPolicy: {policy}}}}}");
    pod(name, script, mounts, &volume).replace("spec:\n", "spec:\n  restartPolicy: Never\n")
}

fn said(space: &Space<'_>, name: &str) -> Result<String> {
    let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    space.until("the pod is over", &[&format!("pod/{name}")], SOON, over).with_context(|| space.describe())?;
    space.ok(&["logs", name])
}

pub fn mounted(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("images")?;
    let mounts = "{name: v, mountPath: /image}, {name: v, mountPath: /part, subPath: etc}, \
                  {name: v, mountPath: /file, subPath: etc/group}";
    let script = "cat /image/etc/group /part/group /file | grep -c root; ls -ln /image/bin/busybox | head -c 24; echo; \
                  touch /image/new 2>&1; touch /part/new 2>&1; /image/bin/busybox true 2>&1; echo over";
    let plain = once("plain", BUSYBOX, "IfNotPresent", mounts, script);
    if cluster.is_on_containerd() {
        return without_image_volumes(&space, &plain);
    }
    let mapped = once("mapped", BUSYBOX, "Never", mounts, script).replace("spec:\n", "spec:\n  hostUsers: false\n");
    apply(&space, &(plain + &mapped))?;
    for name in ["plain", "mapped"] {
        let told = said(&space, name)?;
        ensure!(told.starts_with("3\n-rwxr-xr-x    1 0") && told.ends_with("over\n"), "{name}: {told}");
        ensure!(told.matches("Read-only file system").count() == 2, "{name}: {told}");
        ensure!(told.contains("Permission denied"), "{name}: {told}");
    }
    event(&space, "Pulled", &format!("Container image \"{BUSYBOX}\" already present on machine"))
}

fn waits(reason: &'static str) -> impl Fn(&Value) -> bool {
    move |pod| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
}

/// containerd 1 takes an image for a directory without a name: the container never starts without its volume.
fn without_image_volumes(space: &Space<'_>, plain: &str) -> Result<()> {
    apply(space, plain)?;
    space.until("the refusal", &["pod/plain"], SOON, waits("CreateContainerError"))?;
    event(space, "Failed", "failed to mkdir")
}

pub fn refused(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("no-images")?;
    let mount = "{name: v, mountPath: /image}";
    apply(&space, &once("never", "e2e/absent:1", "Never", mount, "true"))?;
    apply(&space, &once("part", BUSYBOX, "Never", "{name: v, mountPath: /image, subPath: not/there}", "true"))?;
    space.until("the image is missed", &["pod/never"], SOON, waits("ErrImageNeverPull"))?;
    event(&space, "ErrImageNeverPull", "Container image \"e2e/absent:1\" is not present with pull policy of Never")?;
    if cluster.is_on_containerd() { Ok(()) } else { event(&space, "Failed", "mount an image to /image") }
}
