//! What a container must not see, reach or do. Several of these try published escapes again.

use crate::lifecycle::wait_for_text;
use crate::machine::*;
use pintle_cri::*;

#[tokio::test]
async fn capabilities_are_those_of_the_default_and_less_when_dropped() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "grep -E 'Cap(Inh|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status";
    let (_, text) = machine.run(&sandbox, script).await;
    let default = "00000000a80425fb";
    let shown = |inh: &str, eff: &str, bnd: &str, nnp: u8, mode: u8| {
        format!(
            "CapInh:\t{inh}\nCapEff:\t{eff}\nCapBnd:\t{bnd}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t{nnp}\nSeccomp:\t{mode}\n"
        )
    };
    let none = "0000000000000000";
    assert_eq!(text, shown(none, default, default, 0, 0));
    let (_, text) = machine
        .run_with(&sandbox, script, |c| {
            c.security.drop_capabilities = strings(&["ALL"]);
            c.security.no_new_privs = true;
            c.security.seccomp = SeccompProfile::RuntimeDefault;
        })
        .await;
    assert_eq!(text, shown(none, none, none, 1, 2));
    let (_, text) = machine.run_with(&sandbox, script, |c| c.security.run_as_user = Some(1000)).await;
    assert_eq!(text, shown(none, none, default, 0, 0));
    machine.finish().await;
}

#[tokio::test]
async fn nothing_of_the_host_is_open_inside() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    // Descriptor 3 is the directory that ls reads, closed when it asks for the link.
    let (_, text) = machine.run(&sandbox, "exec ls -l /proc/self/fd").await;
    let open: Vec<&str> = text.lines().filter(|l| l.contains("->")).map(|l| l.split("-> ").nth(1).unwrap()).collect();
    assert_eq!(text.lines().filter(|line| line.contains(" root ")).count(), 4, "{text}");
    assert_eq!((open.len(), open[0]), (3, "/dev/null"), "{text}");
    assert!(open[1].starts_with("pipe:") && open[2].starts_with("pipe:"), "{text}");
    let id = machine.shell(&sandbox, "sleep 1000").await;
    let ls = machine.engine().exec_sync(&id, &strings(&["ls", "/proc/self/fd"]), 10).await.unwrap();
    assert_eq!(String::from_utf8(ls.stdout).unwrap(), "0\n1\n2\n3\n");
    machine.finish().await;
}

#[tokio::test]
async fn a_directory_outside_of_the_root_cannot_be_the_working_directory() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    // Seen from the host's root, a file that no container has.
    let of_the_host = machine.config.shim_binary.strip_prefix("/").unwrap().to_str().unwrap();
    for number in 3..16 {
        let directory = format!("/proc/self/fd/{number}/../../..");
        let id = machine.create(&sandbox, |c| {
            c.working_dir = directory;
            c.command = strings(&["ls", of_the_host]);
        });
        let id = id.await.unwrap();
        if machine.engine().start_container(&id).await.is_ok() {
            assert_ne!(machine.ended(&id).await.exit_code, 0, "descriptor {number} leads to the host");
        }
    }
    machine.finish().await;
}

#[tokio::test]
async fn a_container_cannot_reach_the_program_that_starts_it() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let shim = std::fs::read(&machine.config.shim_binary).unwrap();
    // The interpreter of the script is the process that executes it: the shim's own program, still.
    let script =
        "printf '#!/proc/self/exe\\n' > /evil; chmod +x /evil 2>/dev/null || busybox chmod +x /evil; sleep 1000";
    let id = machine.shell(&sandbox, script).await;
    let file = "until busybox test -x /evil; do :; done";
    machine.engine().exec_sync(&id, &strings(&["sh", "-c", file]), 10).await.unwrap();
    let _ = machine.engine().exec_sync(&id, &strings(&["/evil"]), 10).await;
    let write = "for exe in /proc/[0-9]*/exe; do echo pwned 2>/dev/null >> $exe; done; true";
    machine.engine().exec_sync(&id, &strings(&["sh", "-c", write]), 10).await.unwrap();
    assert_eq!(std::fs::read(&machine.config.shim_binary).unwrap(), shim);
    // And it starts containers as before.
    assert_eq!(machine.run(&sandbox, "echo ok").await.1, "ok\n");
    machine.finish().await;
}

#[tokio::test]
async fn masked_paths_are_empty_and_protected_ones_cannot_be_written() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "exec 2>&1; cat /proc/keys /proc/version; ls /sys/firmware /proc/fs; echo masked; \
                  echo 1 > /proc/sys/kernel/panic; echo 1 > /sys/kernel/mm/x; echo 1 > /proc/uptime";
    let (_, text) = machine
        .run_with(&sandbox, script, |c| {
            c.security.masked_paths =
                strings(&["/proc/keys", "/proc/version", "/proc/fs", "/sys/firmware", "/proc/absent"]);
            c.security.readonly_paths = strings(&["/proc/sys", "/proc/uptime", "/proc/absent"]);
        })
        .await;
    let empty = |l: &&str| l.is_empty() || l.ends_with(':') || l.contains("/proc/keys");
    let lines: Vec<&str> = text.lines().filter(|l| !empty(l)).collect();
    assert_eq!(lines[0], "masked", "{text}");
    assert!(lines[1].contains("/proc/sys/kernel/panic: Read-only file system"), "{text}");
    assert!(lines[2].contains("/sys/kernel/mm/x: ") && lines[3].contains("Read-only file system"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn an_image_cannot_choose_where_proc_and_dev_are_mounted() {
    let machine = Machine::new().await;
    let layer = machine.root.path().join("layer");
    std::os::unix::fs::symlink("/tmp", layer.join("proc")).unwrap();
    let sandbox = machine.sandbox().await;
    let id = machine.create(&sandbox, |c| c.command = strings(&["true"])).await.unwrap();
    let error = machine.engine().start_container(&id).await.unwrap_err().to_string();
    assert!(error.contains("/proc") || error.contains("proc:"), "{error}");
    machine.finish().await;
}

#[tokio::test]
async fn devices_beside_the_usual_ones_are_refused() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "echo x > /dev/null && head -c 4 /dev/zero > /tmp/z; mknod /tmp/disk b 254 0; head -c 1 /tmp/disk; \
                  mknod /tmp/mem c 1 1; head -c 1 /tmp/mem; ls /dev";
    let (_, text) = machine.run(&sandbox, script).await;
    assert_eq!(text.matches("Operation not permitted").count(), 2, "{text}");
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "stdin"] {
        assert!(text.lines().any(|line| line == name), "{name} in {text}");
    }
    assert!(!text.contains("vda"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn a_privileged_container_has_it_all() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox_with(|c| c.privileged = true).await;
    let script = "mount -t tmpfs none /tmp && echo mounted; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written";
    let (_, text) = machine.run_with(&sandbox, script, |c| c.security.privileged = true).await;
    assert_eq!(text, "mounted\nwritten\n");
    let (_, text) = machine.run(&sandbox, script).await;
    assert!(!text.contains("mounted"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn seccomp_profiles_hold_and_a_missing_one_is_an_error() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;
    std::fs::create_dir(&machine.config.seccomp_dir).unwrap();
    std::fs::write(machine.config.seccomp_dir.join("nodirs.json"), profile).unwrap();
    let (_, text) = machine
        .run_with(&sandbox, "exec 2>&1; mkdir /tmp/x; echo on", |c| {
            c.security.seccomp = SeccompProfile::Localhost("nodirs.json".into());
        })
        .await;
    assert!(text.contains("Operation not permitted") && text.ends_with("on\n"), "{text}");
    let (_, text) = machine
        .run_with(&sandbox, "exec 2>&1; busybox unshare -m true; echo on", |c| {
            c.security.seccomp = SeccompProfile::RuntimeDefault;
            c.security.add_capabilities = strings(&["SYS_PTRACE"]);
        })
        .await;
    assert!(text.contains("Operation not permitted") && text.ends_with("on\n"), "{text}");
    for name in ["", "absent.json"] {
        let made = machine.create(&sandbox, |c| c.security.seccomp = SeccompProfile::Localhost(name.into())).await;
        assert!(made.is_err(), "{name:?}");
    }
    machine.finish().await;
}

/// CVE-2020-15257: sockets with abstract names are open to every process in the network namespace.
#[tokio::test]
async fn nothing_listens_under_an_abstract_name() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox_with(|c| c.namespaces.network = NamespaceMode::Node).await;
    let id = machine.shell(&sandbox, "sleep 1000").await;
    let seen = machine.engine().exec_sync(&id, &strings(&["cat", "/proc/net/unix"]), 10).await.unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.contains("shim.sock"), "the shim's own socket has a file: {seen}");
    let shims = machine.shims();
    assert!(!shims.is_empty());
    // The last two words of a line: the inode and, for a socket with a name, the name.
    let words = seen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inodes: Vec<&str> = words.filter(|w| w.len() == 8 && w[7].starts_with('@')).map(|w| w[6]).collect();
    for pid in shims.into_iter().chain([std::process::id().cast_signed()]) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            assert!(!inodes.iter().any(|inode| target == format!("socket:[{inode}]")), "{target} of {pid}");
        }
    }
    machine.finish().await;
}

#[tokio::test]
async fn namespaces_are_shared_as_asked() {
    let machine = Machine::new().await;
    let own = machine.sandbox().await;
    assert_eq!(machine.run(&own, "echo $$").await.1, "1\n");
    let shared = machine.sandbox_with(|c| c.namespaces.pid = NamespaceMode::Pod).await;
    let pod = |c: &mut ContainerConfig| c.security.namespaces.pid = NamespaceMode::Pod;
    let sleeper = machine.shell_with(&shared, "echo up; exec sleep 1234", pod).await;
    wait_for_text(&machine.engine().container_status(&sleeper).await.unwrap().log_path, "up").await;
    let look = "cat /proc/1/comm /proc/1/cmdline; echo; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -cx '123[4]'
        ls /proc/1/root; readlink /proc/1/exe";
    let (_, text) = machine.run_with(&shared, look, pod).await;
    assert!(text.starts_with("pause\n/pause\0\n1\n"), "{text}");
    assert!(text.contains("/proc/1/root: Permission denied") || text.contains("can't open '/proc/1/root'"), "{text}");
    // A container that joins another one sees its processes.
    let id = machine.shell(&own, "exec sleep 4321").await;
    let (_, text) = machine
        .run_with(&own, "cat /proc/1/cmdline", |c| c.security.namespaces.pid = NamespaceMode::Target(id.clone()))
        .await;
    assert!(text.contains("4321"), "{text}");
    // What a container leaves running in a shared namespace ends with it.
    let (_, _) = machine.run_with(&shared, "sleep 7777 & true", pod).await;
    let (_, text) = machine.run_with(&shared, "cat /proc/[0-9]*/cmdline", pod).await;
    assert!(!text.contains("7777"), "{text}");
    machine.finish().await;
}

#[tokio::test]
async fn sysctls_of_the_pod_are_set_and_those_of_the_machine_refused() {
    let machine = Machine::new().await;
    let sysctls = label("net.ipv4.ip_local_port_range", "20000 20010");
    let sandbox = machine.sandbox_with(|c| c.sysctls = sysctls).await;
    let (_, text) = machine.run(&sandbox, "cat /proc/sys/net/ipv4/ip_local_port_range").await;
    assert_eq!(text, "20000\t20010\n");
    let config = PodSandboxConfig { sysctls: label("kernel.panic", "1"), ..Default::default() };
    let error = machine.engine().run_pod_sandbox(config, "").await.unwrap_err().to_string();
    assert!(error.contains("kernel.panic"), "{error}");
    machine.finish().await;
}
