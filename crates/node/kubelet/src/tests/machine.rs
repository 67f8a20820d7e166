//! What the kubelet does to the machine itself: mounts of volumes, cgroups of pods. Needs root.

use crate::cgroups::{Cgroups, Managed};
use crate::fake::pods::named;
use crate::node::machine::{Machine, disk};
use crate::volumes::{Mounter, SystemMounter, tear_down};
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
    let cgroups = Managed::new(&root).unwrap();
    let machine = pintle_linux::cgroup::Cgroups::detect().unwrap();
    let resources = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
    let pod = named("p", "u1", json!({"containers": [{"name": "a", "resources": resources}]}));
    let best_effort = named("q", "u2", json!({"containers": [{"name": "a"}]}));
    let paths = [cgroups.ensure(&pod).unwrap(), cgroups.ensure(&best_effort).unwrap()];
    assert_eq!(paths, [format!("{root}/kubepods/podu1"), format!("{root}/kubepods/besteffort/podu2")]);
    assert_eq!(cgroups.ensure(&pod).unwrap(), paths[0], "a second time changes nothing");
    assert!(paths.iter().all(|p| machine.exists(p)));
    cgroups.remove("u1").unwrap();
    cgroups.remove("u2").unwrap();
    cgroups.remove("u3").unwrap();
    assert!(!paths.iter().any(|p| machine.exists(p)));
    machine.remove(&root).unwrap();
}

#[test]
fn the_machine_is_read() {
    let machine = Machine::read();
    assert!(machine.processors > 0 && machine.memory_bytes > 1 << 20);
    assert!(!machine.kernel_version.is_empty() && !machine.boot_id.is_empty());
}
