//! What a container finds around it is what its configuration says (config.md, config-linux.md).

use crate::bundle::Bundle;
use serde_json::{Value, json};

/// Runs a script in a container with a changed configuration; what it printed.
fn check(change: impl FnOnce(&mut Value, &str), script: &str, expected: &str) {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    let directory = bundle.path("");
    change(&mut bundle.config, &directory);
    let done = bundle.run_container();
    assert_eq!(done.stdout, expected, "{done:?}");
}

#[test]
fn the_process_is_who_and_where_it_is_told_to_be() {
    check(
        |c, _| {
            c["process"]["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 63 });
            c["process"]["cwd"] = json!("/tmp");
            c["process"]["env"] = json!(["PATH=/bin", "A=1"]);
            c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
            c["process"]["oomScoreAdj"] = json!(100);
        },
        "id; umask; pwd; env | head -n 9 | while read l; do case $l in A=*|HOME=*) echo $l;; esac; done; ulimit -n; \
         cat /proc/self/oom_score_adj",
        "uid=7 gid=8 groups=9,10\n0077\n/tmp\nHOME=/\nA=1\n77\n100\n",
    );
}

#[test]
fn capabilities_are_set_each() {
    let names = ["CAP_CHOWN", "CAP_KILL"];
    check(
        |c, _| {
            c["process"]["user"]["uid"] = json!(1000);
            c["process"]["capabilities"] = json!({
                "bounding": names, "effective": names, "permitted": names, "inheritable": names, "ambient": names,
            });
        },
        "while read a b; do case $a in Cap*) echo $a $b;; esac; done < /proc/self/status",
        "CapInh: 0000000000000021\nCapPrm: 0000000000000021\nCapEff: 0000000000000021\n\
         CapBnd: 0000000000000021\nCapAmb: 0000000000000021\n",
    );
}

#[test]
fn namespaces_names_and_parameters_are_its_own() {
    check(
        |c, _| {
            c["hostname"] = json!("inside");
            c["domainname"] = json!("example");
            c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4242" });
        },
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; echo $$; \
         head -n 3 /proc/net/dev | while read a b; do case $a in lo:*) echo lo;; esac; done",
        "inside\nexample\n1\n4242\n1\nlo\n",
    );
}

#[test]
fn parameters_of_the_machine_are_refused() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["sysctl"] = json!({ "kernel.panic": "1" });
    let done = bundle.create();
    assert!(done.code == 1 && done.stderr.contains("not in a separate kernel namespace"), "{done:?}");
}

#[test]
fn a_namespace_of_another_container_is_joined_by_its_path() {
    let first = Bundle::new(&["sleep", "1000"]);
    assert_eq!(first.create().code, 0);
    first.on("start", &[]);
    let pid = first.state()["pid"].as_i64().unwrap();
    check(
        |c, _| {
            for namespace in c["linux"]["namespaces"].as_array_mut().unwrap() {
                match namespace["type"].as_str() {
                    Some("pid") => namespace["path"] = json!(format!("/proc/{pid}/ns/pid")),
                    Some("uts") => namespace["path"] = json!(format!("/proc/{pid}/ns/uts")),
                    _ => {}
                }
            }
            c["hostname"] = json!("shared");
        },
        "head -c 5 /proc/1/cmdline",
        "sleep",
    );
    assert_eq!(first.on("exec", &["hostname"]).stdout, "shared\n");
}

#[test]
fn mounts_devices_and_masks_are_as_configured() {
    check(
        |c, directory| {
            std::fs::write(format!("{directory}/file"), "bound\n").unwrap();
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({ "destination": "/etc/file", "type": "bind", "source": "file", "options": ["bind", "ro"] }),
            );
            mounts.push(
                json!({ "destination": "/data", "type": "tmpfs", "source": "x", "options": ["size=64k", "mode=700"] }),
            );
            c["linux"]["devices"] =
                json!([{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "uid": 5 }]);
            c["linux"]["maskedPaths"] = json!(["/proc/version"]);
            c["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
            c["root"]["readonly"] = json!(true);
        },
        "cat /etc/file; echo x 2>/dev/null > /etc/file || echo protected; ls -ld /data | head -c 10; echo; \
         ls -ln /dev/mine | head -c 17; echo; cat /proc/version; touch /x 2>/dev/null || echo readonly; \
         echo 1 2>/dev/null > /proc/sys/kernel/panic || echo fixed; touch /data/y && echo writable",
        "bound\nprotected\ndrwx------\ncrw-------    1 5\nreadonly\nfixed\nwritable\n",
    );
}

#[test]
fn a_user_namespace_maps_its_root() {
    check(
        |c, directory| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
            // A root that is nobody outside has to find its way to the bundle.
            std::os::unix::fs::chown(format!("{directory}/rootfs/tmp"), Some(100_000), Some(100_000)).unwrap();
        },
        "id; while read a b; do echo $a $b; done < /proc/self/uid_map; touch /tmp/x && ls -ln /tmp/x | head -c 20; echo",
        "uid=0 gid=0\n0 100000 1000\n-rw-r--r--    1 0   \n",
    );
}

#[test]
fn seccomp_profiles_hold() {
    check(
        |c, _| {
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
            });
        },
        "mkdir /tmp/x 2>&1",
        "mkdir: can't create directory '/tmp/x': Function not implemented\n",
    );
}

#[test]
fn what_is_not_done_is_refused() {
    for (path, value) in [
        ("/process/apparmorProfile", json!("docker-default")),
        ("/process/selinuxLabel", json!("system_u")),
        ("/linux/intelRdt", json!({ "closID": "x" })),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        let (parent, name) = path.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[name] = value;
        let done = bundle.create();
        assert!(done.code == 1 && done.stderr.contains("not supported"), "{path}: {done:?}");
    }
}

#[test]
fn the_program_of_the_runtime_cannot_be_changed_from_inside() {
    let before = std::fs::read(crate::bundle::RUNTIME).unwrap();
    let bundle = Bundle::new(&["sleep", "1000"]);
    // The interpreter of this script is the runtime's own program, still.
    std::fs::write(bundle.path("rootfs/evil"), "#!/proc/self/exe\n").unwrap();
    std::process::Command::new("chmod").arg("755").arg(bundle.path("rootfs/evil")).status().unwrap();
    bundle.create();
    bundle.on("start", &[]);
    bundle.on("exec", &["/evil"]);
    bundle.on("exec", &["sh", "-c", "for exe in /proc/[0-9]*/exe; do echo pwned 2>/dev/null >> $exe; done; true"]);
    assert!(std::fs::read(crate::bundle::RUNTIME).unwrap() == before);
}
