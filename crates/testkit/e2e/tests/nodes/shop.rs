//! An application of three tiers across the nodes: web servers, redis and postgres, whose images are made of Debian's
//! packages. The node of redis is cut off and comes back; the agent on the node of postgres is killed and started again.

use crate::{SOON, addresses, ask_from_outside, items, text};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{Agent, NODES, Nodes, Space, install_clients, run_command_within, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Making the images.
const BUILD_LIMIT: Duration = Duration::from_secs(120);
/// How long a node may be silent is 8 s, of which its last lease may have used a fourth, and its pods bear 2 s of it.
const EARLIEST_EVICTION: Duration = Duration::from_secs(8);
const WEB_SERVERS: usize = 3;
/// The nodes that redis and postgres are on, by the label that the manifest asks for.
const TIERS: [(&str, &str); 2] = [(NODES[1], "database"), (NODES[2], "cache")];

pub fn test(nodes: &Nodes) -> Result<()> {
    load_images(nodes)?;
    let space = nodes.cluster.space("shop")?;
    for (node, tier) in TIERS {
        space.ok(&["label", "node", node, &format!("tier={tier}")])?;
    }
    let checked = opens(nodes, &space).and_then(|mut shop| {
        shop.is_measured(NODES[1])?;
        shop.loses_a_node(nodes.agent(NODES[2])?)?;
        shop.is_adopted(nodes.agent(NODES[1])?)?;
        shop.keeps_its_data()
    });
    let checked = checked.with_context(|| space.describe());
    for (node, _) in TIERS {
        space.ok(&["label", "node", node, "tier-"])?;
    }
    checked
}

fn own(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).to_string_lossy().into_owned()
}

/// Builds the images on the first node and gives them to all.
fn load_images(nodes: &Nodes) -> Result<()> {
    let packages = install_clients("docker")?.join("docker-packages/root");
    let run = |program: &str, words: &[&str]| {
        let mut command = nodes.cluster.docker_command(program);
        command.args(words);
        run_command_within(command, "", BUILD_LIMIT)?.ok()
    };
    let path = |name: &str| nodes.cluster.path(name).to_string_lossy().into_owned();
    let (contexts, archive) = (path("shop"), path("shop.tar"));
    run("sh", &[&own("clients/docker/images.sh"), &contexts, &packages.to_string_lossy(), "shop"])?;
    run("docker", &["save", "--output", &archive, "shop/web:1", "shop/redis:1", "shop/postgres:1"])?;
    nodes.load(Path::new(&archive))
}

fn opens<'a>(nodes: &'a Nodes, space: &'a Space<'a>) -> Result<Shop<'a>> {
    space.ok(&["apply", "-f", &own("tests/nodes/shop.yaml")])?;
    for part in ["statefulset/postgres", "deployment/redis", "deployment/web"] {
        space.ok(&["rollout", "status", part, "--timeout=60s"])?;
    }
    let port = space.json(&["service/web"])?["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")?;
    let mut shop = Shop { nodes, space, port, last: Visit::default() };
    for address in addresses(nodes) {
        shop.serves_again(address)?;
    }
    shop.serves(&addresses(nodes))?;
    Ok(shop)
}

/// What a web server answers.
#[derive(Debug, Default)]
struct Visit {
    pod: String,
    /// The visits that redis has counted, which begins anew when it is replaced.
    cached: u64,
    /// The visits that are written down in postgres.
    kept: u64,
}

struct Shop<'a> {
    nodes: &'a Nodes,
    space: &'a Space<'a>,
    port: u64,
    last: Visit,
}

impl Shop<'_> {
    /// Visits it through the node port; what was kept before must be there still. Answers the visit before.
    fn visit(&mut self, address: &str) -> Result<Visit> {
        let answer = self.ask(address)?;
        let count = |name: &str| answer[name].as_u64().with_context(|| format!("no {name} in {answer}"));
        let visit = Visit { pod: text(&answer["pod"]), cached: count("cached")?, kept: count("kept")? };
        ensure!(visit.kept > self.last.kept, "{:?}, and then {visit:?}", self.last);
        Ok(std::mem::replace(&mut self.last, visit))
    }

    fn ask(&self, address: &str) -> Result<Value> {
        let said = ask_from_outside(self.nodes, address, self.port)?;
        serde_json::from_str(said.lines().last().unwrap_or_default()).context(said)
    }

    /// Waits for an answer; who programs nodes may be a moment behind.
    fn serves_again(&mut self, address: &str) -> Result<()> {
        until(&format!("it answers at {address}"), SOON, || self.visit(address).map(Some)).map(drop)
    }

    /// All its web servers answer at each of these addresses, and each request is counted once in each tier.
    fn serves(&mut self, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            let mut seen = BTreeSet::new();
            while seen.len() < WEB_SERVERS {
                let before = self.visit(address).with_context(|| format!("at {address}, after {seen:?}"))?;
                let Visit { cached, kept, pod } = &self.last;
                ensure!((*cached, *kept) == (before.cached + 1, before.kept + 1), "{before:?}, then {:?}", self.last);
                seen.insert(pod.clone());
            }
        }
        Ok(())
    }

    fn pods(&self) -> Result<Vec<Value>> {
        Ok(items(&self.space.json(&["pods"])?))
    }

    fn pods_on(&self, node: &str) -> Result<Vec<Value>> {
        Ok(self.pods()?.into_iter().filter(|pod| pod["spec"]["nodeName"] == node).collect())
    }

    /// The kubelet of the database's node tells how many pods it runs and what its volume's filesystem holds.
    fn is_measured(&self, node: &str) -> Result<()> {
        let path = format!("/api/v1/nodes/{node}/proxy/metrics");
        let told = self.nodes.cluster.kubectl(&["get", "--raw", &path])?.ok()?;
        let claim = format!("{{namespace=\"{}\",persistentvolumeclaim=\"data-postgres-0\"}}", self.space.name);
        let value = |name: &str| -> Result<f64> {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(line.with_context(|| format!("no {name} in:\n{told}"))?.parse()?)
        };
        let stat = |name: &str| value(&format!("kubelet_volume_stats_{name}_bytes{claim}"));
        let (used, capacity) = (stat("used")?, stat("capacity")?);
        ensure!(0.0 < used && used < capacity, "{used} of {capacity} bytes");
        let (running, ours) = (value("kubelet_running_pods")?, self.pods_on(node)?.len());
        ensure!(running >= ours as f64, "{running} pods run, but {ours} are ours");
        Ok(())
    }

    fn loses_a_node(&mut self, agent: &Agent) -> Result<()> {
        let lost: Vec<String> = self.pods_on(agent.name)?.iter().map(name).collect();
        let of = |app: &str| lost.iter().filter(|name| name.starts_with(app)).count();
        ensure!((lost.len(), of("web-"), of("redis-")) == (2, 1, 1), "{} runs {lost:?}", agent.name);
        self.nodes.lan.cut(&agent.host)?;
        let cut = Instant::now();
        let checked = self.is_replaced(agent, &lost, cut);
        self.nodes.lan.heal(&agent.host)?;
        checked?;
        self.nodes.wait_ready(&[agent.name])?;
        until("the old pods are gone", SOON, || {
            Ok((!self.pods()?.iter().any(|pod| lost.contains(&name(pod)))).then_some(()))
        })?;
        self.space.until("the node is as before", &[&format!("node/{}", agent.name)], SOON, |node| {
            !node["spec"]["taints"].to_string().contains("node.kubernetes.io/")
        })?;
        self.serves_again(agent.host.address)?;
        self.serves(&addresses(self.nodes))
    }

    /// What ran on the node that is cut off comes up elsewhere, and the application answers as before.
    fn is_replaced(&mut self, agent: &Agent, lost: &[String], cut: Instant) -> Result<()> {
        self.space.until("the node is not ready", &[&format!("node/{}", agent.name)], SOON, |node| {
            condition(node, "Ready")["status"] == "Unknown"
                && node["spec"]["taints"].to_string().contains("node.kubernetes.io/unreachable")
        })?;
        for pod in lost {
            let marked = self.space.until("its pod is to go", &[&format!("pod/{pod}")], SOON, |pod| {
                pod["metadata"]["deletionTimestamp"].is_string()
            })?;
            let why = condition(&marked, "DisruptionTarget");
            ensure!(why["status"] == "True" && why["reason"] == "DeletionByTaintManager", "{pod}: {why}");
            ensure!(condition(&marked, "Ready")["status"] == "False", "{pod} passes for ready");
        }
        ensure!(cut.elapsed() > EARLIEST_EVICTION, "too early: after {:?}", cut.elapsed());
        until("others are ready", SOON, || {
            let pods = self.pods()?;
            let ready = |app: &str| {
                let of_app = pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == app);
                of_app.filter(|pod| condition(pod, "Ready")["status"] == "True").count()
            };
            Ok(((ready("web"), ready("redis"), ready("postgres")) == (WEB_SERVERS, 1, 1)).then_some(()))
        })?;
        let left = self.pods_on(agent.name)?.iter().map(name).collect::<BTreeSet<_>>();
        ensure!(left.iter().eq(lost.iter().collect::<BTreeSet<_>>()), "on the node that nobody hears of: {left:?}");
        let reached: Vec<&str> =
            addresses(self.nodes).into_iter().filter(|address| *address != agent.host.address).collect();
        let before = self.last.cached;
        for address in &reached {
            self.serves_again(address)?;
        }
        ensure!(self.last.cached < before, "another redis counts on: {before}, then {:?}", self.last);
        self.serves(&reached)
    }

    /// Who the containers on a node are.
    fn containers_on(&self, node: &str) -> Result<BTreeSet<String>> {
        let of = |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            let [id, restarts] = [&status["containerID"], &status["restartCount"]];
            format!("{} {id} {restarts} {}", name(pod), status["state"]["running"]["startedAt"])
        };
        Ok(self.pods_on(node)?.iter().map(of).collect())
    }

    fn query(&self, query: &str) -> Result<String> {
        let command = format!("PGPASSWORD=$(cat /secret/password) psql -h /tmp -U postgres -Atc '{query}'");
        self.space.ok(&["exec", "postgres-0", "--", "sh", "-c", &command])
    }

    fn is_adopted(&mut self, agent: &Agent) -> Result<()> {
        let began = "select pg_postmaster_start_time()";
        let before = (self.containers_on(agent.name)?, self.query(began)?);
        ensure!(before.0.iter().any(|pod| pod.starts_with("postgres-0 ")), "{} runs {before:?}", agent.name);
        agent.kill()?;
        let reached = self.is_reached();
        agent.start()?;
        reached.context("while the agent is away")?;
        let logs = ["logs", "postgres-0"];
        until("the agent answers for its pods", SOON, || Ok(self.space.run(&logs)?.status.success().then_some(())))?;
        self.nodes.wait_ready(&[agent.name])?;
        let after = (self.containers_on(agent.name)?, self.query(began)?);
        ensure!(before == after, "before: {before:?}\nafter: {after:?}");
        self.serves_again(agent.host.address)?;
        self.serves(&addresses(self.nodes)).context("when the agent is back")
    }

    /// The database runs on, and other nodes reach it.
    fn is_reached(&self) -> Result<()> {
        let address = text(&self.space.json(&["pod/postgres-0"])?["status"]["podIP"]);
        let connect = format!("exec 3<>/dev/tcp/{address}/5432");
        self.nodes.cluster.host.run(&["timeout", "5", "bash", "-c", &connect])?.ok().map(drop)
    }

    /// The database is started anew by the agent that adopted it, on the same volume.
    fn keeps_its_data(&mut self) -> Result<()> {
        self.space.ok(&["delete", "pod", "postgres-0", "--timeout=60s"])?;
        self.space.ok(&["rollout", "status", "statefulset/postgres", "--timeout=60s"])?;
        let address = self.nodes.cluster.host.address;
        self.serves_again(address)?;
        self.serves(&[address])?;
        let kept = self.query("select count(*) from visits")?;
        ensure!(kept.trim() == self.last.kept.to_string(), "{kept} rows, but {:?}", self.last);
        Ok(())
    }
}

fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

/// A condition of an object's status, or nothing.
fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}
