//! Parts of volumes, files that pods make in them, and many volumes at once.

use crate::claims::{SOON, apply, event, pod, ready};
use crate::contents::SOURCES;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space};
use serde_json::Value;

/// Waits for a pod that ends; returns what it said.
fn said(space: &Space<'_>, name: &str) -> Result<String> {
    let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    space.until("the pod is over", &[&format!("pod/{name}")], SOON, over).with_context(|| space.describe())?;
    space.ok(&["logs", name])
}

/// A pod that runs once.
fn once(name: &str, script: &str, mounts: &str, volumes: &str) -> String {
    pod(name, script, mounts, volumes).replace("spec:\n", "spec:\n  restartPolicy: Never\n")
}

pub fn sub_paths(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("sub-paths")?;
    let mounts = "{name: map, mountPath: /one, subPath: one}, {name: map, mountPath: /etc/hostname, subPath: two}, \
                  {name: secret, mountPath: /user, subPath: user}, {name: down, mountPath: /down, subPath: name}, \
                  {name: all, mountPath: /all, subPath: deep/er}, {name: disk, mountPath: /new, subPath: made/here}, \
                  {name: disk, mountPath: /whole}, {name: disk, mountPath: /named, subPathExpr: logs-$(NAME)}";
    let volumes = "{name: map, configMap: {name: map}}, {name: secret, secret: {secretName: secret}}, \
                   {name: down, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}, \
                   {name: all, projected: {sources: [{configMap: {name: map, items: [{key: one, path: deep/er/one}]}}]}}, \
                   {name: disk, emptyDir: {}}";
    let script = "for f in /one /etc/hostname /user /down /all/one; do echo $f $(cat $f); done; \
                  echo x > /new/x; ls /whole/made/here; echo y > /named/y; ls /whole";
    let env = "    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n    volumeMounts:";
    let text = once("parts", script, mounts, volumes).replace("    volumeMounts:", env);
    apply(&space, &(SOURCES.to_owned() + &text))?;
    let told = said(&space, "parts")?;
    let wanted = "/one first\n/etc/hostname second\n/user alice\n/down parts\n/all/one first\nx\nlogs-parts\nmade\n";
    ensure!(told == wanted, "{told}");
    // A link in the volume must not lead out of it.
    let script = "/bin/busybox ln -s /etc /v/out; exec sleep 3600";
    let both = pod("linker", script, "{name: v, mountPath: /v}", "{name: v, emptyDir: {}}");
    let second = format!(
        "  - name: follower\n    image: {BUSYBOX}\n    command: [cat, /x/passwd]\n    \
         volumeMounts: [{{name: v, mountPath: /x, subPath: out}}]\n  volumes:"
    );
    let held =
        "    lifecycle: {postStart: {exec: {command: [sh, -c, 'while ! test -L /v/out; do sleep 0.1; done']}}}\n";
    let both = both.replace("  volumes:", &second).replace("  - name: follower", &format!("{held}  - name: follower"));
    apply(&space, &both)?;
    event(&space, "Failed", "failed to prepare subPath for volumeMount \"v\" of container \"follower\"")
}

pub fn empty_directories(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("empty")?;
    let script = "umask 0; id -u; ls -lnd /disk /memory | head -c 10; echo; ls -lnd /memory | head -c 10; echo; \
                  for d in /disk /memory; do for m in 644 666 777; do \
                  echo $m > $d/$m && /bin/busybox chmod $m $d/$m; ls -ln $d/$m | head -c 10; echo; cat $d/$m; done; done";
    let mounts = "{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}";
    let volumes = "{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}";
    let of_root = once("root", script, mounts, volumes);
    let user = "spec:\n  securityContext: {runAsUser: 1001}\n";
    apply(&space, &(of_root + &once("user", script, mounts, volumes).replace("spec:\n", user)))?;
    let files = "-rw-r--r--\n644\n-rw-rw-rw-\n666\n-rwxrwxrwx\n777\n";
    for (name, id) in [("root", "0"), ("user", "1001")] {
        let told = said(&space, name)?;
        ensure!(told == format!("{id}\ndrwxrwxrwx\ndrwxrwxrwx\n{files}{files}"), "{name}: {told}");
    }
    Ok(())
}

pub fn node_limits(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("limits")?;
    let item =
        |path: &str, of: &str| format!("{{path: {path}, resourceFieldRef: {{containerName: c, resource: {of}}}}}");
    let items = format!("[{}, {}]", item("cpu", "limits.cpu"), item("memory", "limits.memory"));
    let volumes = format!(
        "{{name: d, downwardAPI: {{items: {items}}}}}, {{name: p, projected: {{sources: [{{downwardAPI: {{items: {items}}}}}]}}}}"
    );
    let script = "cat /d/cpu; echo; cat /p/cpu; echo; cat /d/memory; echo; cat /p/memory";
    apply(&space, &once("p", script, "{name: d, mountPath: /d}, {name: p, mountPath: /p}", &volumes))?;
    let told = said(&space, "p")?;
    let numbers: Vec<u64> = told.lines().filter_map(|line| line.parse().ok()).collect();
    let node = space.json(&["node/node-1"])?;
    let cpu: u64 = node["status"]["allocatable"]["cpu"].as_str().unwrap_or_default().parse()?;
    let memory = node["status"]["allocatable"]["memory"].as_str().and_then(|text| text.strip_suffix("Ki"));
    let memory = memory.context("memory in Ki")?.parse::<u64>()? * 1024;
    ensure!(numbers == [cpu, cpu, memory, memory], "{told}: not {cpu} and {memory}");
    Ok(())
}

pub fn many(cluster: &Cluster) -> Result<()> {
    const COUNT: usize = 25;
    let space = cluster.space("many")?;
    let maps: String = (0..COUNT)
        .map(|i| format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m{i}}}, data: {{k: 'v{i}'}}}}\n"))
        .collect();
    let list = |item: &dyn Fn(usize) -> String| (0..COUNT).map(item).collect::<Vec<_>>().join(", ");
    let mounts = list(&|i| format!("{{name: m{i}, mountPath: /m/{i}}}"));
    let volumes = list(&|i| format!("{{name: m{i}, configMap: {{name: m{i}}}}}"));
    let script = "cat /m/*/k | wc -c; exec sleep 3600";
    let pods: String = (0..3).map(|i| pod(&format!("p{i}"), script, &mounts, &volumes)).collect();
    apply(&space, &(maps + &pods))?;
    for i in 0..3 {
        ready(&space, &format!("p{i}"))?;
        ensure!(space.logs(&[&format!("p{i}")])?.trim() == "65", "pod p{i}");
    }
    Ok(())
}

/// Secrets and maps of one name in two namespaces.
pub fn namespaces(cluster: &Cluster) -> Result<()> {
    let (one, other) = (cluster.space("apart")?, cluster.space("apart")?);
    let sources = |value: &str| SOURCES.replace("alice", value);
    let secret = "{name: s, secret: {secretName: secret}}";
    let text = once("p", "cat /s/user", "{name: s, mountPath: /s}", secret);
    apply(&other, &sources("mallory"))?;
    apply(&one, &(sources("alice") + &text))?;
    ensure!(said(&one, "p")?.trim() == "alice");
    Ok(())
}
