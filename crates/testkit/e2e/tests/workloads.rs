//! What a person does with a cluster on the first day, with the oldest and the newest kubectl on the machine.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space, suite, until};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    suite(&[
        ("a deployment is served, scaled, rolled and undone", deployment),
        ("a pod is looked into", inside_a_pod),
        ("manifests are applied", manifests),
        ("ports are forwarded", port_forward),
        ("pods get what they ask for", pod_features),
        ("jobs run to completion", jobs),
        ("rights are enforced", rights),
        ("names resolve", names),
    ])
}

/// Runs a test with each version of kubectl.
fn each_kubectl(cluster: &Cluster, name: &str, test: fn(&Space<'_>) -> Result<()>) -> Result<()> {
    for kubectl in Cluster::kubectl_versions()? {
        let mut space = cluster.space(name)?;
        space.kubectl = kubectl;
        test(&space).with_context(|| format!("with {}\n{}", space.kubectl.display(), space.describe()))?;
    }
    Ok(())
}

/// A shell in a pod that stays up.
fn shell(space: &Space<'_>) -> Result<()> {
    space.ok(&["run", "shell", "--image", BUSYBOX, "--restart=Never", "--command", "--", "sleep", "3600"])?;
    space.ok(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]).map(drop)
}

/// The pods that answer at a URL, asked from inside the cluster until so many have.
fn answers(space: &Space<'_>, url: &str, wanted: usize) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    until(&format!("{wanted} different answers from {url}"), SOON, || {
        let answer = space.ok(&["exec", "shell", "--", "timeout", "5", "wget", "-q", "-O", "-", url])?;
        seen.insert(answer.trim().to_owned());
        Ok((seen.len() >= wanted).then_some(()))
    })
    .with_context(|| format!("seen: {seen:?}"))?;
    Ok(seen)
}

fn http_get(space: &Space<'_>, port: u64) -> Result<String> {
    let address = space.cluster.host.address;
    let request = format!("exec 3<>/dev/tcp/{address}/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    space.cluster.host.run(&["timeout", "5", "bash", "-c", &request])?.ok()
}

fn deployment(cluster: &Cluster) -> Result<()> {
    each_kubectl(cluster, "deployment", |space| {
        shell(space)?;
        space.ok(&["create", "deployment", "web", "--image=pintle/hello:v1", "--replicas=3"])?;
        space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
        space.ok(&["expose", "deployment", "web", "--port=80", "--target-port=8080", "--type=NodePort"])?;
        let url = format!("http://web.{}.svc.cluster.local/", space.name);
        answers(space, &url, 3)?;
        let port = space.json(&["service/web"])?["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")?;
        let mut from_host = BTreeSet::new();
        until("three answers on the node port", SOON, || {
            from_host.insert(http_get(space, port)?.lines().last().unwrap_or_default().to_owned());
            Ok((from_host.len() == 3).then_some(()))
        })?;
        space.ok(&["scale", "deployment/web", "--replicas=5"])?;
        space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
        answers(space, &url, 5)?;
        roll_without_a_failed_request(space, port)?;
        let history = space.ok(&["rollout", "history", "deployment/web"])?;
        ensure!(history.contains("\n1 ") && history.contains("\n2 "), "the history lacks revisions:\n{history}");
        space.ok(&["rollout", "undo", "deployment/web"])?;
        space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
        let image = &space.json(&["deployment/web"])?["spec"]["template"]["spec"]["containers"][0]["image"];
        ensure!(image == "pintle/hello:v1", "undone to {image}");
        let described = space.ok(&["describe", "deployment/web"])?;
        ensure!(described.contains("ScalingReplicaSet"), "no events:\n{described}");
        space.ok(&["delete", "deployment", "web", "--timeout=60s"])?;
        space.until("the pods are gone", &["pods", "-l", "app=web"], SOON, |list| {
            list["items"].as_array().is_some_and(Vec::is_empty)
        })?;
        Ok(())
    })
}

/// Asks without a pause while the image changes; no request may fail, and the new version must answer at the end.
fn roll_without_a_failed_request(space: &Space<'_>, port: u64) -> Result<()> {
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"hello","readinessProbe":{"httpGet":{"path":"/healthz","port":8080},"periodSeconds":1}}]}}}}"#;
    space.ok(&["patch", "deployment/web", "-p", patch])?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = std::thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                let answer =
                    http_get(space, port).with_context(|| format!("request {}", asked.load(Ordering::Relaxed)))?;
                ensure!(answer.contains("Hello from"), "answered {answer:?}");
                asked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let rolled = space
            .ok(&["set", "image", "deployment/web", "hello=pintle/hello:v2"])
            .and_then(|_| space.ok(&["rollout", "status", "deployment/web", "--timeout=120s"]));
        done.store(true, Ordering::Relaxed);
        let asking = asking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the asking thread panicked")));
        rolled.and(asking)
    });
    result?;
    ensure!(asked.load(Ordering::Relaxed) > 20, "only {} requests were made", asked.load(Ordering::Relaxed));
    until("the new version answers", SOON, || Ok(http_get(space, port)?.contains("(v2)").then_some(())))
}

fn inside_a_pod(cluster: &Cluster) -> Result<()> {
    each_kubectl(cluster, "inside", |space| {
        let script = "i=0; while true; do echo line $i; i=$((i+1)); sleep 1; done";
        space.ok(&["run", "talker", "--image", BUSYBOX, "--command", "--", "sh", "-c", script])?;
        space.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"])?;
        let following = space.spawn(&["logs", "-f", "talker"])?;
        following.expect("line 2", SOON)?;
        drop(following);
        let tail = space.ok(&["logs", "talker", "--tail=1"])?;
        ensure!(tail.lines().count() == 1, "--tail=1 printed {tail:?}");
        let since = space.ok(&["logs", "talker", "--since=1h", "--timestamps"])?;
        ensure!(since.lines().next().is_some_and(|l| l.contains("T") && l.ends_with("line 0")), "{since:?}");

        let echoed =
            space.ok_with(&["exec", "-i", "talker", "--", "sh", "-c", "cat; echo done >&2"], "through stdin")?;
        ensure!(echoed == "through stdin", "{echoed:?}");
        let failed = space.run(&["exec", "talker", "--", "sh", "-c", "exit 3"])?;
        ensure!(failed.status.code() == Some(3), "exit code {:?}: {}", failed.status.code(), failed.stderr);
        terminal(space)?;

        let file = space.cluster.path(&format!("{}.txt", space.name));
        std::fs::write(&file, "carried over")?;
        let local = file.to_string_lossy().into_owned();
        space.ok(&["cp", &local, "talker:/tmp/file.txt"])?;
        ensure!(space.ok(&["exec", "talker", "--", "cat", "/tmp/file.txt"])? == "carried over");
        let back = format!("{local}.back");
        space.ok(&["cp", "talker:/tmp/file.txt", &back])?;
        ensure!(std::fs::read_to_string(&back)? == "carried over");

        let once = space.ok(&[
            "run",
            "once",
            "--rm",
            "-i",
            "--restart=Never",
            "--image",
            BUSYBOX,
            "--",
            "echo",
            "hello there",
        ])?;
        ensure!(once.contains("hello there"), "{once:?}");
        let described = space.ok(&["describe", "pod", "talker"])?;
        for word in ["Scheduled", "Pulled", "Created", "Started"] {
            ensure!(described.contains(word), "no event {word}:\n{described}");
        }
        Ok(())
    })
}

/// `kubectl exec -it` on a real terminal, made by `script`.
fn terminal(space: &Space<'_>) -> Result<()> {
    // containerd tells the size only once the command runs.
    let wait = if space.cluster.is_on_containerd() { "until stty size | grep -q 33; do sleep 0.1; done; " } else { "" };
    let script = &format!("{wait}tty; stty size; read x; echo got $x");
    let command = space.cluster.kubectl_command(
        &space.kubectl,
        &["--namespace", &space.name, "exec", "-it", "talker", "--", "sh", "-c", script],
    );
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| format!("'{}'", w.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    let line = format!("stty rows 33 cols 99; {}", words.join(" "));
    let mut python = space.cluster.host.command("python3");
    python.args(["-c", PTY, &line]);
    let printed = pintle_e2e::run_command(python, "typed\n")?.ok()?;
    for expected in ["/dev/pts/", "33 99", "got typed"] {
        ensure!(printed.contains(expected), "no {expected:?} in {printed:?}");
    }
    Ok(())
}

/// Runs a shell command on a terminal, types a line when the command has printed its size, and prints what it said.
const PTY: &str = r#"
import os, pty, sys, select
pid, fd = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", sys.argv[1]])
seen, typed = b"", False
while True:
    ready, _, _ = select.select([fd], [], [], 60)
    if not ready: break
    try: data = os.read(fd, 4096)
    except OSError: break
    if not data: break
    seen += data
    if not typed and b"33 99" in seen:
        os.write(fd, sys.stdin.buffer.readline()); typed = True
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {a: b}}
data: {one: '1', two: '2'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: 1
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec: {containers: [{name: c, image: pintle/pause, imagePullPolicy: IfNotPresent}]}
";

fn manifests(cluster: &Cluster) -> Result<()> {
    each_kubectl(cluster, "manifests", |space| {
        let apply = ["apply", "-f", "-"];
        ensure!(space.ok_with(&apply, MANIFEST)?.contains("configmap/settings created"));
        let again = space.ok_with(&apply, MANIFEST)?;
        ensure!(
            again.contains("configmap/settings unchanged") && again.contains("deployment.apps/idle unchanged"),
            "{again}"
        );
        let changed = space.ok_with(&apply, &MANIFEST.replace("two: '2'", "three: '3'"))?;
        ensure!(changed.contains("configmap/settings configured"), "{changed}");
        let data = &space.json(&["configmap/settings"])?["data"];
        ensure!(data["two"].is_null() && data["three"] == "3", "{data}");
        let server_side = ["apply", "--server-side", "--force-conflicts", "--field-manager=tests", "-f", "-"];
        ensure!(space.ok_with(&server_side, MANIFEST)?.contains("serverside-applied"));
        let other = MANIFEST.replace("one: '1'", "one: 'other'");
        let conflict = space.refused(&["apply", "--server-side", "--field-manager=others", "-f", "-"], &other)?;
        ensure!(conflict.contains("conflict with \"tests\"") && conflict.contains(".data.one"), "{conflict}");

        space.ok(&["label", "configmap/settings", "c=d"])?;
        space.ok(&["annotate", "configmap/settings", "note=here"])?;
        space.ok(&[
            "patch",
            "configmap/settings",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/data/four","value":"4"}]"#,
        ])?;
        let selected = space.ok(&["get", "configmaps", "-l", "c=d", "-o", "name"])?;
        ensure!(selected.trim() == "configmap/settings", "{selected}");
        let explained = space.ok(&["explain", "pod.spec"])?;
        ensure!(explained.contains("containers") && explained.contains("List of containers"), "{explained}");
        ensure!(space.ok(&["api-resources"])?.contains("deployments"));
        space.ok(&["wait", "--for=condition=Available", "deployment/idle", "--timeout=60s"])?;
        let table = space.ok(&["get", "deployments,pods", "-o", "wide"])?;
        ensure!(table.contains("1/1") && table.contains("Running") && table.contains("node-1"), "{table}");
        bad_manifests(space)
    })
}

fn bad_manifests(space: &Space<'_>) -> Result<()> {
    let apply = ["apply", "-f", "-"];
    let unknown =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: i, imagge: j}]}\n";
    let complaint = space.refused(&apply, unknown)?;
    ensure!(complaint.contains("unknown field \"spec.containers[0].imagge\""), "{complaint}");
    let invalid = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: C_, image: ''}]}\n";
    let complaint = space.refused(&apply, invalid)?;
    ensure!(complaint.contains("The Pod \"x\" is invalid"), "{complaint}");
    ensure!(complaint.contains("spec.containers[0].image: Required value"), "{complaint}");
    let mismatch = MANIFEST.replace("labels: {app: idle}", "labels: {app: other}").replace("name: idle", "name: bad");
    let complaint = space.refused(&apply, &mismatch)?;
    ensure!(complaint.contains("`selector` does not match template `labels`"), "{complaint}");
    let nothing = space.refused(&["get", "pod", "nothing"], "")?;
    ensure!(nothing.contains("Error from server (NotFound): pods \"nothing\" not found"), "{nothing}");
    Ok(())
}

fn port_forward(cluster: &Cluster) -> Result<()> {
    each_kubectl(cluster, "forward", |space| {
        space.ok(&["run", "web", "--image=pintle/hello:v1", "--port=8080"])?;
        space.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
        let forwarding = space.spawn(&["port-forward", "pod/web", ":8080"])?;
        let said = forwarding.expect("-> 8080", SOON)?;
        let port = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).context("a local port")?;
        let request = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        for _ in 0..3 {
            let answer = space.cluster.host.run(&["timeout", "10", "bash", "-c", &request])?.ok()?;
            ensure!(answer.contains("Hello from web"), "{answer:?}\n{}", forwarding.output());
        }
        Ok(())
    })
}

const FEATURES: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {key: from-map, file.txt: in a file}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {password: hidden}
---
apiVersion: v1
kind: Pod
metadata: {name: rich, labels: {tier: gold}}
spec:
  restartPolicy: Never
  hostAliases: [{ip: 10.9.8.7, hostnames: [elsewhere]}]
  securityContext: {runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000}
  initContainers:
  - {name: first, image: IMAGE, command: [sh, -c, 'echo made by init > /shared/note']}
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c]
    args:
    - |
      set -e
      cat /shared/note
      echo env $FROM_MAP $FROM_SECRET $POD_NAME $GREETING $LIMIT
      cat /map/file.txt; echo
      cat /secret/password; echo
      cat /all/labels; echo
      test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token
      id -u; id -g; id -G
      grep elsewhere /etc/hosts
      hostname
      touch /root-only 2>/dev/null || echo read-only
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    env:
    - {name: FROM_MAP, valueFrom: {configMapKeyRef: {name: map, key: key}}}
    - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: secret, key: password}}}
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: GREETING, value: 'hi-$(POD_NAME)'}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: map, mountPath: /map}
    - {name: secret, mountPath: /secret}
    - {name: all, mountPath: /all}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: map, configMap: {name: map}}
  - {name: secret, secret: {secretName: secret}}
  - name: all
    projected:
      sources:
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
";

fn pod_features(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("features")?;
    let manifest = FEATURES.replace("IMAGE", BUSYBOX).replace(
        "'echo made by init > /shared/note']}",
        "'echo made by init > /shared/note'], volumeMounts: [{name: shared, mountPath: /shared}]}",
    );
    space.ok_with(&["apply", "-f", "-"], &manifest)?;
    let check = || -> Result<()> {
        let pod = space.until("the pod ends", &["pod/rich"], SOON, |pod| {
            matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        })?;
        let log = space.logs(&["rich", "-c", "main"])?;
        ensure!(pod["status"]["phase"] == "Succeeded", "{}\n{log}", pod["status"]);
        let expected = [
            "made by init",
            "env from-map hidden rich hi-rich 67108864",
            "in a file",
            "hidden",
            "tier=\"gold\"",
            "token",
            "1000",
            "2000",
            "2000 3000",
            "elsewhere",
            "rich",
            "read-only",
        ];
        for line in expected {
            ensure!(log.contains(line), "no {line:?} in the log:\n{log}");
        }
        Ok(())
    };
    check().with_context(|| space.describe())
}

fn jobs(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("jobs")?;
    let check = || -> Result<()> {
        space.ok(&["create", "job", "good", "--image", BUSYBOX, "--", "echo", "done"])?;
        space.ok(&["wait", "--for=condition=Complete", "job/good", "--timeout=60s"])?;
        ensure!(space.ok(&["logs", "job/good"])?.trim() == "done");
        let bad = "---\n{apiVersion: batch/v1, kind: Job, metadata: {name: bad}, spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, containers: [{name: c, image: IMAGE, command: [sh, -c, 'exit 7']}]}}}}";
        space.ok_with(&["apply", "-f", "-"], &bad.replace("IMAGE", BUSYBOX))?;
        space.ok(&["wait", "--for=condition=Failed", "job/bad", "--timeout=60s"])?;
        let status = &space.json(&["job/bad"])?["status"];
        ensure!(status["failed"] == 1 && status["conditions"].to_string().contains("BackoffLimitExceeded"), "{status}");
        Ok(())
    };
    check().with_context(|| space.describe())
}

fn rights(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("rights")?;
    space.ok(&["create", "serviceaccount", "reader"])?;
    let user = format!("system:serviceaccount:{}:reader", space.name);
    let can = |verb: &str, what: &str| {
        space.run(&["auth", "can-i", verb, what, "--as", &user]).map(|o| o.stdout.trim().to_owned())
    };
    ensure!(can("list", "pods")? == "no");
    let denied = space.refused(&["get", "pods", "--as", &user], "")?;
    let expected = format!(
        "pods is forbidden: User \"{user}\" cannot list resource \"pods\" in API group \"\" in the namespace \"{}\"",
        space.name
    );
    ensure!(denied.contains(&expected), "{denied}");
    space.ok(&["create", "role", "see", "--verb=get,list", "--resource=pods"])?;
    space.ok(&["create", "rolebinding", "see", "--role=see", &format!("--serviceaccount={}:reader", space.name)])?;
    until("the role counts", SOON, || Ok((can("list", "pods")? == "yes").then_some(())))?;
    ensure!(can("delete", "pods")? == "no");
    let token = space.ok(&["create", "token", "reader"])?;
    let with_token = |what: &str| {
        let server = format!("https://{}:6443", space.cluster.host.address);
        let flags = [
            "--server",
            &server,
            "--insecure-skip-tls-verify",
            "--token",
            token.trim(),
            "--kubeconfig=/dev/null",
            "-n",
            &space.name,
        ];
        let mut command = space.cluster.host.command(&space.kubectl.to_string_lossy());
        command.args(flags).args(["get", what]).env("HOME", space.cluster.path(""));
        pintle_e2e::run_command(command, "")
    };
    with_token("pods")?.ok()?;
    ensure!(with_token("secrets")?.failed()?.contains("Forbidden"));
    Ok(())
}

fn names(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("names")?;
    let check = || -> Result<()> {
        shell(&space)?;
        let headless = "---
{apiVersion: v1, kind: Service, metadata: {name: all}, spec: {clusterIP: None, selector: {app: back}, ports: [{port: 8080, name: http}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: back}, spec: {replicas: 2, selector: {matchLabels: {app: back}}, template: {metadata: {labels: {app: back}}, spec: {containers: [{name: c, image: 'pintle/hello:v1'}]}}}}
";
        space.ok_with(&["apply", "-f", "-"], headless)?;
        space.ok(&["rollout", "status", "deployment/back", "--timeout=60s"])?;
        let pods = space.json(&["pods", "-l", "app=back"])?;
        let ips: Vec<&str> =
            pods["items"].as_array().into_iter().flatten().filter_map(|p| p["status"]["podIP"].as_str()).collect();
        ensure!(ips.len() == 2, "{pods}");
        let full = format!("all.{}.svc.cluster.local", space.name);
        until("the headless service names its pods", SOON, || {
            let answer = space.run(&["exec", "shell", "--", "nslookup", "-type=a", &full])?.stdout;
            Ok(ips.iter().all(|ip| answer.contains(ip)).then_some(()))
        })?;
        let short = space.ok(&["exec", "shell", "--", "wget", "-q", "-O", "-", "http://all:8080/"])?;
        ensure!(short.contains("Hello from back-"), "{short}");
        let kubernetes =
            space.ok(&["exec", "shell", "--", "nslookup", "-type=a", "kubernetes.default.svc.cluster.local"])?;
        ensure!(kubernetes.contains("10.43.0.1"), "{kubernetes}");
        let missing =
            space.run(&["exec", "shell", "--", "nslookup", "-type=a", "missing.default.svc.cluster.local"])?;
        let said = missing.stdout + &missing.stderr;
        ensure!(!missing.status.success() && said.contains("NXDOMAIN"), "{}: {said}", missing.status);
        Ok(())
    };
    check().with_context(|| space.describe())
}
