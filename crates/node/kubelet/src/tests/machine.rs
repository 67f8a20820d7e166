//! What the kubelet does to the machine itself: mounts of volumes, cgroups of pods. Needs root.

use crate::cgroups::{Cgroups, Managed};
use crate::fake::pods::named;
use crate::node::machine::{Machine, disk};
use crate::volumes::{Mounter, SystemMounter, tear_down};
use pintle_linux::cgroup;
use serde_json::json;

fn assert_root() {
    assert!(rustix::process::geteuid().is_root(), "this test mounts or makes cgroups: run it as root");
}

#[test]
fn memory_volumes_are_mounted_once_and_torn_down() {
    assert_root();
    let dir = crate::fake::temporary_directory();
    let volumes = dir.path().join("volumes");
    let volume = volumes.join("kubernetes.io~empty-dir/v");
    std::fs::create_dir_all(&volume).unwrap();
    SystemMounter.tmpfs(&volume, Some(1 << 20)).unwrap();
    std::fs::write(volume.join("f"), vec![0; 1 << 10]).unwrap();
    assert_eq!(disk(&volume).unwrap().0, 1 << 20);
    SystemMounter.tmpfs(&volume, Some(1 << 20)).unwrap();
    assert!(volume.join("f").exists(), "a second set-up leaves what is there");
    tear_down(&SystemMounter, &volumes).unwrap();
    assert!(!volumes.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*volume.to_string_lossy()));
}

#[test]
fn pods_have_cgroups_by_class_that_go_with_them() {
    assert_root();
    let root = format!("/pintle-kubelet-test-{}", std::process::id());
    let node = Machine { processors: 4, memory_bytes: 64 << 20, ..Machine::default() };
    let cgroups = Managed::new(&root, &node).unwrap();
    let machine = pintle_linux::cgroup::Cgroups::detect().unwrap();
    let resources = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
    let pod = named("p", "u1", json!({"containers": [{"name": "a", "resources": resources}]}));
    let best_effort = named("q", "u2", json!({"containers": [{"name": "a"}]}));
    let paths = [cgroups.ensure(&pod, false).unwrap(), cgroups.ensure(&best_effort, false).unwrap()];
    assert_eq!(paths, [format!("{root}/kubepods/podu1"), format!("{root}/kubepods/besteffort/podu2")]);
    assert_eq!(cgroups.ensure(&pod, false).unwrap(), paths[0], "a second time changes nothing");
    assert!(paths.iter().all(|p| machine.exists(p)));
    // The whole weighs what the node has, a class what its pods ask for, or next to nothing.
    let asks = json!({"requests": {"cpu": "2"}});
    let burstable = named("r", "u4", json!({"containers": [{"name": "a", "resources": asks}]}));
    let weights =
        || ["", "/burstable", "/besteffort"].map(|class| weight(&machine, &format!("{root}/kubepods{class}")));
    assert_eq!(weights(), [4096, 2, 2].map(as_told));
    cgroups.ensure(&burstable, false).unwrap();
    assert_eq!(weights(), [4096, 2048, 2].map(as_told));
    cgroups.remove("u4").unwrap();
    assert_eq!(weights(), [4096, 2, 2].map(as_told));
    cgroups.remove("u1").unwrap();
    cgroups.remove("u2").unwrap();
    cgroups.remove("u3").unwrap();
    assert!(!paths.iter().any(|p| machine.exists(p)));
    machine.remove(&root).unwrap();
}

/// What the kernel says of a cgroup's weight.
fn weight(machine: &cgroup::Cgroups, path: &str) -> String {
    let file = if is_v2(machine) { "cpu.weight" } else { "cpu.shares" };
    let hierarchy = machine.hierarchies().iter().find(|h| h.v2 || h.has("cpu")).expect("a hierarchy for processors");
    let text = std::fs::read_to_string(hierarchy.mount.join(path.trim_start_matches('/')).join(file)).unwrap();
    text.trim().to_owned()
}

/// Shares as the kernel tells them: version 2 has weights in their place.
fn as_told(shares: u64) -> String {
    let machine = cgroup::Cgroups::detect().unwrap();
    let told = if is_v2(&machine) { cgroup::weight_from_shares(shares) } else { shares };
    told.to_string()
}

fn is_v2(machine: &cgroup::Cgroups) -> bool {
    machine.version() == cgroup::Version::V2
}

#[test]
fn the_machine_is_read() {
    let machine = Machine::read();
    assert!(machine.processors > 0 && machine.memory_bytes > 1 << 20);
    assert!(!machine.kernel_version.is_empty() && !machine.boot_id.is_empty());
}
