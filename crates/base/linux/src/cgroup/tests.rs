//! Tests of layouts and of the files that limits become; cgroups of the machine are tried where it has them.

use super::*;

const HYBRID: &str = "\
30 22 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory
";

#[test]
fn a_hierarchy_per_controller_with_cgroup2_beside_it_is_hybrid() {
    let cgroups = Cgroups::from_mountinfo(HYBRID).unwrap();
    assert_eq!(cgroups.version(), Version::Hybrid);
    let dirs = cgroups.directories("/pod/c1").unwrap();
    let expected = ["/sys/fs/cgroup/cpu,cpuacct/pod/c1", "/sys/fs/cgroup/memory/pod/c1"];
    assert_eq!(dirs, expected.map(PathBuf::from));
}

#[test]
fn one_cgroup2_mount_is_version_2_and_none_is_an_error() {
    let v2 = "30 22 0:26 / /nowhere/cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(Cgroups::from_mountinfo(v2).unwrap().version(), Version::V2);
    assert!(Cgroups::from_mountinfo("22 1 0:20 / / rw - ext4 /dev/vda rw\n").is_err());
}

#[test]
fn paths_that_climb_or_name_the_root_are_refused() {
    let cgroups = Cgroups::from_mountinfo(HYBRID).unwrap();
    for path in ["", "/", "/a/../b", "..", "/a//b", "/a/./b"] {
        assert!(cgroups.directories(path).is_err(), "{path}");
    }
}

fn limits() -> Limits {
    Limits {
        cpu_shares: 1024,
        cpu_quota_us: 50_000,
        cpu_period_us: 100_000,
        memory_bytes: 1 << 20,
        memory_swap_bytes: 1 << 20,
        pids: 10,
        ..Limits::default()
    }
}

fn written(controllers: &[&str], v2: bool) -> String {
    written_of(&limits(), controllers, v2)
}

fn written_of(limits: &Limits, controllers: &[&str], v2: bool) -> String {
    let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
    let hierarchy = Hierarchy { mount: PathBuf::from("/x"), controllers, v2 };
    let files = limits.files(&hierarchy);
    files.iter().map(|w| format!("{}={}", w.file, w.value)).collect::<Vec<_>>().join(" ")
}

#[test]
fn limits_become_the_files_of_each_version() {
    assert_eq!(written(&["cpu"], false), "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000");
    assert_eq!(
        written(&["memory"], false),
        "memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=1048576 memory.limit_in_bytes=1048576"
    );
    assert_eq!(
        written(&[], true),
        "cpu.weight=100 cpu.max=50000 100000 memory.swap.max=0 memory.max=1048576 pids.max=10"
    );
}

#[test]
fn huge_pages_are_limited_when_they_are_used_and_when_they_are_reserved() {
    let limits = Limits { hugepages: vec![("2MB".into(), 4 << 20), ("1GB".into(), 0)], ..Limits::default() };
    assert_eq!(
        written_of(&limits, &["hugetlb"], false),
        "hugetlb.2MB.limit_in_bytes=4194304 hugetlb.2MB.rsvd.limit_in_bytes=4194304 \
         hugetlb.1GB.limit_in_bytes=0 hugetlb.1GB.rsvd.limit_in_bytes=0"
    );
    assert_eq!(
        written_of(&limits, &["hugetlb"], true),
        "hugetlb.2MB.max=4194304 hugetlb.2MB.rsvd.max=4194304 hugetlb.1GB.max=0 hugetlb.1GB.rsvd.max=0"
    );
    assert_eq!(written_of(&limits, &["memory"], false), "");
}

#[test]
fn shares_map_to_weights_with_the_ends_and_the_default_in_place() {
    let pairs = [(2, 1), (1024, 100), (262_144, 10_000)];
    for (shares, weight) in pairs {
        assert_eq!(weight_from_shares(shares), weight, "{shares}");
    }
}

#[test]
fn a_cgroup_of_this_machine_takes_limits_a_process_and_goes_away() {
    let cgroups = Cgroups::detect().expect("needs cgroups mounted");
    let path = format!("/pintle-linux-test-{}/inner", std::process::id());
    let parent = path.trim_end_matches("/inner");
    cgroups.create(&path, &limits()).expect("needs root");
    let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    cgroups.attach(&path, child.id() as i32).unwrap();
    assert_eq!(cgroups.processes(parent).unwrap(), [child.id() as i32]);
    let stats = cgroups.stats(&path).unwrap();
    assert_eq!((stats.pids, stats.memory_limit_bytes), (1, 1 << 20));
    // What is frozen is killed, too, and so is who joins it then.
    cgroups.freeze(&path, true).unwrap();
    let late = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    cgroups.attach(&path, late.id() as i32).unwrap();
    assert!(cgroups.is_frozen(&path));
    cgroups.kill_all(parent, Duration::from_secs(10)).unwrap();
    for mut child in [child, late] {
        assert!(!child.wait().unwrap().success());
    }
    cgroups.remove(parent).unwrap();
    assert!(!cgroups.exists(parent));
}

/// What somebody who makes the same cgroups at the same time has made but not filled yet is filled, from the top.
#[test]
fn cpusets_of_cgroups_that_are_being_made_are_filled() {
    let temp = tempfile::tempdir().unwrap();
    let hierarchy = Hierarchy { mount: temp.path().to_owned(), controllers: vec!["cpuset".into()], v2: false };
    let inner = temp.path().join("own/docker");
    std::fs::create_dir_all(&inner).unwrap();
    for (dir, cpus, mems) in [("", "0-3\n", "0\n"), ("own", "\n", "\n"), ("own/docker", "\n", "\n")] {
        std::fs::write(temp.path().join(dir).join("cpuset.cpus"), cpus).unwrap();
        std::fs::write(temp.path().join(dir).join("cpuset.mems"), mems).unwrap();
    }
    hierarchy.create("own/docker").unwrap();
    assert_eq!(std::fs::read_to_string(inner.join("cpuset.cpus")).unwrap(), "0-3");
    assert_eq!(std::fs::read_to_string(inner.join("cpuset.mems")).unwrap(), "0");
}

/// Neighbours are not asked for each cgroup that is made beside them.
#[test]
fn cgroups_below_a_cpuset_of_ours_are_filled_by_the_kernel() {
    let machine = Cgroups::detect().expect("needs cgroups mounted");
    let Some(cpuset) = machine.hierarchies().iter().find(|h| h.has("cpuset") && !h.v2) else { return };
    let path = format!("/pintle-linux-cpuset-{}", std::process::id());
    machine.create(&format!("{path}/one"), &Limits::default()).expect("needs root");
    let own = cpuset.mount.join(path.trim_start_matches('/'));
    std::fs::create_dir(own.join("two")).unwrap();
    let of = |name: &str| std::fs::read_to_string(own.join(name).join("cpuset.cpus")).unwrap();
    let (one, two, all) = (of("one"), of("two"), of(""));
    machine.remove(&path).unwrap();
    assert!(!all.trim().is_empty() && one == all && two == all, "{all:?} {one:?} {two:?}");
}

#[test]
fn a_cgroup_goes_from_the_hierarchies_of_other_runtimes_too() {
    let machine = tempfile::tempdir().unwrap();
    let mount = |name: &str| machine.path().join(name);
    let line = |name: &str, of: &str| format!("1 0 0:1 / {} rw - {of}", mount(name).display());
    let lines = [
        line("systemd", "cgroup cgroup rw,xattr,name=systemd"),
        line("memory", "cgroup cgroup rw,memory"),
        line("unified", "cgroup2 cgroup2 rw"),
    ];
    let cgroups = Cgroups::from_mountinfo(&lines.join("\n")).unwrap();
    for name in ["systemd", "memory", "unified"] {
        fs::create_dir_all(mount(name).join("pods/one/container")).unwrap();
    }
    cgroups.remove("/pods/one").unwrap();
    for name in ["systemd", "memory", "unified"] {
        assert_eq!(fs::read_dir(mount(name).join("pods")).unwrap().count(), 0, "{name}");
    }
    assert_eq!(cgroups.hierarchies().len(), 1);
}
