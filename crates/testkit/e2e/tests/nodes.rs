//! A cluster of three nodes: how they join, how their pods meet, and what becomes of pods when a node fails.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, NODES, Nodes, Space, suite_on, until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "nodes/dev.rs"]
mod dev;
#[path = "nodes/machine.rs"]
mod machine;
#[path = "nodes/servers.rs"]
mod servers;
#[path = "nodes/shop.rs"]
mod shop;

const CLIENT_RETRIES: usize = 3;
const SOON: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    suite_on::<Nodes>(&[
        ("nodes join with a token and a hash", joining),
        ("pods of all nodes meet, also through services and names", meeting),
        ("pods on agents are looked into", looking_into),
        ("a deployment rolls over the nodes without a failed request", rolling),
        ("an agent is killed and finds its pods again", killed),
        ("agents go on while the server is away", without_server),
        ("pods of a node that is cut off are replaced, and go when it is back", cut_off),
        ("an application of three tiers loses a node, and its pods are adopted", shop::test),
        ("a node leaves, and joins again", leaving),
        ("certificates are told and renewed while everything runs", machine::certificates),
        ("a machine tells how it is and what is wrong", machine::status),
        ("a cluster on one machine is made, used and removed", dev::test),
        ("an agent asks another server when one is away", servers::test),
    ])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

fn joining(nodes: &Nodes) -> Result<()> {
    ensure!(nodes.told.contains("Your Kubernetes control-plane has initialized successfully!"), "{}", nodes.told);
    let space = nodes.cluster.space("joining")?;
    let list = items(&space.json(&["nodes"])?);
    let ranges: BTreeSet<String> = list.iter().map(|node| text(&node["spec"]["podCIDR"])).collect();
    ensure!(list.len() == 3 && ranges.len() == 3, "{ranges:?}");
    ensure!(ranges.iter().all(|range| range.starts_with("10.42.") && range.ends_with(".0/24")), "{ranges:?}");
    let requests = items(&space.json(&["csr"])?);
    let signers: Vec<String> = requests.iter().map(|request| text(&request["spec"]["signerName"])).collect();
    let count = |name: &str| signers.iter().filter(|signer| signer.ends_with(name)).count();
    ensure!(
        (count("-client-kubelet"), count("/kubelet-serving"), count("/kube-apiserver-client")) == (2, 2, 2),
        "{signers:?}"
    );
    ensure!(requests.iter().all(|request| request["status"]["certificate"].is_string()), "{requests:?}");

    // Who has joined is refused, and so is a wrong hash; nothing comes of it.
    let agent = nodes.agent(NODES[1])?;
    let again = agent.join(&nodes.join_command()?)?.failed()?;
    ensure!(again.contains("pintle reset"), "{again}");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let data = agent.path("elsewhere");
    let token = nodes.join_command()?.split_whitespace().nth(4).context("a token")?.to_owned();
    let join = |hash: &str, token: &str| {
        let words = ["join", "192.168.77.2:6443", "--token", token, "--discovery-token-ca-cert-hash", hash];
        agent.pintle(&[&words[..], &["--data-dir", &data]].concat())
    };
    let refused = join(&wrong, &token)?.failed()?;
    ensure!(refused.contains("none of the public keys \"sha256:"), "{refused}");
    ensure!(!std::path::Path::new(&data).exists());
    tokens(nodes)
}

fn tokens(nodes: &Nodes) -> Result<()> {
    let kubeconfig = nodes.cluster.path("kubeconfig").to_string_lossy().into_owned();
    let token =
        |words: &[&str]| nodes.cluster.pintle(&[&["token"][..], words, &["--kubeconfig", &kubeconfig]].concat());
    let command = token(&["create", "abcdef.0123456789abcdef", "--ttl", "1h", "--print-join-command"])?.ok()?;
    ensure!(command.starts_with("pintle join 192.168.77.2:6443 --token abcdef.0123456789abcdef "), "{command}");
    let listed = token(&["list"])?.ok()?;
    let left = |minutes: u8| listed.contains(&format!("abcdef.0123456789abcdef   {minutes}m "));
    ensure!(listed.starts_with("TOKEN ") && (left(59) || left(60)), "{listed}");
    ensure!(listed.contains("authentication,signing") && listed.contains("kubeadm:default-node-token"), "{listed}");
    let twice = token(&["create", "abcdef.0123456789abcdef"])?.failed()?;
    ensure!(twice.contains("already exists"), "{twice}");
    ensure!(token(&["delete", "abcdef"])?.ok()?.trim() == "bootstrap token \"abcdef\" deleted");
    ensure!(!token(&["list"])?.ok()?.contains("abcdef."));
    Ok(())
}

/// A pod that answers and a pod that asks on every node.
const EVERYWHERE: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: hello, image: 'pintle/hello:v1', ports: [{containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: shell}
spec:
  selector: {matchLabels: {app: shell}}
  template:
    metadata: {labels: {app: shell}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: IMAGE, command: [sleep, '3600']}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// The pods of an application: node to name and address.
fn pods(space: &Space<'_>, app: &str) -> Result<BTreeMap<String, (String, String)>> {
    let list = items(&space.json(&["pods", "-l", &format!("app={app}")])?);
    let place = |pod: &Value| {
        let address = text(&pod["status"]["podIP"]);
        (text(&pod["spec"]["nodeName"]), (text(&pod["metadata"]["name"]), address))
    };
    Ok(list.iter().map(place).collect())
}

fn ask(space: &Space<'_>, pod: &str, url: &str) -> Result<String> {
    let ask = || space.run(&["exec", pod, "--", "timeout", "5", "wget", "-q", "-O", "-", url]);
    let mut said = ask()?;
    // Clients before 1.34 may hear the answer before they know of its stream, and throw it away.
    for _ in 0..CLIENT_RETRIES {
        if !said.stderr.contains("Unknown stream id") {
            break;
        }
        said = ask()?;
    }
    said.ok().map(|said| said.trim().to_owned())
}

/// What is answered to the clients' machine.
fn ask_from_outside(nodes: &Nodes, address: &str, port: u64) -> Result<String> {
    let request = format!("exec 3<>/dev/tcp/{address}/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    nodes.cluster.client().run(&["timeout", "5", "bash", "-c", &request])?.ok()
}

/// The addresses of the nodes.
fn addresses(nodes: &Nodes) -> Vec<&'static str> {
    std::iter::once(nodes.cluster.host.address).chain(nodes.agents.iter().map(|agent| agent.host.address)).collect()
}

fn meeting(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("meeting")?;
    space.ok_with(&["apply", "-f", "-"], &EVERYWHERE.replace("IMAGE", BUSYBOX))?;
    for set in ["daemonset/web", "daemonset/shell"] {
        space.ok(&["rollout", "status", set, "--timeout=60s"]).with_context(|| space.describe())?;
    }
    let (webs, shells) = (pods(&space, "web")?, pods(&space, "shell")?);
    ensure!(webs.len() == 3 && shells.len() == 3, "{webs:?} {shells:?}");
    for (node, (shell, _)) in &shells {
        for (other, (web, address)) in &webs {
            let said = ask(&space, shell, &format!("http://{address}:8080/"));
            let said = said.with_context(|| format!("from a pod of {node} to a pod of {other}"))?;
            ensure!(said.contains(web.as_str()), "{said}");
        }
        let mut seen = BTreeSet::new();
        until(&format!("all answer a pod of {node} by name"), SOON, || {
            seen.insert(ask(&space, shell, &format!("http://web.{}/", space.name))?);
            Ok((seen.len() == 3).then_some(()))
        })?;
    }
    seen_as_themselves(&space, &shells)?;
    let port = |name: &str| -> Result<u64> {
        let service = space.json(&[&format!("service/{name}")])?;
        service["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")
    };
    let (web, near) = (port("web")?, port("near")?);
    for (address, node) in addresses(nodes).into_iter().zip(NODES) {
        let mut seen = BTreeSet::new();
        until(&format!("all answer on the port of {node}"), SOON, || {
            seen.insert(ask_from_outside(nodes, address, web)?.lines().last().unwrap_or_default().to_owned());
            Ok((seen.len() == 3).then_some(()))
        })?;
        for _ in 0..5 {
            let said = ask_from_outside(nodes, address, near)?;
            ensure!(said.contains(&webs[node].0), "{node} passed a request on that is for itself: {said}");
        }
    }
    Ok(())
}

/// Within the cluster a pod is seen with its own address; outside with its node's.
fn seen_as_themselves(space: &Space<'_>, shells: &BTreeMap<String, (String, String)>) -> Result<()> {
    let (first, second) = (&shells[NODES[1]], &shells[NODES[2]]);
    let tables = ["cat", "/proc/net/tcp", "/proc/net/tcp6"];
    let call = |address: &str| {
        // Holds the line.
        let call = format!("sleep 60 | nc {address} 7000");
        space.spawn(&["exec", &first.0, "--", "sh", "-c", &call])
    };
    let _listening = space.spawn(&["exec", &second.0, "--", "nc", "-l", "-p", "7000"])?;
    let table = || space.ok(&[&["exec", &second.0, "--"][..], &tables].concat());
    is_listened(table)?;
    let _calling = call(&second.1)?;
    is_caller(&first.1, table)?;
    let client = space.cluster.client();
    let mut command = client.command("busybox");
    command.args(["nc", "-l", "-p", "7000"]);
    let _listening = pintle_e2e::Spawned::start(command)?;
    let table = || client.run(&tables)?.ok();
    is_listened(table)?;
    let _calling = call(client.address)?;
    is_caller("192.168.77.3", table)
}

/// Waits until somebody listens at port 7000.
fn is_listened(table: impl Fn() -> Result<String>) -> Result<()> {
    until("somebody listens at port 7000", SOON, || Ok(table()?.contains(":1B58 ").then_some(())))
}

/// Waits until the kernel's table of connections has one of this address to port 7000.
fn is_caller(address: &str, table: impl Fn() -> Result<String>) -> Result<()> {
    let octets = address.parse::<std::net::Ipv4Addr>()?.octets();
    let caller: String = octets.iter().rev().map(|octet| format!("{octet:02X}")).collect();
    let mut last = String::new();
    let found = until(&format!("{address} is seen as the caller"), SOON, || {
        last = table()?;
        let of_port = last.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().filter(|local| local.ends_with(":1B58")).and_then(|_| words.next())
        });
        let mut callers = of_port.filter_map(|remote| remote.split(':').next());
        Ok(callers.any(|found| found.ends_with(&caller)).then_some(()))
    });
    found.with_context(|| format!("last seen:\n{last}"))
}

fn looking_into(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("looking")?;
    for node in &NODES[1..] {
        let overrides = format!(r#"{{"spec":{{"nodeName":"{node}"}}}}"#);
        let image = "--image=pintle/hello:v1";
        space.ok(&["run", node, image, "--overrides", &overrides])?;
        space.ok(&["wait", "--for=condition=Ready", &format!("pod/{node}"), "--timeout=60s"])?;
        let logs = space.ok(&["logs", node])?;
        ensure!(logs.contains("listening on port 8080"), "{logs}");
        let shell = format!("shell-{node}");
        space.ok(&[
            "run",
            &shell,
            "--image",
            BUSYBOX,
            "--overrides",
            &overrides,
            "--command",
            "--",
            "sleep",
            "3600",
        ])?;
        space.ok(&["wait", "--for=condition=Ready", &format!("pod/{shell}"), "--timeout=60s"])?;
        let echoed = space.ok_with(&["exec", "-i", &shell, "--", "cat"], "through stdin")?;
        ensure!(echoed == "through stdin", "{echoed:?}");
        let forwarding = space.spawn(&["port-forward", &format!("pod/{node}"), ":8080"])?;
        let said = forwarding.expect("-> 8080", SOON)?;
        let port = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).context("a local port")?;
        let answer = ask_from_outside(nodes, "127.0.0.1", port.parse()?)?;
        ensure!(answer.contains(&format!("Hello from {node}")), "{answer}");
    }
    Ok(())
}

fn web(replicas: u32, more: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: {replicas}, \
          selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{{more} \
          topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, \
          whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: web}}}}}}], \
          containers: [{{name: hello, image: 'pintle/hello:v1', \
          readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}}}]}}}}}}}}"
    )
}

fn rolling(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("rolling")?;
    space.ok_with(&["apply", "-f", "-"], &web(6, ""))?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let used = pods(&space, "web")?;
    ensure!(used.len() == 3, "the pods are on {:?}", used.keys());
    space.ok(&["expose", "deployment", "web", "--port=80", "--target-port=8080", "--type=NodePort"])?;
    let port = space.json(&["service/web"])?["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")?;
    let places = addresses(nodes);
    until("every node answers", SOON, || {
        Ok(places.iter().all(|address| ask_from_outside(nodes, address, port).is_ok()).then_some(()))
    })?;
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<usize> {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                let address = places[asked % places.len()];
                let said = ask_from_outside(nodes, address, port);
                let said = said.with_context(|| format!("request {asked}, to {address}"))?;
                ensure!(said.contains("Hello from"), "answered {said:?}");
                asked += 1;
            }
            Ok(asked)
        });
        let rolled = space
            .ok(&["set", "image", "deployment/web", "hello=pintle/hello:v2"])
            .and_then(|_| space.ok(&["rollout", "status", "deployment/web", "--timeout=120s"]));
        done.store(true, Ordering::Relaxed);
        let asked = asking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the asking thread panicked")));
        rolled.and(asked)
    })?;
    ensure!(asked > 20, "only {asked} requests were made");
    until("the new version answers", SOON, || {
        Ok(ask_from_outside(nodes, places[2], port)?.contains("(v2)").then_some(()))
    })
}

fn killed(nodes: &Nodes) -> Result<()> {
    let (space, agent) = (nodes.cluster.space("killed")?, nodes.agent(NODES[1])?);
    let pinned = format!("nodeName: {}, ", agent.name);
    space.ok_with(&["apply", "-f", "-"], &web(3, &pinned))?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let identity = || -> Result<BTreeSet<String>> {
        let of = |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            format!("{} {} {}", pod["metadata"]["uid"], status["containerID"], status["restartCount"])
        };
        Ok(items(&space.json(&["pods", "-l", "app=web"])?).iter().map(of).collect())
    };
    let before = identity()?;
    ensure!(before.len() == 3 && before.iter().all(|pod| pod.ends_with(" 0")), "{before:?}");
    agent.kill()?;
    let address = pods(&space, "web")?[agent.name].1.clone();
    let asking =
        space.cluster.host.run(&["timeout", "5", "bash", "-c", &format!("exec 3<>/dev/tcp/{address}/8080")])?;
    asking.ok().context("a pod is reached while its agent is away")?;
    agent.start()?;
    let pod = pods(&space, "web")?[agent.name].0.clone();
    until("the agent answers for its pods", SOON, || Ok(space.run(&["logs", &pod])?.status.success().then_some(())))?;
    nodes.wait_ready(&[agent.name])?;
    ensure!(before == identity()?, "before: {before:?}\nafter: {:?}", identity()?);
    space.ok(&["delete", "pod", &pod, "--timeout=60s"])?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).map(drop)
}

fn without_server(nodes: &Nodes) -> Result<()> {
    let (space, agent) = (nodes.cluster.space("away")?, nodes.agent(NODES[1])?);
    space.ok_with(&["apply", "-f", "-"], &web(3, &format!("nodeName: {}, ", NODES[2])))?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    space.ok(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?;
    let address = text(&space.json(&["service/web"])?["spec"]["clusterIP"]);
    let name = format!("web.{}.svc.cluster.local", space.name);
    // The agent's own DNS and rules, asked from its machine.
    let resolve = || agent.host.run(&["busybox", "nslookup", &name, "10.43.0.10"])?.ok();
    let request = format!("exec 3<>/dev/tcp/{address}/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
    let ask = || agent.host.run(&["timeout", "5", "bash", "-c", &request])?.ok();
    until(
        "the name resolves and the service answers",
        SOON,
        || Ok((resolve().is_ok() && ask().is_ok()).then_some(())),
    )?;
    nodes.kill_server()?;
    let checked = (|| {
        ensure!(nodes.cluster.kubectl(&["get", "nodes"])?.failed()?.contains("refused"));
        let resolved = resolve()?;
        ensure!(resolved.contains(&address), "{resolved}");
        let said = ask()?;
        ensure!(said.contains("Hello from web-"), "{said}");
        Ok(())
    })();
    nodes.cluster.start_server()?;
    checked?;
    nodes.wait_ready(&NODES)?;
    let restarts =
        |pods: &Value| items(pods).iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0);
    space.until("nothing was restarted", &["pods", "-l", "app=web"], SOON, restarts)?;
    // The agents hear of new things.
    space.ok(&["scale", "deployment/web", "--replicas=4"])?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]).map(drop)
}

fn leaving(nodes: &Nodes) -> Result<()> {
    let (space, agent) = (nodes.cluster.space("leaving")?, nodes.agent(NODES[2])?);
    let range = text(&space.json(&[&format!("node/{}", agent.name)])?["spec"]["podCIDR"]);
    let routes = || nodes.cluster.host.run(&["ip", "route"])?.ok();
    ensure!(routes()?.contains(&range), "no route to {range}: {}", routes()?);
    let left = agent.reset()?;
    ensure!(left.is_empty(), "left behind after the reset:\n{}", left.join("\n"));
    space.ok(&["delete", "node", agent.name])?;
    until("the route is gone", SOON, || Ok((!routes()?.contains(&range)).then_some(())))?;
    nodes.join(agent)?;
    nodes.wait_ready(&[agent.name])?;
    space.ok_with(&["apply", "-f", "-"], &web(1, &format!("nodeName: {}, ", agent.name)))?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let address = &pods(&space, "web")?[agent.name].1;
    let asking = format!("exec 3<>/dev/tcp/{address}/8080");
    let reached = || nodes.cluster.host.run(&["timeout", "5", "bash", "-c", &asking])?.ok();
    until("its pod is reached", SOON, || Ok(reached().ok()))?;
    Ok(())
}

fn cut_off(nodes: &Nodes) -> Result<()> {
    let (space, agent) = (nodes.cluster.space("cut")?, nodes.agent(NODES[2])?);
    let impatient = |key: &str| {
        format!("{{key: node.kubernetes.io/{key}, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}")
    };
    let tolerations = format!("tolerations: [{}, {}], ", impatient("not-ready"), impatient("unreachable"));
    space.ok_with(&["apply", "-f", "-"], &web(3, &tolerations))?;
    space.ok(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let lost = pods(&space, "web")?[agent.name].0.clone();
    let start = Instant::now();
    nodes.lan.cut(&agent.host)?;
    let checked = (|| {
        let node = format!("node/{}", agent.name);
        let seen = space.until("the node is not ready", &[&node], SOON, |node| {
            node["spec"]["taints"].to_string().contains("node.kubernetes.io/unreachable")
        })?;
        let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|c| c["type"] == "Ready").context("a condition")?;
        ensure!(ready["status"] == "Unknown" && ready["reason"] == "NodeStatusUnknown", "{ready}");
        // The grace period is 8 s, of which the last lease may have used a fourth.
        ensure!(start.elapsed() > Duration::from_secs(5), "too early: {:?}", start.elapsed());
        space.until("the pod is to go", &[&format!("pod/{lost}")], SOON, |pod| {
            pod["metadata"]["deletionTimestamp"].is_string()
        })?;
        space.until("three others are ready", &["deployment/web"], SOON, |web| web["status"]["readyReplicas"] == 3)?;
        let there = items(&space.json(&["pods", "-l", "app=web"])?);
        ensure!(there.len() == 4, "the old pod stays until its node is heard of: {}", there.len());
        Ok(())
    })();
    nodes.lan.heal(&agent.host)?;
    checked.with_context(|| space.describe())?;
    nodes.wait_ready(&[agent.name])?;
    space.until("the old pod is gone", &["pods", "-l", "app=web"], SOON, |list| items(list).len() == 3)?;
    space.until("nothing is left of the taint", &[&format!("node/{}", agent.name)], SOON, |node| {
        !node["spec"]["taints"].to_string().contains("unreachable")
    })?;
    Ok(())
}
