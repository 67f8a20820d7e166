//! Containers: their life, their streams, what is changed about them and what is seen of them.

use crate::SOON;
use anyhow::{Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, until};
use serde_json::Value;

pub fn run_codes(engine: &Engine) -> Result<()> {
    ensure!(engine.ok(&["run", "--rm", BUSYBOX, "echo", "hello"])? == "hello");
    ensure!(engine.code(&["run", "--rm", BUSYBOX, "sh", "-c", "exit 7"])? == 7);
    ensure!(engine.code(&["run", "--rm", BUSYBOX, "no-such-program"])? == 127);
    ensure!(engine.code(&["run", "--rm", BUSYBOX, "/etc"])? == 126);
    ensure!(engine.code(&["run", "--rm", "--no-such-flag", BUSYBOX])? == 125);
    ensure!(engine.ok_with(&["run", "--rm", "-i", BUSYBOX, "wc", "-c"], &"x".repeat(100_000))? == "100000");
    let both = engine.docker(&["run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2"])?;
    ensure!(both.stdout == "out\n" && both.stderr == "err\n", "{both:?}");
    let told = engine.ok(&[
        "run",
        "--rm",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "65534",
        "--hostname",
        "other",
        BUSYBOX,
        "sh",
        "-c",
        "echo $A $(pwd) $(id -u) $(hostname)",
    ])?;
    ensure!(told == "b /tmp 65534 other", "{told}");
    let file = engine.path("cid");
    engine.ok(&["run", "--rm", "--cidfile", &file.to_string_lossy(), BUSYBOX, "true"])?;
    ensure!(std::fs::read_to_string(file)?.len() == 64);
    Ok(())
}

pub fn terminal(engine: &Engine) -> Result<()> {
    // The program is there before the client could tell of a change.
    let mut at_once = engine.terminal(&format!("docker run -t --rm {BUSYBOX} stty size"))?;
    at_once.expect("40 100", SOON)?;
    at_once.wait()?;
    let mut shell = engine.terminal(&format!("docker run -it --rm --name e2e-terminal {BUSYBOX} sh"))?;
    shell.expect("# ", SOON)?;
    shell.say("stty size; tty\n")?;
    let seen = shell.expect("/dev/pts/0", SOON)?;
    ensure!(seen.contains("40 100"), "{seen}");
    shell.say("exit 3\n")?;
    let status = shell.wait()?;
    ensure!(status.code() == Some(3), "{status}: {}", shell.output());
    ensure!(engine.ok(&["ps", "-aqf", "name=e2e-terminal"])?.is_empty());
    Ok(())
}

pub fn detach(engine: &Engine) -> Result<()> {
    let mut first = engine.terminal(&format!("docker run -it --name e2e-detach {BUSYBOX} sh"))?;
    first.expect("# ", SOON)?;
    let mut second = engine.terminal("docker attach e2e-detach")?;
    // Both see what one of them types.
    until("two clients share the terminal", SOON, || {
        first.say("echo shared-$((40+2))\n")?;
        Ok(second.output().contains("shared-42").then_some(()))
    })?;
    first.expect("shared-42", SOON)?;
    second.say("\x10\x11")?;
    second.expect("read escape sequence", SOON)?;
    second.wait()?;
    ensure!(engine.ok(&["inspect", "-f", "{{.State.Running}}", "e2e-detach"])? == "true");
    first.say("exit 4\n")?;
    ensure!(first.wait()?.code() == Some(4), "{}", first.output());
    engine.ok(&["rm", "e2e-detach"])?;
    Ok(())
}

pub fn life(engine: &Engine) -> Result<()> {
    let id = engine.run_detached(&["--name", "e2e-life", "-p", "80"], &["sh", "-c", "echo begun; exec sleep 3600"])?;
    ensure!(id.len() == 64, "{id}");
    until("the log has its line", SOON, || Ok((engine.ok(&["logs", "e2e-life"])? == "begun").then_some(())))?;
    let listed =
        engine.ok(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.State}}", "-f", "name=e2e-life"])?;
    ensure!(listed == format!("{id} {BUSYBOX} running"), "{listed}");
    ensure!(engine.ok(&["exec", "e2e-life", "cat", "/proc/1/comm"])? == "sleep");
    ensure!(engine.ok(&["top", "e2e-life"])?.contains("sleep 3600"));
    ensure!(engine.ok(&["port", "e2e-life", "80"])?.starts_with("0.0.0.0:"));
    ensure!(engine.refused(&["rm", "e2e-life"])?.contains("container is running"));
    ensure!(engine.ok(&["stop", "-t", "0", "e2e-life"])? == "e2e-life");
    ensure!(engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &id])? == "exited 137");
    engine.ok(&["start", "e2e-life"])?;
    engine.ok(&["restart", "-t", "0", "e2e-life"])?;
    ensure!(engine.ok(&["logs", "e2e-life"])?.starts_with("begun\nbegun"));
    engine.ok(&["rm", "-f", "e2e-life"])?;
    ensure!(engine.refused(&["inspect", "e2e-life"])?.contains("No such object: e2e-life"));
    let created = engine.ok(&["create", "--name", "e2e-created", BUSYBOX, "sh", "-c", "echo late; exit 5"])?;
    ensure!(engine.ok(&["inspect", "-f", "{{.State.Status}}", &created])? == "created");
    let attached = engine.docker(&["start", "-a", "e2e-created"])?;
    ensure!(attached.stdout == "late\n" && attached.status.code() == Some(5), "{attached:?}");
    engine.ok(&["rm", "e2e-created"])?;
    Ok(())
}

pub fn exec(engine: &Engine) -> Result<()> {
    engine.run_detached(&["--name", "e2e-exec"], &["sleep", "3600"])?;
    let run = |arguments: &[&str]| engine.docker(&[&["exec"][..], arguments].concat());
    ensure!(run(&["e2e-exec", "sh", "-c", "exit 9"])?.status.code() == Some(9));
    ensure!(run(&["e2e-exec", "no-such-program"])?.status.code() == Some(127));
    let told =
        run(&["-e", "X=y", "-w", "/etc", "-u", "65534:65534", "e2e-exec", "sh", "-c", "echo $X $(pwd) $(id -g)"])?;
    ensure!(told.ok()?.trim() == "y /etc 65534");
    ensure!(engine.ok_with(&["exec", "-i", "e2e-exec", "cat"], "through")? == "through");
    engine.ok(&["exec", "-d", "e2e-exec", "touch", "/tmp/made"])?;
    until("the detached process has run", SOON, || {
        Ok((engine.code(&["exec", "e2e-exec", "test", "-e", "/tmp/made"])? == 0).then_some(()))
    })?;
    let mut shell = engine.terminal("docker exec -it e2e-exec sh")?;
    shell.expect("# ", SOON)?;
    shell.say("stty size; exit 6\n")?;
    ensure!(shell.wait()?.code() == Some(6) && shell.output().contains("40 100"), "{}", shell.output());
    engine.ok(&["rm", "-f", "e2e-exec"])?;
    Ok(())
}

pub fn look(engine: &Engine) -> Result<()> {
    let label = ["--label", "e2e=look", "--label"];
    let one = engine.run_detached(&[&label[..], &["n=1", "--name", "e2e-look1"]].concat(), &["sleep", "3600"])?;
    let two = engine.run_detached(&[&label[..], &["n=2", "--name", "e2e-look2"]].concat(), &["sh", "-c", "exit 3"])?;
    ensure!(engine.ok(&["wait", &two])? == "3");
    let ids = |filters: &[&str]| engine.ok(&[&["ps", "-aq", "--no-trunc", "-f", "label=e2e=look"], filters].concat());
    ensure!(ids(&[])? == format!("{two}\n{one}"));
    ensure!(ids(&["-f", "status=running"])? == one);
    ensure!(ids(&["-f", "exited=3"])? == two);
    ensure!(ids(&["-f", "label=n=2"])? == two);
    ensure!(ids(&["-f", "before=e2e-look2"])? == one);
    ensure!(ids(&["-n", "1"])? == two);
    let objects: Value = serde_json::from_str(&engine.ok(&["inspect", &one[..12], "e2e-look2"])?)?;
    ensure!(objects[0]["Id"] == one.as_str() && objects[1]["Name"] == "/e2e-look2");
    ensure!(objects[0]["State"]["Running"] == true && objects[1]["State"]["ExitCode"] == 3);
    ensure!(objects[0]["Config"]["Labels"]["n"] == "1");
    ensure!(engine.ok(&["ps", "-a", "-f", "label=n=2"])?.contains("Exited (3)"));
    engine.ok(&["rm", "-f", &one, &two])?;
    Ok(())
}

pub fn copy(engine: &Engine) -> Result<()> {
    engine.run_detached(&["--name", "e2e-copy"], &["sleep", "3600"])?;
    let folder = engine.path("copy");
    std::fs::create_dir_all(folder.join("in/deep"))?;
    std::fs::write(folder.join("in/deep/file"), "there and back")?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    engine.ok(&["cp", &path("in"), "e2e-copy:/tmp/"])?;
    ensure!(engine.ok(&["exec", "e2e-copy", "cat", "/tmp/in/deep/file"])? == "there and back");
    engine.ok(&["cp", "e2e-copy:/tmp/in", &path("out")])?;
    ensure!(std::fs::read_to_string(folder.join("out/deep/file"))? == "there and back");
    engine.ok(&["stop", "-t", "0", "e2e-copy"])?;
    engine.ok(&["cp", &path("in/deep/file"), "e2e-copy:/etc/stopped"])?;
    ensure!(engine.shell("docker cp e2e-copy:/etc/stopped - | tar xO")? == "there and back");
    ensure!(engine.refused(&["cp", "e2e-copy:/none", &path("x")])?.contains("Could not find the file /none"));
    engine.ok(&["start", "e2e-copy"])?;
    ensure!(engine.ok(&["exec", "e2e-copy", "cat", "/etc/stopped"])? == "there and back");
    engine.ok(&["rm", "-f", "e2e-copy"])?;
    Ok(())
}

pub fn change(engine: &Engine) -> Result<()> {
    engine
        .run_detached(&["--name", "e2e-change"], &["sh", "-c", "trap 'exit 12' USR1; while :; do sleep 0.1; done"])?;
    let status = || engine.ok(&["inspect", "-f", "{{.State.Status}}", "e2e-change"]);
    engine.ok(&["pause", "e2e-change"])?;
    ensure!(status()? == "paused");
    ensure!(engine.refused(&["exec", "e2e-change", "true"])?.contains("is paused"));
    engine.ok(&["unpause", "e2e-change"])?;
    ensure!(status()? == "running");
    engine.ok(&["update", "--memory", "64m", "--memory-swap", "64m", "--restart", "no", "e2e-change"])?;
    ensure!(engine.ok(&["inspect", "-f", "{{.HostConfig.Memory}}", "e2e-change"])? == "67108864");
    engine.ok(&["rename", "e2e-change", "e2e-changed"])?;
    let waiting = engine.spawn(&["wait", "e2e-changed"])?;
    // The trap is set when the shell has run its first line.
    until("the signal ends it", SOON, || {
        let killed = engine.docker(&["kill", "-s", "USR1", "e2e-changed"])?;
        Ok((!killed.status.success() || waiting.output().trim() == "12").then_some(()))
    })?;
    waiting.expect("12", SOON)?;
    engine.ok(&["rm", "e2e-changed"])?;
    Ok(())
}

pub fn limits(engine: &Engine) -> Result<()> {
    let options =
        ["--memory", "32m", "--cpus", "0.5", "--pids-limit", "50", "--ulimit", "nofile=99:99", "--shm-size", "8m"];
    engine.run_detached(
        &[&options[..], &["--name", "e2e-limits", "--read-only", "--tmpfs", "/tmp:size=1m"]].concat(),
        &["sleep", "3600"],
    )?;
    let told = engine.ok(&["inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", "e2e-limits"])?;
    ensure!(told == "500000000 50", "{told}");
    ensure!(engine.ok(&["exec", "e2e-limits", "sh", "-c", "ulimit -n"])? == "99");
    ensure!(engine.ok(&["exec", "e2e-limits", "sh", "-c", "df -k /dev/shm | tail -n 1"])?.contains(" 8192 "));
    ensure!(engine.code(&["exec", "e2e-limits", "touch", "/etc/x"])? == 1);
    ensure!(engine.code(&["exec", "e2e-limits", "touch", "/tmp/x"])? == 0);
    engine.ok(&["rm", "-f", "e2e-limits"])?;
    let eats = "x=0123456789abcdef; while :; do x=$x$x; done";
    let arguments = ["run", "--name", "e2e-oom", "--memory", "16m", "--memory-swap", "16m", BUSYBOX, "sh", "-c", eats];
    ensure!(engine.code(&arguments)? == 137);
    ensure!(engine.ok(&["inspect", "-f", "{{.State.OOMKilled}}", "e2e-oom"])? == "true");
    engine.ok(&["rm", "e2e-oom"])?;
    Ok(())
}

pub fn logs(engine: &Engine) -> Result<()> {
    let lines = "for i in 1 2 3; do echo line-$i; done; echo wrong >&2; sleep 1; echo late; exec sleep 3600";
    engine.run_detached(&["--name", "e2e-logs"], &["sh", "-c", lines])?;
    let following = engine.spawn(&["logs", "-f", "e2e-logs"])?;
    following.expect("late", SOON)?;
    ensure!(engine.ok(&["logs", "--tail", "1", "e2e-logs"])? == "late");
    let stamped = engine.ok(&["logs", "-t", "--tail", "1", "e2e-logs"])?;
    let (time, rest) = stamped.split_once(' ').unwrap_or_default();
    ensure!(time.len() == 30 && time.ends_with('Z') && rest == "late", "{stamped}");
    ensure!(engine.ok(&["logs", "--since", time, "e2e-logs"])? == "late");
    ensure!(engine.ok(&["logs", "--until", time, "e2e-logs"])?.starts_with("line-1\nline-2\nline-3"));
    ensure!(engine.docker(&["logs", "e2e-logs"])?.stderr == "wrong\n");
    engine.ok(&["rm", "-f", "e2e-logs"])?;
    let mut following = following;
    ensure!(following.wait()?.success());
    engine.ok(&["run", "--name", "e2e-nologs", "--log-driver", "none", BUSYBOX, "echo", "gone"])?;
    ensure!(engine.refused(&["logs", "e2e-nologs"])?.contains("does not support reading"));
    engine.ok(&["rm", "e2e-nologs"])?;
    Ok(())
}

pub fn health(engine: &Engine) -> Result<()> {
    let options = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "2"];
    engine.run_detached(&[&options[..], &["--name", "e2e-health"]].concat(), &["sleep", "3600"])?;
    let becomes = |state: &str| {
        until(&format!("the container is {state}"), SOON, || {
            let now = engine.ok(&["inspect", "-f", "{{.State.Health.Status}}", "e2e-health"])?;
            Ok((now == state).then_some(()))
        })
    };
    becomes("unhealthy")?;
    engine.ok(&["exec", "e2e-health", "touch", "/tmp/well"])?;
    becomes("healthy")?;
    ensure!(engine.ok(&["ps", "-f", "name=e2e-health", "-f", "health=healthy"])?.contains("(healthy)"));
    engine.ok(&["rm", "-f", "e2e-health"])?;
    Ok(())
}
