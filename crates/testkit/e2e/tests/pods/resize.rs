//! Pods that change their size while they run: what is asked, what is told, and what the kernel holds them to.

use crate::api::{get, replace, text};
use crate::{SOON, Test, Three, apply, container, pod, ready};
use anyhow::{Context, Result, bail, ensure};
use pintle_e2e::{Space, until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub const TESTS: &[Test] = &[
    ("guaranteed pods change their size", guaranteed),
    ("burstable pods change their size, and get what they had not", burstable),
    ("sizes that come to the same are told as asked", equivalents),
    ("the size of a pod is read and put", endpoints),
    ("containers start again when their size changes, if they are to", restarts),
];

/// Requests and limits of one container: processor in thousandths, memory in MiB; zero for nothing.
#[derive(Clone, Copy)]
struct Size {
    cpu: [u32; 2],
    memory: [u32; 2],
}

const fn size(cpu: [u32; 2], memory: [u32; 2]) -> Size {
    Size { cpu, memory }
}

/// Whose requests are its limits.
const fn fixed(cpu: u32, memory: u32) -> Size {
    Size { cpu: [cpu; 2], memory: [memory; 2] }
}

impl Size {
    fn part(self, index: usize) -> Value {
        let mut part = json!({});
        if self.cpu[index] > 0 {
            part["cpu"] = format!("{}m", self.cpu[index]).into();
        }
        if self.memory[index] > 0 {
            part["memory"] = format!("{}Mi", self.memory[index]).into();
        }
        part
    }

    fn resources(self) -> Value {
        let (requests, limits) = (self.part(0), self.part(1));
        let mut resources = json!({});
        for (name, part) in [("requests", requests), ("limits", limits)] {
            if part.as_object().is_some_and(|part| !part.is_empty()) {
                resources[name] = part;
            }
        }
        resources
    }
}

fn containers(sizes: &[Size], more: &Value) -> Vec<Value> {
    let made = sizes.iter().enumerate().map(|(number, size)| {
        let mut made = container(&format!("c{number}"), "exec sleep 3600", more.clone());
        made["resources"] = size.resources();
        made
    });
    made.collect()
}

fn start(space: &Space<'_>, sizes: &[Size], more: &Value) -> Result<()> {
    apply(space, &[pod("p", &containers(sizes, more), json!({"restartPolicy": "Always"}))])?;
    ready(space, "p")?;
    settled(space, sizes, 0)
}

fn resize(space: &Space<'_>, sizes: &[Size]) -> Result<()> {
    let parts = sizes
        .iter()
        .enumerate()
        .map(|(number, size)| json!({"name": format!("c{number}"), "resources": size.resources()}));
    let patch = json!({"spec": {"containers": parts.collect::<Vec<_>>()}});
    space.ok(&["patch", "pod/p", "--subresource=resize", "-p", &patch.to_string()]).map(drop)
}

/// Waits until the pod has such sizes by all accounts, and its containers were started again so many times.
fn settled(space: &Space<'_>, sizes: &[Size], restarts: u64) -> Result<()> {
    until("the sizes", SOON, || {
        let pod = space.json(&["pod/p"])?;
        let conditions = pod["status"]["conditions"].to_string();
        ensure!(!conditions.contains("PodResize"), "{conditions}");
        for (number, size) in sizes.iter().enumerate() {
            let name = format!("c{number}");
            let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            let status = statuses.clone().find(|status| status["name"] == name.as_str()).context("a status")?;
            let (asked, told) = (&pod["spec"]["containers"][number]["resources"], &status["resources"]);
            let wanted = size.resources();
            ensure!(*asked == wanted, "{name} asks for {asked} instead of {wanted}");
            ensure!(*told == wanted, "{name} is told to have {told} instead of {wanted}");
            let allocated = &status["allocatedResources"];
            ensure!(
                allocated.is_null() && size.part(0) == json!({}) || *allocated == size.part(0),
                "{name}: {allocated}"
            );
            ensure!(status["restartCount"] == restarts && status["ready"] == true, "{name}: {status}");
            held(&text(&status["containerID"]), *size).with_context(|| name)?;
        }
        Ok(Some(()))
    })
    .with_context(|| space.describe())
}

/// Compares what the kernel holds a container to.
fn held(id: &str, size: Size) -> Result<()> {
    let id = id.rsplit('/').next().unwrap_or_default();
    ensure!(!id.is_empty(), "no container");
    let number = |path: PathBuf| -> Result<i64> {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(-1))
    };
    // The second hierarchy knows both limits by other names.
    let root = Path::new("/sys/fs/cgroup");
    let one = root.join("cgroup.controllers").exists();
    let (cpu, memory) = if one { ("", "") } else { ("cpu", "memory") };
    let quota = number(found(&root.join(cpu), id, 0)?.join(if one { "cpu.max" } else { "cpu.cfs_quota_us" }))?;
    let expected = if size.cpu[1] == 0 { -1 } else { i64::from(size.cpu[1] * 100).max(1000) };
    ensure!(quota == expected, "the kernel gives {quota} µs of 100 ms instead of {expected}");
    let limit =
        number(found(&root.join(memory), id, 0)?.join(if one { "memory.max" } else { "memory.limit_in_bytes" }))?;
    let expected = i64::from(size.memory[1]) << 20;
    // No limit is a very large one in the first hierarchy.
    let unlimited = limit == -1 || limit > 1 << 60;
    ensure!(
        if expected == 0 { unlimited } else { limit == expected },
        "the kernel gives {limit} instead of {expected}"
    );
    Ok(())
}

/// The control group of a container.
fn found(folder: &Path, id: &str, depth: usize) -> Result<PathBuf> {
    const DEEPEST: usize = 8;
    for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
        if entry.file_name().to_string_lossy().contains(id) {
            return Ok(entry.path());
        }
        // Others come and go meanwhile.
        if depth < DEEPEST
            && let Ok(below) = found(&entry.path(), id, depth + 1)
        {
            return Ok(below);
        }
    }
    bail!("no control group {id} below {}", folder.display())
}

/// Resizes a pod there and back again.
fn there_and_back(three: &Three, name: &str, before: &[Size], after: &[Size]) -> Result<()> {
    let space = three.space(name)?;
    start(&space, before, &Value::Null)?;
    for sizes in [after, before] {
        resize(&space, sizes)?;
        settled(&space, sizes, 0)?;
    }
    space.ok(&["delete", "pod/p", "--wait=false"]).map(drop)
}

fn guaranteed(three: &Three) -> Result<()> {
    let before = [fixed(20, 35), fixed(22, 37), fixed(24, 39)];
    // More in all, less in all, and this and that.
    there_and_back(three, "more", &before, &[fixed(25, 40), fixed(27, 42), fixed(19, 34)])?;
    there_and_back(three, "less", &before, &[fixed(25, 40), fixed(17, 32), fixed(19, 34)])?;
    there_and_back(three, "mixed", &before, &[fixed(25, 35), fixed(17, 42), fixed(29, 44)])
}

fn burstable(three: &Three) -> Result<()> {
    let space = three.space("burstable")?;
    let before = [
        size([20, 0], [0, 0]),
        size([0, 0], [35, 0]),
        size([20, 0], [35, 0]),
        size([20, 0], [0, 0]),
        size([0, 0], [35, 0]),
        size([20, 30], [35, 45]),
    ];
    let after = [
        size([25, 35], [0, 0]),
        size([0, 0], [30, 50]),
        size([20, 0], [30, 0]),
        size([15, 0], [35, 0]),
        size([20, 0], [40, 0]),
        size([15, 35], [40, 50]),
    ];
    start(&space, &before, &Value::Null)?;
    resize(&space, &after)?;
    settled(&space, &after, 0)
}

fn equivalents(three: &Three) -> Result<()> {
    there_and_back(three, "equal", &[size([2, 10], [0, 0])], &[size([1, 5], [0, 0])])
}

fn endpoints(three: &Three) -> Result<()> {
    let space = three.space("endpoints")?;
    start(&space, &[fixed(20, 35)], &Value::Null)?;
    let path = format!("/api/v1/namespaces/{}/pods/p/resize", space.name);
    let larger = [fixed(25, 40)];
    until("the size is put", SOON, || {
        let mut pod = get(&space, &path)?;
        ensure!(pod["kind"] == "Pod" && pod["metadata"]["name"] == "p", "{pod}");
        pod["spec"]["containers"][0]["resources"] = larger[0].resources();
        Ok(Some(replace(&space, &path, &pod)?))
    })?;
    settled(&space, &larger, 0)?;
    // The class of a pod stays, and nothing but sizes is put this way.
    let mut other = get(&space, &path)?;
    other["spec"]["containers"][0]["resources"] = size([20, 30], [35, 45]).resources();
    let refused = replace(&space, &path, &other).err().context("another class was taken")?;
    ensure!(format!("{refused:#}").contains("Pod QOS Class may not change as a result of resizing"), "{refused:#}");
    Ok(())
}

fn restarts(three: &Three) -> Result<()> {
    let space = three.space("restarts")?;
    let policies = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let policies = json!({"resizePolicy": policies});
    start(&space, &[fixed(20, 35)], &policies)?;
    for (sizes, restarts) in [([fixed(25, 35)], 0), ([fixed(25, 40)], 1)] {
        resize(&space, &sizes)?;
        settled(&space, &sizes, restarts)?;
    }
    Ok(())
}
