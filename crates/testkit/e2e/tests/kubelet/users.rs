//! Pods that do not use the machine's users.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space, until};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// `root` is root of its own namespace, `user` somebody else there; both see every kind of content.
const PODS: &str = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {one: first}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {user: alice}
---
apiVersion: v1
kind: Pod
metadata: {name: mapped}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 0
  shareProcessNamespace: true
  securityContext: {fsGroup: 1001}
  containers:
  - name: root
    image: IMAGE
    command: [sh, -c, 'echo $(cat /proc/self/uid_map) / $(cat /proc/self/gid_map); id -u; id -G; ls -ln /bin/busybox | head -c 30; echo;
      for f in /map/one /secret/user /var/run/secrets/kubernetes.io/serviceaccount/token /etc/hosts; do echo $f $(ls -lnL $f | head -c 30); done;
      cat /map/one /secret/user; echo; touch /disk/root /memory/root && ls -ln /disk/root | head -c 30; echo;
      /bin/busybox chown 1000:1000 /disk/root && ls -ln /disk/root | head -c 30; echo; /bin/busybox chown 70000 /disk/root; touch /disk/done; exec sleep 3600']
    volumeMounts: [{name: map, mountPath: /map}, {name: secret, mountPath: /secret}, {name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
  - name: user
    image: IMAGE
    securityContext: {runAsUser: 1000, runAsGroup: 1000}
    command: [sh, -c, 'while ! test -e /disk/done; do sleep 0.1; done; id -u; echo mine > /disk/user && ls -ln /disk/user | head -c 30; echo;
      cat /map/one; echo; echo said > /dev/termination-log; exec sleep 3600']
    volumeMounts: [{name: map, mountPath: /map}, {name: disk, mountPath: /disk}]
  volumes:
  - {name: map, configMap: {name: map}}
  - {name: secret, secret: {secretName: secret, defaultMode: 0440}}
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: IMAGE, command: [sleep, '3600']}]
";

/// Where the ids of a pod begin outside: they are one range of the usual length.
fn first_id(space: &Space<'_>, pod: &str) -> Result<u32> {
    let map = space.ok(&["exec", pod, "--", "cat", "/proc/self/uid_map", "/proc/self/gid_map"])?;
    let numbers: Vec<&str> = map.split_whitespace().collect();
    let [inside, first, length, ..] = numbers.as_slice() else { anyhow::bail!("{map}") };
    ensure!(numbers[..3] == numbers[3..] && (*inside, *length) == ("0", "65536"), "{map}");
    let first: u32 = first.parse()?;
    ensure!(first >= 65_536 && first.is_multiple_of(65_536), "{map}");
    Ok(first)
}

/// containerd 1 has no user namespaces: such a pod never runs with the machine's users instead.
fn refused(space: &Space<'_>) -> Result<()> {
    space.ok_with(&["apply", "-f", "-"], &PODS.replace("IMAGE", BUSYBOX))?;
    let why = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    until("the refusal", SOON, || {
        let told = space.ok(&["get", "events", "--field-selector=reason=FailedCreatePodSandBox", "-o", "json"])?;
        Ok(told.contains(&format!("Failed to create pod sandbox: {why}")).then_some(()))
    })?;
    space.ok(&["delete", "pod", "mapped", "other", "--timeout=60s"]).map(drop)
}

pub fn own(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("users")?;
    if cluster.is_on_containerd() {
        return refused(&space);
    }
    space.ok_with(&["apply", "-f", "-"], &PODS.replace("IMAGE", BUSYBOX))?;
    let ready = space.ok(&["wait", "--for=condition=Ready", "pod/mapped", "pod/other", "--timeout=60s"]);
    ready.with_context(|| space.describe())?;
    let first = [first_id(&space, "mapped")?, first_id(&space, "other")?];
    ensure!(BTreeSet::from(first).len() == 2, "two pods share ids: {first:?}");
    let told = space.logs_to("first\n", &["mapped", "-c", "user"])?;
    ensure!(told.contains("1000\n") && told.contains(" 1000     1001"), "{told}");
    let told = space.logs(&["mapped", "-c", "root"])?;
    let map = format!("0 {} 65536 / 0 {} 65536\n0\n", first[0], first[0]);
    ensure!(told.starts_with(&map), "{told}");
    for line in [
        "1001",
        "-rwxr-xr-x",
        "/map/one -rw-r--r-- 1 0 1001",
        "/secret/user -r--r----- 1 0 1001",
        "/serviceaccount/token -rw-r----- 1 0 1001",
        "/etc/hosts -rw-r--r-- 1 0 0",
        "firstalice\n",
        " 0        1001",
        " 1000     1000",
    ] {
        ensure!(told.contains(line), "{line:?} is missing in:\n{told}");
    }
    // Further processes are in the same namespaces, and a container's files belong to nobody of the machine.
    let told = space.ok(&["exec", "mapped", "-c", "user", "--", "sh", "-c", "id -u; cat /disk/user; ps"])?;
    ensure!(told.starts_with("1000\nmine\n") && told.matches("sleep 3600").count() == 2, "{told}");
    ensure!(told.lines().any(|line| line.ends_with(" /pause")), "{told}");
    let refused =
        space.run(&["exec", "mapped", "-c", "root", "--", "/bin/busybox", "mount", "-t", "tmpfs", "x", "/tmp"])?;
    ensure!(!refused.status.success(), "root of the pod may mount");
    space.ok(&["delete", "pod", "mapped", "other", "--timeout=60s"]).map(drop)
}
