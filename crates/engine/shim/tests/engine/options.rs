//! What may be asked beyond the words of CRI: an init, a profile, user namespaces, no shared memory.

use crate::machine::*;
use pintle_cri::*;
use pintle_runtime::SnapshotMounts;
use pintle_runtime::options::{ContainerOptions, IdMappings, IdRange, SandboxOptions};
use std::path::Path;

/// Runs a script as `run` does, with options.
async fn run(machine: &Machine, sandbox: &str, script: &str, options: ContainerOptions) -> (i32, String) {
    let config = ContainerConfig {
        command: strings(&["sh", "-c", script]),
        image: "test".to_owned(),
        log_path: "options.log".to_owned(),
        ..ContainerConfig::default()
    };
    let _ = std::fs::remove_file(machine.logs().join("options.log"));
    let id = machine.engine().create_container_with(sandbox, config, options).await.expect("create a container");
    machine.engine().start_container(&id).await.expect("start a container");
    let status = machine.ended(&id).await;
    machine.engine().remove_container(&id).await.unwrap();
    (status.exit_code, text_of(&status.log_path))
}

async fn sandbox_with(machine: &Machine, options: SandboxOptions) -> CriResult<String> {
    let config = PodSandboxConfig {
        hostname: "inside".to_owned(),
        log_directory: machine.logs().to_string_lossy().into_owned(),
        ..PodSandboxConfig::default()
    };
    machine.engine().make_sandbox_with(config, options).await
}

/// The init of this build is linked dynamically, unlike the one that pintle brings with it: the image gets its
/// libraries.
fn add_libraries(machine: &Machine) {
    let listed = std::process::Command::new("ldd").arg(&machine.config.init_binary).output().expect("run ldd");
    let listed = String::from_utf8(listed.stdout).unwrap();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = machine.root.path().join("layer").join(&library[1..]);
        std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
        std::fs::copy(library, inside).unwrap();
    }
}

#[tokio::test]
async fn an_init_runs_the_program_reaps_and_gives_its_exit_code() {
    let machine = Machine::new().await;
    add_libraries(&machine);
    let sandbox = machine.sandbox().await;
    let init = || ContainerOptions { init: true, ..ContainerOptions::default() };
    let script = "cat /proc/1/cmdline | busybox tr '\\0' ' '; echo; echo $$; exit 7";
    let (code, text) = run(&machine, &sandbox, script, init()).await;
    assert_eq!(code, 7);
    assert!(text.starts_with("/sbin/docker-init -- sh -c cat /proc/1/cmdline"), "{text}");
    assert!(!text.ends_with("\n1\n"), "the program is not process 1: {text}");
    // An orphan of the program becomes the init's, and is reaped.
    let script =
        "sh -c 'true & exec true'; n=0; while grep -qs '^State:.Z' /proc/[0-9]*/status; do :; done; echo clean";
    assert_eq!(run(&machine, &sandbox, script, init()).await, (0, "clean\n".to_owned()));
    // A program that is not there, in tini's words.
    let config = ContainerConfig {
        command: strings(&["nope"]),
        image: "test".to_owned(),
        log_path: "nope.log".to_owned(),
        ..ContainerConfig::default()
    };
    let id = machine.engine().create_container_with(&sandbox, config, init()).await.unwrap();
    machine.engine().start_container(&id).await.unwrap();
    let status = machine.ended(&id).await;
    assert_eq!(status.exit_code, 127);
    assert!(text_of(&status.log_path).contains("exec nope failed: No such file or directory"));
    machine.finish().await;
}

#[tokio::test]
async fn an_init_passes_signals_on() {
    let machine = Machine::new().await;
    add_libraries(&machine);
    let sandbox = machine.sandbox().await;
    let config = ContainerConfig {
        command: strings(&["sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 1000 & wait; done"]),
        image: "test".to_owned(),
        log_path: "signals.log".to_owned(),
        ..ContainerConfig::default()
    };
    let options = ContainerOptions { init: true, ..ContainerOptions::default() };
    let id = machine.engine().create_container_with(&sandbox, config, options).await.unwrap();
    machine.engine().start_container(&id).await.unwrap();
    let log = machine.engine().container_status(&id).await.unwrap().log_path;
    crate::lifecycle::wait_for_text(&log, "up").await;
    machine.engine().signal_container(&id, libc::SIGUSR1).await.unwrap();
    assert_eq!(machine.ended(&id).await.exit_code, 9);
    machine.finish().await;
}

#[tokio::test]
async fn a_profile_in_text_holds_and_an_empty_one_is_an_error() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let profile = |text: &str| ContainerOptions { seccomp: Some(text.to_owned()), ..ContainerOptions::default() };
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"name": "mkdir", "action": "SCMP_ACT_ERRNO"}, {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let (_, output) = run(&machine, &sandbox, "exec 2>&1; mkdir /tmp/x; echo on", profile(text)).await;
    assert!(output.contains("Operation not permitted") && output.ends_with("on\n"), "{output}");
    for bad in ["", "{}", r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_KILL"}]}"#] {
        let config = ContainerConfig { command: strings(&["true"]), image: "test".to_owned(), ..Default::default() };
        let error = machine.engine().create_container_with(&sandbox, config, profile(bad)).await.unwrap_err();
        assert!(error.to_string().contains("seccomp profile"), "{error}");
    }
    machine.finish().await;
}

#[tokio::test]
async fn a_sandbox_without_shared_memory_has_none() {
    let machine = Machine::new().await;
    let none = SandboxOptions { no_shm: true, ..SandboxOptions::default() };
    let sandbox = sandbox_with(&machine, none).await.unwrap();
    let (_, text) = run(&machine, &sandbox, "ls -d /dev/shm 2>&1", ContainerOptions::default()).await;
    assert!(text.contains("No such file"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn the_cgroup_of_a_container_goes_when_it_ends() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "true").await;
    machine.ended(&id).await;
    let cgroup = machine.engine().view(&id).unwrap().cgroup;
    let cgroups = pintle_linux::cgroup::Cgroups::detect().unwrap();
    let gone = async {
        while cgroups.exists(&cgroup) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the cgroup goes");
    machine.finish().await;
}

fn mapped() -> SandboxOptions {
    let range = vec![IdRange { inside: 0, outside: 200_000, size: 65_536 }];
    let id_mappings = IdMappings { users: range.clone(), groups: range };
    SandboxOptions { id_mappings, ..SandboxOptions::default() }
}

#[tokio::test]
async fn root_of_a_user_namespace_is_nobody_outside_and_owns_its_files() {
    let machine = Machine::new().await;
    let sandbox = sandbox_with(&machine, mapped()).await.expect("a user namespace");
    let volume = machine.root.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    let config = ContainerConfig {
        command: strings(&[
            "sh",
            "-c",
            "id -u; ls -ln /bin/busybox; echo x > /new; echo y > /data/new; echo z > /dev/shm/z; \
            hostname other && hostname; cat /proc/self/uid_map; echo up; exec sleep 1000",
        ]),
        image: "test".to_owned(),
        log_path: "mapped.log".to_owned(),
        mounts: vec![Mount {
            host_path: volume.to_string_lossy().into_owned(),
            container_path: "/data".to_owned(),
            ..Mount::default()
        }],
        security: ContainerSecurityContext {
            add_capabilities: strings(&["SYS_ADMIN"]),
            ..ContainerSecurityContext::default()
        },
        ..ContainerConfig::default()
    };
    let id = machine.engine().create_container_with(&sandbox, config, ContainerOptions::default()).await.unwrap();
    machine.engine().start_container(&id).await.expect("start a container");
    let log = machine.engine().container_status(&id).await.unwrap().log_path;
    crate::lifecycle::wait_for_text(&log, "up").await;
    let text = text_of(&log);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0", "{text}");
    assert!(lines[1].split_whitespace().nth(2) == Some("0"), "the image's files are root's: {text}");
    assert!(text.contains("other\n") && text.contains("200000"), "{text}");
    // Outside it is an id that nobody has, and what it wrote is root's on the disk.
    let pid = machine.engine().view(&id).unwrap().pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t200000\t200000"), "{status}");
    let written = std::fs::metadata(volume.join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&written), 0);
    // A further process is the same nobody, and what hides the host stays where it is, even for its SYS_ADMIN.
    let exec = |script: &'static str| async {
        let done = machine.engine().exec_sync(&id, &strings(&["sh", "-c", script]), 10).await.unwrap();
        String::from_utf8([done.stdout, done.stderr].concat()).unwrap()
    };
    assert_eq!(exec("id -u; cat /new").await, "0\nx\n");
    assert!(exec("umount /proc").await.contains("umount"), "what is mounted is locked");
    assert!(exec("echo 1 > /proc/sys/kernel/panic").await.contains("denied"));
    machine.finish().await;
}

#[tokio::test]
async fn mappings_that_reach_the_machines_root_are_refused() {
    let machine = Machine::new().await;
    let mut options = mapped();
    options.id_mappings.users[0].outside = 0;
    let error = sandbox_with(&machine, options).await.unwrap_err().to_string();
    assert!(error.contains("maps id 0 of the machine"), "{error}");
    assert_eq!(machine.leftovers(), Vec::<String>::new());
    machine.finish().await;
}

/// The options of the mount that is the container's root.
const ROOT_OPTIONS: &str = "busybox awk '$5 == \"/\" { print $NF }' /proc/self/mountinfo";

#[tokio::test]
async fn only_a_layer_that_goes_with_its_container_never_waits_for_the_disk() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let (_, of_pod) = machine.run(&sandbox, ROOT_OPTIONS).await;
    assert!(of_pod.contains("volatile") && of_pod.contains("upperdir="), "{of_pod}");
    let kept = |volatile| ContainerOptions {
        snapshot: Some(layer_at(&machine, machine.root.path())),
        volatile,
        ..Default::default()
    };
    let (_, of_caller) = run(&machine, &sandbox, ROOT_OPTIONS, kept(false)).await;
    assert!(!of_caller.contains("volatile") && of_caller.contains("upperdir="), "{of_caller}");
    let (_, thrown_away) = run(&machine, &sandbox, ROOT_OPTIONS, kept(true)).await;
    assert!(thrown_away.contains("volatile"), "{thrown_away}");
    machine.finish().await;
}

/// A caller's layer over the image's, below a directory.
fn layer_at(machine: &Machine, directory: &Path) -> SnapshotMounts {
    let (upper, work) = (directory.join("kept/upper"), directory.join("kept/work"));
    // The mark of an overlay that did not wait for the disk.
    let _ = std::fs::remove_dir_all(directory.join("kept"));
    std::fs::create_dir_all(&upper).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    SnapshotMounts { lower_dirs: vec![machine.root.path().join("layer")], upper, work }
}

fn command(program: &str, arguments: &[&Path]) {
    let output = std::process::Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The disk is a file: what is in it at a moment is what a power cut at that moment leaves.
#[tokio::test]
async fn what_a_kept_layer_synced_survives_a_power_cut() {
    let machine = Machine::new().await;
    let at = |name: &str| machine.root.path().join(name);
    let (disk, after_cut, mounted) = (at("disk"), at("disk-after-cut"), at("mounted"));
    std::fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&mounted).unwrap();
    command("mkfs.ext4", &["-q".as_ref(), &disk]);
    command("mount", &["-oloop".as_ref(), &disk, &mounted]);
    let sandbox = machine.sandbox().await;
    let options = ContainerOptions { snapshot: Some(layer_at(&machine, &mounted)), ..Default::default() };
    let config = ContainerConfig {
        command: strings(&["sleep", "1000"]),
        image: "test".to_owned(),
        ..ContainerConfig::default()
    };
    let id = machine.engine().create_container_with(&sandbox, config, options).await.expect("create a container");
    machine.engine().start_container(&id).await.expect("start a container");
    let write = "echo precious > /file && busybox sync /file";
    let done = machine.engine().exec_sync(&id, &strings(&["sh", "-c", write]), 10).await.unwrap();
    assert_eq!(done.exit_code, 0, "{done:?}");
    std::fs::copy(&disk, &after_cut).unwrap();
    machine.engine().remove_container(&id).await.unwrap();
    machine.engine().remove_pod_sandbox(&sandbox).await.unwrap();
    command("umount", &[&mounted]);
    command("mount", &["-oloop".as_ref(), &after_cut, &mounted]);
    let found = std::fs::read_to_string(mounted.join("kept/upper/file"));
    command("umount", &[&mounted]);
    assert_eq!(found.unwrap(), "precious\n");
    machine.finish().await;
}
