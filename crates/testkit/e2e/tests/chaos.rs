//! The engine dies without warning at random moments of a mixed load, and each time another one must find all in order.
//!
//! `PINTLE_E2E_SEED` chooses the moments, `PINTLE_E2E_KILLS` how many there are: the suite does a few, `cargo xtask
//! chaos` does fifty.

#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Spawned, suite_on, until};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long anything may take that ought to be there at once.
const SOON: Duration = Duration::from_secs(30);
const KILLS: u64 = 8;
const SEED: u64 = 20_260_401;
/// The image that is pulled, of several layers.
const FAR: &str = "127.0.0.1:5000/chaos/far:1";

fn main() -> ExitCode {
    suite_on::<Engine>(&[("kill -9 at random moments leaves all in order", chaos)])
}

/// Numbers that a seed decides (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

fn chaos(engine: &Engine) -> Result<()> {
    let (seed, kills) = (setting("PINTLE_E2E_SEED", SEED)?, setting("PINTLE_E2E_KILLS", KILLS)?);
    let mut random = Random(seed.max(1));
    let _registry = registry(engine)?;
    let networks = Networks::of(engine)?;
    for kill in 0..kills {
        let moment = Duration::from_millis(50 + random.below(1800));
        let step = || format!("kill {kill} of seed {seed}, {} ms after the load began", moment.as_millis());
        let loads = ["run", "build", "pull", "connect"].map(|kind| load(engine, kind, kill));
        let loads = loads.into_iter().collect::<Result<Vec<_>>>()?;
        std::thread::park_timeout(moment);
        engine.stop_daemon(Signal::KILL).with_context(step)?;
        loads.into_iter().try_for_each(end)?;
        engine.start_daemon().with_context(step)?;
        let found = Instant::now();
        consistent(engine).with_context(step)?;
        println!("{}: in order ({:.1}s)", step(), found.elapsed().as_secs_f64());
        if kill % 4 == 3 {
            clear(engine).with_context(step)?;
        }
    }
    whole(engine)?;
    clear(engine)?;
    networks.check(engine).with_context(|| format!("after {kills} kills of seed {seed}"))
}

/// Removes what the loads have made.
fn clear(engine: &Engine) -> Result<()> {
    let lines = "docker ps -aq | xargs -r docker rm -f -v
                 docker network prune -f
                 docker images -q load/built | xargs -r docker rmi -f
                 docker image prune -f";
    engine.shell(lines).map(drop)
}

/// Debian's registry with an image in it, which is not here any more.
fn registry(engine: &Engine) -> Result<Spawned> {
    let folder = engine.path("registry");
    std::fs::create_dir_all(&folder)?;
    let root = folder.display();
    let settings = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
         http: {{addr: '127.0.0.1:5000'}}\n"
    );
    std::fs::write(folder.join("config.yml"), settings)?;
    let mut command = engine.command("docker-registry");
    command.arg("serve").arg(folder.join("config.yml"));
    let registry = engine.start_program(command)?;
    registry.expect("listening on", SOON)?;
    let layers: Vec<String> = (0..4)
        .map(|i| format!("RUN mkdir /l{i} && for n in $(seq 200); do echo $n > /l{i}/$n; done && dd if=/dev/urandom of=/l{i}/big bs=1M count=4"))
        .collect();
    let dockerfile = format!("FROM {BUSYBOX}\n{}\n", layers.join("\n"));
    engine.ok_with(&["build", "-q", "-t", FAR, "-"], &dockerfile)?;
    engine.ok(&["push", "-q", FAR])?;
    engine.shell(&format!("docker rmi {FAR} && docker image prune -f"))?;
    Ok(registry)
}

/// What is done without end, in the background; what fails meanwhile is no failure. $1 is told apart by kill.
fn load(engine: &Engine, kind: &str, kill: u64) -> Result<Spawned> {
    let each = match kind {
        "run" => {
            "docker run -d --name run-$1-$i -v run-$1-$i:/v -v /anonymous -p 0:80 e2e/busybox:1 sleep 3600
             docker run --rm e2e/busybox:1 true
             docker exec run-$1-$i sleep 0.1
             docker pause run-$1-$i
             [ $((i % 2)) = 0 ] && docker unpause run-$1-$i
             [ $((i % 3)) = 0 ] && docker rm -f -v run-$1-$((i-1))
             [ $((i % 3)) = 1 ] && docker restart -t 0 run-$1-$i"
        }
        "build" => {
            "printf \"FROM e2e/busybox:1\\nENV N=$1-$i\\nRUN echo $1-$i > /made\\nCOPY --from=e2e/busybox:1 /bin/busybox /b\\nRUN cat /made\\n\" |
                 docker build --force-rm -q -t load/built:$1-$i -
             [ $((i % 2)) = 0 ] && docker rmi load/built:$1-$((i-1))"
        }
        "pull" => "docker pull -q 127.0.0.1:5000/chaos/far:1; docker rmi -f 127.0.0.1:5000/chaos/far:1",
        _ => {
            "docker network create net-$1-$i
             docker run -d --name net-$1-$i --network net-$1-$i e2e/busybox:1 sleep 3600
             docker network connect bridge net-$1-$i
             docker network disconnect net-$1-$i net-$1-$i
             [ $((i % 2)) = 0 ] && docker rm -f net-$1-$i && docker network rm net-$1-$i"
        }
    };
    let mut command = engine.command("timeout");
    command.args(["120", "sh", "-c", &format!("i=0; while :; do i=$((i+1)); {each}; done"), "load", &kill.to_string()]);
    engine.start_program(command)
}

/// Ends a load with all its processes: `timeout` leads a group of its own.
fn end(mut load: Spawned) -> Result<()> {
    let group = Pid::from_raw(i32::try_from(load.id())?).context("a process id")?;
    // It leads one from a moment after its start on.
    if kill_process_group(group, Signal::KILL).is_err() {
        load.signal(Signal::KILL)?;
    }
    load.wait().map(drop)
}

/// What is said of containers, images, networks and volumes fits together and what is on the machine.
fn consistent(engine: &Engine) -> Result<()> {
    // Removals that were cut off, and those of `--rm`, are done in the background.
    until("containers and what is there of them agree", SOON, || {
        Ok(containers_disagree(engine)?.is_empty().then_some(()))
    })
    .or_else(|e| Err(e.context(containers_disagree(engine)?.join("\n"))))?;
    for container in inspected(engine)?.iter().filter(|c| c["State"]["Status"] == "running") {
        let id = container["Id"].as_str().unwrap_or_default();
        ensure!(engine.ok(&["exec", id, "echo", "there"])? == "there", "{id}");
    }
    for id in engine.ok(&["images", "-aq", "--no-trunc"])?.lines() {
        engine.ok(&["image", "inspect", id])?;
    }
    ensure!(engine.ok(&["run", "--rm", BUSYBOX, "echo", "works"])? == "works");
    let unfinished = names(&engine.path("data/images/ingest"))?;
    ensure!(unfinished.is_empty(), "half written: {unfinished:?}");
    let layers = names(&engine.path("data/images/layers"))?;
    let index: Value = serde_json::from_slice(&std::fs::read(engine.path("data/images/images.json"))?)?;
    let mut listed: BTreeSet<String> = strings(&index, "chain");
    for snapshot in names(&engine.path("data/images/snapshots"))? {
        let chain = std::fs::read_to_string(engine.path("data/images/snapshots").join(snapshot).join("chain"))?;
        listed.extend(chain.lines().map(|id| id.trim_start_matches("sha256:").to_owned()));
    }
    ensure!(layers == listed, "layers of nobody or missing: {:?}", layers.symmetric_difference(&listed));
    Ok(())
}

/// The digests below a key of each image, without the algorithm.
fn strings(index: &Value, key: &str) -> BTreeSet<String> {
    let images = index.as_array().into_iter().flatten();
    let all = images.flat_map(|image| image[key].as_array().into_iter().flatten());
    all.filter_map(Value::as_str).map(|id| id.trim_start_matches("sha256:").to_owned()).collect()
}

fn inspected(engine: &Engine) -> Result<Vec<Value>> {
    let ids = engine.ok(&["ps", "-aq", "--no-trunc"])?;
    let ids: Vec<&str> = ids.lines().collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(serde_json::from_str(&engine.ok(&[&["inspect"][..], &ids].concat())?)?)
}

/// Everything in which what the engine says of containers differs from what is on the machine.
fn containers_disagree(engine: &Engine) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let containers = inspected(engine)?;
    let mut running = BTreeMap::new();
    for container in &containers {
        let (id, state) = (container["Id"].as_str().unwrap_or_default(), &container["State"]);
        let (status, pid) = (state["Status"].as_str().unwrap_or_default(), state["Pid"].as_i64().unwrap_or_default());
        let alive = matches!(status, "running" | "paused");
        if (state["Running"] == true) != alive || (pid != 0) != alive {
            wrong.push(format!("{id}: {state}"));
        }
        if alive {
            running.insert(id.to_owned(), pid);
            let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if !cgroup.contains(id) {
                wrong.push(format!("{id} is {status} without a process: {pid} is in {cgroup:?}"));
            }
        } else if !matches!(status, "created" | "exited") {
            wrong.push(format!("{id} is {status}"));
        }
    }
    let shims = engine.shims()?.len();
    if shims != running.len() {
        wrong.push(format!("{shims} shims for {} running containers", running.len()));
    }
    for folder in ["run/engine/sandboxes", "run/engine/netns", "data/engine/sandboxes", "data/engine/containers"] {
        let there = names(&engine.path(folder))?;
        if there.len() != running.len() {
            wrong.push(format!(
                "{} entries in {folder} for {} running containers: {there:?}",
                there.len(),
                running.len()
            ));
        }
    }
    let snapshots = names(&engine.path("data/images/snapshots"))?;
    let expected: BTreeSet<String> =
        containers.iter().filter_map(|c| c["Id"].as_str()).map(|id| format!("docker-{id}")).collect();
    if snapshots != expected {
        wrong.push(format!("snapshots of nobody or missing: {:?}", snapshots.symmetric_difference(&expected)));
    }
    let folders = names(&engine.path("data/docker/containers"))?;
    if folders.len() != containers.len() {
        wrong.push(format!("{} folders of {} containers", folders.len(), containers.len()));
    }
    for cgroup in engine.container_cgroups()? {
        let name = cgroup.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !running.contains_key(&name) {
            wrong.push(format!("cgroup {}", cgroup.display()));
        }
    }
    wrong.extend(links_disagree(engine, &containers)?);
    Ok(wrong)
}

/// Every pair of links belongs to a connection of a container that runs, and every bridge to a network.
fn links_disagree(engine: &Engine, containers: &[Value]) -> Result<Vec<String>> {
    let links = engine.host.run(&["ip", "-o", "link", "show", "type", "veth"])?.ok()?;
    let pairs = links.lines().filter(|l| l.split(": ").nth(1).is_some_and(|name| name.starts_with("veth"))).count();
    let alive = containers.iter().filter(|c| c["State"]["Running"] == true);
    let connected: usize =
        alive.map(|c| c["NetworkSettings"]["Networks"].as_object().map_or(0, serde_json::Map::len)).sum();
    let bridges = engine.host.run(&["ip", "-o", "link", "show", "type", "bridge"])?.ok()?.lines().count();
    let networks = engine.ok(&["network", "ls", "-q", "--filter", "driver=bridge"])?.lines().count();
    let mut wrong = Vec::new();
    if pairs != connected {
        wrong.push(format!("{pairs} pairs of links for {connected} connections:\n{links}"));
    }
    if bridges != networks {
        wrong.push(format!("{bridges} bridges for {networks} networks"));
    }
    Ok(wrong)
}

/// Every image that is listed has all its blobs, and containers can be made of it.
fn whole(engine: &Engine) -> Result<()> {
    engine.ok(&["pull", "-q", FAR])?;
    ensure!(
        engine.ok(&["run", "--rm", FAR, "sh", "-c", "cat /l*/200 | tr '\\n' ' '; ls /l*/big | wc -l"])?
            == "200 200 200 200 4"
    );
    for id in engine.ok(&["images", "-q", "--no-trunc"])?.lines() {
        engine.shell(&format!("docker save {id} | tar -t > /dev/null && docker rm $(docker create {id} true)"))?;
    }
    Ok(())
}

/// What is set up in the kernel for the networks while no container runs.
struct Networks {
    links: String,
    rules: String,
}

impl Networks {
    fn of(engine: &Engine) -> Result<Self> {
        let links = engine.host.run(&["ip", "-brief", "link"])?.ok()?;
        let links = links.lines().filter_map(|l| l.split_whitespace().next()).collect::<Vec<_>>().join("\n");
        Ok(Self { links, rules: engine.host.run(&["nft", "list", "ruleset"])?.ok()? })
    }

    fn check(&self, engine: &Engine) -> Result<()> {
        let now = Self::of(engine)?;
        ensure!(now.links == self.links, "links before:\n{}\nand now:\n{}", self.links, now.links);
        ensure!(now.rules == self.rules, "rules before:\n{}\nand now:\n{}", self.rules, now.rules);
        Ok(())
    }
}

/// What is in a directory; nothing when it is not there.
fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(BTreeSet::new()) };
    entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
}
