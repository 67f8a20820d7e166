//! Debian's containerd runs containers by the OCI runtime in the one binary.

use anyhow::{Result, ensure};
use pintle_e2e::{Engine, suite_on};
use std::os::unix::fs::symlink;
use std::process::ExitCode;

/// Starts containerd with directories of its own; its shims insist on /run/containerd, which is another one here.
const CONTAINERD: &str = r#"
mkdir -p /run/containerd
mount -t tmpfs tmpfs /run/containerd
cat > config.toml <<EOF
version = 2
root = "$PWD/root"
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$PWD/containerd.sock"
EOF
containerd --config config.toml > containerd.log 2>&1 &
trap "kill $!; wait" EXIT
client() { ctr --address "$PWD/containerd.sock" --connect-timeout 30s "$@"; }
start() { client run --runc-binary "$PWD/pintle-oci" --cgroup "/$GROUP/$NAME" "$@"; }
until client version > /dev/null 2>&1; do kill -0 $!; done
client images import ../busybox.tar > /dev/null
image=docker.io/e2e/busybox:1
"#;

const LIFE: &str = r#"
NAME=once
start --rm $image once sh -c 'echo out; echo err >&2; exit 7' 2> err || echo "code $?"
cat err
NAME=long
start --detach --memory-limit 33554432 --env COLOUR=blue $image long sleep 1000
client task list | tr -s ' ' | cut -d ' ' -f 1,3
client task exec --exec-id first long sh -c 'echo $COLOUR of $(head -c 5 /proc/1/cmdline) $$; exit 5' || echo "code $?"
echo typed | client task exec --exec-id second long cat
client task exec --exec-id third --user 5:6 --cwd /tmp long sh -c 'id -u; id -g; pwd'
client task metrics long | tr -s ' ' | grep memory.limit
client task pause long
client task list | grep -c PAUSED
client task resume long
client task ps long | head -n 1 | tr -s ' '
client task kill --signal KILL long
while client task list | grep -q RUNNING; do :; done
client task delete long
client container delete long
client task list --quiet | wc -l
"#;

const SAID: &str = "out\ncode 7\nerr\nTASK STATUS\nlong RUNNING\nblue of sleep 2\ncode 5\ntyped\n5\n6\n/tmp\n\
                    memory.limit_in_bytes 33554432\n1\nPID INFO\n0";

const TERMINAL: &str = r#"
export NAME=term GROUP
script --quiet --return --flush --command "stty rows 40 cols 100; ctr --address '$PWD/containerd.sock' run --rm -t \
  --runc-binary '$PWD/pintle-oci' --cgroup /$GROUP/$NAME $image term sh -c 'tty; until stty size 2> /dev/null | grep 40; do :; done; exit 3'" /dev/null < /dev/null \
  || echo "code $?"
"#;

const FAILURE: &str = r#"
NAME=none
start --rm $image none /no/such/program 2>&1 || echo "code $?"
client task list --quiet | wc -l
"#;

fn main() -> ExitCode {
    suite_on::<Engine>(&[
        ("containerd: create, start, exec, pause, kill and delete", life),
        ("containerd: a terminal", terminal),
        ("containerd: a program that is not there", failure),
    ])
}

/// Runs lines of a shell beside a containerd; what they printed.
fn with_containerd(engine: &Engine, name: &str, lines: &str) -> Result<String> {
    let folder = engine.path(name);
    std::fs::create_dir_all(&folder)?;
    symlink(engine.program()?, folder.join("pintle-oci"))?;
    let script = format!("cd {}\nGROUP={}\n{CONTAINERD}{lines}", folder.display(), engine.host.name);
    std::fs::write(folder.join("script"), script)?;
    let said = engine.shell(&format!("unshare --mount sh -eu {}", folder.join("script").display()))?;
    let left = engine.container_cgroups()?;
    ensure!(left.is_empty(), "cgroups are left: {left:?}");
    // Columns end in blanks, and lines of a terminal in more than their end.
    Ok(said.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

fn life(engine: &Engine) -> Result<()> {
    let said = with_containerd(engine, "oci-life", LIFE)?;
    ensure!(said == SAID, "{said}");
    Ok(())
}

fn terminal(engine: &Engine) -> Result<()> {
    let said = with_containerd(engine, "oci-terminal", TERMINAL)?;
    // The end of the input may come first.
    ensure!(said.ends_with("/dev/pts/0\n40 100\ncode 3"), "{said}");
    Ok(())
}

fn failure(engine: &Engine) -> Result<()> {
    let said = with_containerd(engine, "oci-failure", FAILURE)?;
    ensure!(said.contains("no such file or directory") && said.ends_with("code 1\n0"), "{said}");
    Ok(())
}
