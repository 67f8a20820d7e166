//! What flags of `docker run` do, asked inside the container or by what is told of it.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, until};

/// Flags, what is asked inside, a format for `docker inspect`, and what both answer.
type Effect = (&'static str, &'static str, &'static str, &'static str);

/// `$device` is a disk of the machine, `$folder` a folder with files.
const EFFECTS: &[Effect] = &[
    (
        "--cpuset-cpus 0 --cpuset-mems 0",
        "busybox awk '/s_allowed_list/ { print $1 $2 }' /proc/self/status",
        "{{.HostConfig.CpusetCpus}} {{.HostConfig.CpusetMems}}",
        "Cpus_allowed_list:0\nMems_allowed_list:0\n0 0",
    ),
    (
        "--ulimit nofile=64:128 --ulimit stack=65536",
        "ulimit -Sn; ulimit -Hn; ulimit -s",
        "{{range .HostConfig.Ulimits}}{{.Name}}={{.Soft}}:{{.Hard}};{{end}}",
        "64\n128\n64\nnofile=64:128;stack=65536:65536;",
    ),
    (
        "--sysctl net.ipv4.ip_forward=0 --sysctl kernel.shmmax=123456789 --sysctl net.core.somaxconn=77",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/net/core/somaxconn",
        "{{len .HostConfig.Sysctls}}",
        "0\n123456789\n77\n3",
    ),
    ("--group-add 7 --group-add nogroup", "id -G", "{{.HostConfig.GroupAdd}}", "0 7 65534\n[7 nogroup]"),
    (
        "--mac-address 02:42:0a:00:00:78",
        "cat /sys/class/net/eth0/address",
        "{{.HostConfig.NetworkMode}}",
        "02:42:0a:00:00:78\nbridge",
    ),
    ("--oom-score-adj 250", "cat /proc/self/oom_score_adj", "{{.HostConfig.OomScoreAdj}}", "250\n250"),
    ("--pids-limit 17", "cat $(limit pids max pids.max)", "{{.HostConfig.PidsLimit}}", "17\n17"),
    ("--pids-limit -1", "cat $(limit pids max pids.max)", "{{.HostConfig.PidsLimit}}", "max\n<nil>"),
    (
        "--memory 64m --memory-reservation 32m",
        "cat $(limit memory limit_in_bytes memory.max) $(limit memory soft_limit_in_bytes memory.low)",
        "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}",
        "67108864\n33554432\n67108864 134217728",
    ),
    ("--cpus 0.5", "quota", "{{.HostConfig.NanoCpus}}", "50000 100000\n500000000"),
    (
        "--cpu-period 50000 --cpu-quota 20000",
        "quota",
        "{{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}}",
        "20000 50000\n50000 20000",
    ),
    ("--uts host", "test \"$(hostname)\" = \"$machine\" && echo same", "{{.HostConfig.UTSMode}}", "same\nhost"),
    ("--hostname own", "hostname; test \"$(hostname)\" != \"$machine\"", "{{.Config.Hostname}}", "own\nown"),
    (
        "--env-file $folder/env --env LAST=given --env FROM_CLIENT --env UNSET_ANYWHERE",
        "echo \"$FIRST,$LAST,$FROM_CLIENT,${UNSET_ANYWHERE-unset},$WITH_SPACES\"",
        "{{index .Config.Env 0}}",
        "one,given,client,unset,a  b#c\nFIRST=one",
    ),
    (
        "--label-file $folder/labels --label last=given",
        "true",
        "{{.Config.Labels.first}},{{.Config.Labels.last}},{{len .Config.Labels}}",
        "one,given,2",
    ),
    ("--volumes-from flags-other", "cat /shared/file; touch /shared/new", "{{len .Mounts}}", "shared\n1"),
    (
        "--volumes-from flags-other:ro",
        "touch /shared/x 2> /dev/null || echo read-only",
        "{{range .Mounts}}{{.RW}}{{end}}",
        "read-only\nfalse",
    ),
    ("--ipc container:flags-other", "cat /dev/shm/said", "{{len .HostConfig.IpcMode}}", "here\n74"),
    ("--ipc container:flags-private", "true", "refused", "non-shareable IPC"),
    ("--pid container:flags-other", "cat /proc/1/comm; test $$ != 1", "{{len .HostConfig.PidMode}}", "sleep\n74"),
    (
        "--link flags-other:near --network bridge",
        "busybox awk '$2 == \"near\" { print $2 }' /etc/hosts; echo $NEAR_NAME",
        "{{.HostConfig.Links}}",
        "near\n/flags-probe/near\n[/flags-other:/flags-probe/near]",
    ),
    (
        "--expose 99 --expose 100-101/udp --publish-all",
        "true",
        "{{range $port, $_ := .HostConfig.PortBindings}}{{$port}}{{end}}{{range $port, $_ := .Config.ExposedPorts}}{{$port}};{{end}}",
        "100/udp;101/udp;99/tcp;",
    ),
    ("--blkio-weight 5", "true", "refused", "Range of blkio weight is from 10 to 1000"),
    ("--ulimit nofile=9:5", "true", "refused", "ulimit soft limit must be less than or equal to hard limit"),
    ("--oom-score-adj 1001", "true", "refused", "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
    ("--cpuset-cpus 4000", "true", "refused", "Requested CPUs are not available"),
    ("--device-read-bps /dev/none-such:1mb", "true", "refused", "/dev/none-such"),
    ("--stop-signal NONE", "true", "refused", "NONE"),
];

/// What scripts of probes know: where limits are, by a controller, its file's last part, and its file in version 2; the
/// time of processors and in which period.
const KNOWN: &str = r#"cgroup=/sys/fs/cgroup
limit() { if [ -d $cgroup/$1 ]; then echo $cgroup/$1/$1.$2; else echo $cgroup/$3; fi; }
quota() { test -e $cgroup/cpu.max && cat $cgroup/cpu.max || echo $(cat $cgroup/cpu/cpu.cfs_quota_us $cgroup/cpu/cpu.cfs_period_us); }
"#;

pub fn effects(engine: &Engine) -> Result<()> {
    let folder = engine.path("effects");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("env"), "# none\nFIRST=one\nLAST=first\n\nWITH_SPACES=a  b#c\nNOT_SET_AT_ALL\n")?;
    std::fs::write(folder.join("labels"), "# none\nfirst=one\nlast=first\nwithout-a-value\n")?;
    engine.run_detached(
        &["--name", "flags-other", "--ipc", "shareable", "-v", "/shared"],
        &["sh", "-c", "echo shared > /shared/file; echo here > /dev/shm/said; exec sleep 3600"],
    )?;
    engine.run_detached(&["--name", "flags-private"], &["sleep", "3600"])?;
    let mut wrong = Vec::new();
    for (flags, script, format, expected) in EFFECTS {
        let seen = probe(engine, flags, script, format).with_context(|| format!("docker run {flags}"))?;
        let good = if *format == "refused" { seen.contains(expected) } else { seen == *expected };
        if !good {
            wrong.push(format!("docker run {flags}:\n{seen}\ninstead of\n{expected}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    engine.ok(&["rm", "-fv", "flags-other", "flags-private"])?;
    Ok(())
}

/// Runs a container with these flags; what it says, and what is told of it, or why it was refused.
fn probe(engine: &Engine, flags: &str, script: &str, format: &str) -> Result<String> {
    let prepared = format!(
        "export folder={} machine=$(hostname) FROM_CLIENT=client; unset UNSET_ANYWHERE NOT_SET_AT_ALL",
        engine.path("effects").display()
    );
    let script = format!("{KNOWN}machine='@'; {script}").replace('\'', "'\\''").replace('@', "'\"$machine\"'");
    let run = format!("docker run --name flags-probe {flags} {BUSYBOX} sh -c '{script}'");
    if format == "refused" {
        return engine.shell(&format!("{prepared}; ! {run} 2>&1; docker rm -fv flags-probe > /dev/null 2>&1 || true"));
    }
    engine.shell(&format!(
        "{prepared}; {run}; docker inspect -f '{format}' flags-probe; docker rm -v flags-probe > /dev/null"
    ))
}

/// Throttles and weights of disks, and the cgroup in which all that is.
pub fn disks_and_cgroups(engine: &Engine) -> Result<()> {
    let device =
        engine.shell("for disk in /sys/block/*; do test -b /dev/${disk##*/} && echo ${disk##*/}; done | head -n 1")?;
    ensure!(!device.is_empty(), "the machine has no disk to limit");
    let number = engine.shell(&format!("cat /sys/block/{device}/dev"))?;
    let parent = format!("/{}/parent", engine.host.name);
    let limits = ["read-bps:1mb", "write-bps:9k", "read-iops:70", "write-iops:80"].map(|limit| {
        let (kind, value) = limit.split_once(':').unwrap_or_default();
        format!("--device-{kind}=/dev/{device}:{value}")
    });
    let mut options = vec!["--name", "flags-disks", "--cgroup-parent", &parent, "--blkio-weight", "300"];
    options.extend(limits.iter().map(String::as_str));
    let id = engine.run_detached(&options, &["sleep", "3600"])?;
    let below = format!("{parent}/{id}");
    let process = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "flags-disks"])?;
    let cgroups = std::fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    ensure!(cgroups.lines().any(|line| line.ends_with(&below)), "{cgroups}");
    let first = std::path::Path::new("/sys/fs/cgroup/blkio");
    if first.exists() {
        let file =
            |name: &str| std::fs::read_to_string(format!("{}{below}/blkio.throttle.{name}_device", first.display()));
        let all = [file("read_bps")?, file("write_bps")?, file("read_iops")?, file("write_iops")?].concat();
        ensure!(all == format!("{number} 1048576\n{number} 9216\n{number} 70\n{number} 80\n"), "{all}");
    } else {
        let all = std::fs::read_to_string(format!("/sys/fs/cgroup{below}/io.max"))?;
        ensure!(all == format!("{number} rbps=1048576 wbps=9216 riops=70 wiops=80\n"), "{all}");
    }
    engine.ok(&["update", "--blkio-weight", "400", "flags-disks"])?;
    ensure!(engine.ok(&["inspect", "-f", "{{.HostConfig.BlkioWeight}}", "flags-disks"])? == "400");
    engine.ok(&["rm", "-f", "flags-disks"])?;
    // Whoever names a parent keeps it, as with Docker.
    engine.shell(&format!(
        "for one in /sys/fs/cgroup{parent} /sys/fs/cgroup/*{parent}; do if [ -d $one ]; then rmdir $one; fi; done"
    ))?;
    Ok(())
}

/// How a container is stopped, whether its health is asked, and what is written down of it.
pub fn lives(engine: &Engine) -> Result<()> {
    let traps = ["sh", "-c", "trap 'exit 42' INT; trap '' TERM; echo ready; while :; do busybox usleep 10000; done"];
    engine.run_detached(&["--name", "flags-int", "--stop-signal", "INT"], &traps)?;
    engine.run_detached(&["--name", "flags-term", "--stop-timeout", "1"], &traps)?;
    for (name, code) in [("flags-int", "42"), ("flags-term", "137")] {
        until("its traps are set", SOON, || Ok((engine.ok(&["logs", name])? == "ready").then_some(())))?;
        engine.ok(&["stop", name])?;
        ensure!(engine.ok(&["inspect", "-f", "{{.State.ExitCode}}", name])? == code, "{name}");
    }
    let told =
        engine.ok(&["inspect", "-f", "{{.Config.StopSignal}} {{.Config.StopTimeout}}", "flags-int", "flags-term"])?;
    ensure!(told == "INT <nil>\n 1", "{told}");
    engine.ok(&["rm", "flags-int", "flags-term"])?;
    engine.shell(
        "printf 'FROM e2e/busybox:1\\nHEALTHCHECK --interval=1s CMD false\\n' | docker build -q -t e2e/checked -",
    )?;
    engine.ok(&["run", "-d", "--name", "flags-unasked", "--no-healthcheck", "e2e/checked", "sleep", "3600"])?;
    let told = engine.ok(&["inspect", "-f", "{{.State.Health}} {{.Config.Healthcheck.Test}}", "flags-unasked"])?;
    ensure!(told == "<nil> [NONE]", "{told}");
    let both = engine.refused(&["run", "--rm", "--no-healthcheck", "--health-cmd", "true", BUSYBOX, "true"])?;
    ensure!(both.contains("--no-healthcheck conflicts with --health-* options"), "{both}");
    engine.ok(&["rm", "-f", "flags-unasked"])?;
    let file = engine.path("flags-cid").to_string_lossy().into_owned();
    let id = engine.ok(&["run", "-d", "--name", "flags-written", "--cidfile", &file, BUSYBOX, "true"])?;
    ensure!(std::fs::read_to_string(&file)? == id);
    let again = engine.refused(&["run", "--rm", "--cidfile", &file, BUSYBOX, "true"])?;
    ensure!(again.contains("container ID file found"), "{again}");
    engine.run_detached(
        &["--name", "flags-ports", "--expose", "99", "--expose", "100-101/udp", "-P"],
        &["sleep", "3600"],
    )?;
    let ports = engine.ok(&["port", "flags-ports"])?;
    for port in ["99/tcp -> 0.0.0.0:", "100/udp -> 0.0.0.0:", "101/udp -> [::]:"] {
        ensure!(ports.contains(port), "{port}: {ports}");
    }
    engine.ok(&["rm", "-f", "flags-written", "flags-ports"])?;
    engine.ok(&["rmi", "e2e/checked"])?;
    Ok(())
}
