//! Huge pages: told by the node, shared out, and in volumes.

use crate::{SOON, sleeper, status_in};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, Space, left_out, until};
use serde_json::{Value, json};

/// Pages of 2 MiB that the kernel keeps.
const KEPT: &str = "/proc/sys/vm/nr_hugepages";
const PAGES: u64 = 8;

/// Pages that the kernel keeps for the test, to be given back.
struct Reserved {
    before: u64,
}

fn kept() -> Result<u64> {
    Ok(std::fs::read_to_string(KEPT)?.trim().parse()?)
}

impl Reserved {
    fn new() -> Result<Self> {
        let Ok(before) = kept() else { return Err(left_out("this kernel has no huge pages")) };
        let reserved = Self { before };
        let wanted = before + PAGES;
        let keep = || std::fs::write(KEPT, wanted.to_string()).is_ok() && kept().is_ok_and(|now| now == wanted);
        // Free memory may be in pieces.
        let compact = || std::fs::write("/proc/sys/vm/compact_memory", "1").is_ok();
        if keep() || (compact() && keep()) {
            return Ok(reserved);
        }
        if kept()? != before {
            reserved.give_back()?;
        }
        Err(left_out("this machine gives no memory for huge pages"))
    }

    fn give_back(self) -> Result<()> {
        std::fs::write(KEPT, self.before.to_string()).context("give huge pages back")
    }
}

fn container(name: &str, pages: u64, script: &str) -> Value {
    let amounts = json!({"hugepages-2Mi": format!("{}Mi", 2 * pages), "memory": "32Mi", "cpu": "10m"});
    json!({"name": name, "image": BUSYBOX, "command": ["sh", "-c", script],
        "resources": {"limits": amounts}, "volumeMounts": [{"name": "huge", "mountPath": "/huge"}]})
}

fn pod(name: &str, medium: &str, containers: &[Value]) -> Value {
    let volumes = json!([{"name": "huge", "emptyDir": {"medium": medium}}]);
    sleeper(name, json!({"nodeName": "node-1", "containers": containers, "volumes": volumes}))
}

/// Creates a pod; its status once it is in that phase.
fn status(space: &Space<'_>, pod: &Value, phase: &str) -> Result<Value> {
    space.ok_with(&["create", "-f", "-"], &pod.to_string())?;
    status_in(space, pod["metadata"]["name"].as_str().context("a name")?, phase)
}

/// Bytes of a quantity that is a whole number of KiB, MiB or GiB.
fn bytes(quantity: &Value) -> Result<u64> {
    let text = quantity.as_str().context("a quantity")?;
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("", 0)];
    let number = |(unit, shift): (&str, u32)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()? << shift);
    units.into_iter().find_map(number).with_context(|| format!("bytes: {text}"))
}

pub fn pages(_: &Cluster) -> Result<()> {
    let reserved = Reserved::new()?;
    let tested = with_pages(reserved.before + PAGES);
    tested.and(reserved.give_back())
}

fn with_pages(all: u64) -> Result<()> {
    // The kubelet counts them when it starts.
    let cluster = Cluster::start()?;
    let tested = on(&cluster, all);
    tested.and(cluster.finish())
}

fn on(cluster: &Cluster, all: u64) -> Result<()> {
    let space = cluster.space("huge")?;
    let node = space.json(&["node/node-1"])?["status"].clone();
    for list in ["capacity", "allocatable"] {
        ensure!(bytes(&node[list]["hugepages-2Mi"])? == all << 21, "{}", node[list]);
    }
    let (memory, left) = (bytes(&node["capacity"]["memory"])?, bytes(&node["allocatable"]["memory"])?);
    ensure!(memory - left >= all << 21, "{node}");
    let script = "/bin/busybox fallocate -l 4194304 /huge/f && stat -f -c '%t %s' /huge && ls -ld /huge | head -c 10 && echo && exec sleep 3600";
    let writer = container("writer", 3, &script.replace("stat", "/bin/busybox stat"));
    status(&space, &pod("some", "HugePages", &[writer]), "Running")?;
    ensure!(space.logs_to("drwx", &["some"])? == "958458f6 2097152\ndrwxrwxrwx\n");
    let many = container("c", all, "exec sleep 3600");
    let refused = status(&space, &pod("many", "HugePages-2Mi", &[many]), "Failed")?;
    ensure!(refused["reason"] == "OutOfhugepages-2Mi", "{refused}");
    // A volume of pages that its pod does not ask for can't be had.
    let other = container("c", 1, "exec sleep 3600");
    status(&space, &pod("other", "HugePages-1Gi", &[other]), "Pending")?;
    until("why its volume is not there", SOON, || {
        let events =
            space.ok(&["get", "events", "--field-selector", "involvedObject.name=other,reason=FailedMount"])?;
        Ok(events
            .contains("medium HugePages-1Gi: hugePages storage requested, but there is no resource request")
            .then_some(()))
    })?;
    // The pages of a volume come back with its end.
    ensure!(free()? == all - 2, "{} are free", free()?);
    space.ok(&["delete", "pod", "some", "--timeout=60s"])?;
    until("its pages are free", SOON, || Ok((free()? == all).then_some(())))
}

fn free() -> Result<u64> {
    let text = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")?;
    Ok(text.trim().parse()?)
}
