//! The engine dies without warning, and another takes over.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Subject, until};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;

/// Kills the engine and starts another; commands that were under way fail.
fn replace(engine: &Engine) -> Result<()> {
    engine.stop_daemon(Signal::KILL)?;
    engine.start_daemon()
}

fn state(engine: &Engine, name: &str) -> Result<String> {
    engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name])
}

pub fn survive(_: &Engine) -> Result<()> {
    let engine = Engine::start()?;
    engine.ok(&["network", "create", "own"])?;
    let counts = "i=0; while :; do i=$((i+1)); echo tick-$i; sleep 0.2; done";
    let ticking = engine.run_detached(
        &["--name", "ticking", "--network", "own", "-p", "18090:80", "-v", "kept:/kept"],
        &["sh", "-c", counts],
    )?;
    engine.run_detached(
        &["--name", "ends"],
        &["sh", "-c", "read x < /tmp/never 2>/dev/null; sleep 2; echo last words; exit 42"],
    )?;
    engine.run_detached(&["--name", "removed", "--rm"], &["sleep", "2"])?;
    engine
        .ok(&["run", "--name", "ended", BUSYBOX, "sh", "-c", "echo before; exit 17"])
        .err()
        .context("exits with 17")?;
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "ticking"])?;
    engine.stop_daemon(Signal::KILL)?;
    // Two of them end while no engine is there.
    until("the container ended without an engine", SOON, || {
        Ok((engine.host.processes()?.is_empty() || !is_there(&engine, "sleep 2")?).then_some(()))
    })?;
    engine.start_daemon()?;
    until("the end is known", SOON, || Ok((state(&engine, "ends")? == "exited 42 0").then_some(())))?;
    ensure!(engine.ok(&["logs", "ends"])? == "last words");
    ensure!(state(&engine, "ended")? == "exited 17 0" && engine.ok(&["logs", "ended"])? == "before");
    until("--rm is kept", SOON, || Ok(engine.ok(&["ps", "-aqf", "name=removed"])?.is_empty().then_some(())))?;
    ensure!(engine.ok(&["inspect", "-f", "{{.Id}} {{.State.Pid}}", "ticking"])? == format!("{ticking} {pid}"));
    let log = engine.ok(&["logs", "ticking"])?;
    let expected: Vec<String> = (1..=log.lines().count()).map(|i| format!("tick-{i}")).collect();
    ensure!(log.lines().eq(expected.iter().map(String::as_str)), "lines are missing:\n{log}");
    ensure!(engine.ok(&["exec", "ticking", "echo", "adopted"])? == "adopted");
    ensure!(engine.ok(&["port", "ticking"])?.contains("0.0.0.0:18090"));
    engine.run_detached(&["--name", "new", "--network", "own"], &["sleep", "3600"])?;
    engine.ok(&["exec", "new", "nslookup", "ticking"])?;
    engine.ok(&["stop", "-t", "0", "ticking"])?;
    engine.finish()
}

/// The engine is killed between what it does and what it writes down of it: what is true counts.
pub fn held(_: &Engine) -> Result<()> {
    let engine = Engine::start()?;
    engine.run_detached(&["--name", "held"], &["sleep", "3600"])?;
    let freeze = || -> Result<()> {
        for (file, value) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
            for cgroup in engine.container_cgroups()?.iter().filter(|cgroup| cgroup.join(file).exists()) {
                std::fs::write(cgroup.join(file), value)?;
            }
        }
        replace(&engine)?;
        ensure!(state(&engine, "held")? == "paused 0 0");
        Ok(())
    };
    freeze()?;
    engine.ok(&["unpause", "held"])?;
    ensure!(engine.ok(&["exec", "held", "echo", "goes on"])? == "goes on");
    freeze()?;
    engine.ok(&["rm", "-f", "held"])?;
    engine.finish()
}

/// Whether some process of this machine was started with these words.
fn is_there(engine: &Engine, words: &str) -> Result<bool> {
    let found = engine.host.run(&["pgrep", "-f", &format!("^{words}$")])?;
    Ok(found.status.success())
}

/// Writes into the record of a container what an engine that is killed at that moment leaves.
fn rewrite(engine: &Engine, id: &str, change: impl Fn(&mut Value)) -> Result<()> {
    let path = engine.path(&format!("data/docker/containers/{id}/config.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    change(&mut record);
    Ok(std::fs::write(path, serde_json::to_vec(&record)?)?)
}

pub fn removals(_: &Engine) -> Result<()> {
    let engine = Engine::start()?;
    let make =
        |name: &str, more: &[&str]| engine.ok(&[&["create", "--name", name, "-v", "/v"], more, &[BUSYBOX]].concat());
    let (with, without, half) = (make("with", &[])?, make("without", &[])?, make("half", &[])?);
    let shared = make("shared", &[])?;
    make("sharing", &["--volumes-from", "shared"])?;
    // It never ran: the engine that would have started it for `docker run` is gone.
    make("itself", &["--rm"])?;
    let volume = |name: &str| engine.ok(&["inspect", "-f", "{{(index .Mounts 0).Name}}", name]);
    let (kept, used) = (volume("without")?, volume("shared")?);
    ensure!(engine.ok(&["volume", "ls", "-q"])?.lines().count() == 5);
    engine.stop_daemon(Signal::KILL)?;
    for (id, volumes) in [(&with, true), (&without, false), (&shared, true)] {
        rewrite(&engine, id, |record| {
            record["state"]["status"] = "removing".into();
            record["removes_volumes"] = volumes.into();
        })?;
    }
    rewrite(&engine, &half, |record| record["complete"] = false.into())?;
    // A volume that was being removed has another name already.
    std::fs::create_dir_all(engine.path("data/docker/volumes/.gone/_data"))?;
    engine.start_daemon()?;
    ensure!(engine.ok(&["ps", "-a", "--format", "{{.Names}}"])? == "sharing");
    let left = engine.ok(&["volume", "ls", "-q"])?;
    // The CLI sorts them by the numbers in their names.
    let (left, expected) = (BTreeSet::from_iter(left.lines()), BTreeSet::from([&*kept, &*used]));
    ensure!(left == expected, "{left:?}\ninstead of {expected:?}");
    ensure!(!engine.path("data/docker/volumes/.gone").exists());
    engine.finish()
}

pub fn policies(_: &Engine) -> Result<()> {
    let engine = Engine::start()?;
    engine.run_detached(&["--name", "tries", "--restart", "on-failure:2"], &["sh", "-c", "echo try; exit 1"])?;
    engine.run_detached(&["--name", "always", "--restart", "always"], &["sh", "-c", "sleep 1; exit 0"])?;
    engine.run_detached(&["--name", "stopped", "--restart", "unless-stopped"], &["sleep", "3600"])?;
    engine.ok(&["stop", "-t", "0", "stopped"])?;
    engine.run_detached(&["--name", "kept", "--restart", "unless-stopped"], &["sleep", "3600"])?;
    until("it has tried enough", SOON, || Ok((state(&engine, "tries")? == "exited 1 2").then_some(())))?;
    ensure!(engine.ok(&["logs", "tries"])? == "try\ntry\ntry");
    replace(&engine)?;
    ensure!(state(&engine, "tries")? == "exited 1 2");
    ensure!(state(&engine, "stopped")?.starts_with("exited"));
    ensure!(state(&engine, "kept")? == "running 0 0");
    let count =
        |engine: &Engine| -> Result<u32> { Ok(engine.ok(&["inspect", "-f", "{{.RestartCount}}", "always"])?.parse()?) };
    let before = count(&engine)?;
    until("it is restarted by the new engine too", SOON, || Ok((count(&engine)? > before).then_some(())))?;
    engine.finish()
}

pub fn stops(_: &Engine) -> Result<()> {
    let engine = Engine::start()?;
    let stop = ["--on-exit", "stop"].map(str::to_owned);
    engine.stop_daemon(Signal::TERM)?;
    engine.start_daemon_with(&stop)?;
    ensure!(engine.ok(&["info", "-f", "{{.LiveRestoreEnabled}}"])? == "false");
    let waits = ["sh", "-c", "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.1; done"];
    engine.run_detached(&["--name", "asked"], &waits)?;
    engine.run_detached(&["--name", "again", "--restart", "unless-stopped"], &waits)?;
    engine.run_detached(&["--name", "frozen"], &waits)?;
    engine.run_detached(&["--name", "removed", "--rm"], &waits)?;
    for name in ["asked", "again", "frozen", "removed"] {
        until("it is ready", SOON, || Ok((engine.ok(&["logs", name])? == "ready").then_some(())))?;
    }
    engine.ok(&["pause", "frozen"])?;
    engine.stop_daemon(Signal::TERM)?;
    ensure!(!is_there(&engine, "sh -c trap 'echo asked.*")?, "a container outlived the engine");
    engine.start_daemon_with(&stop)?;
    ensure!(state(&engine, "asked")? == "exited 5 0" && engine.ok(&["logs", "asked"])? == "ready\nasked");
    ensure!(state(&engine, "frozen")? == "exited 5 0");
    ensure!(engine.ok(&["ps", "-aqf", "name=removed"])?.is_empty());
    until("its policy starts it again", SOON, || Ok(state(&engine, "again")?.starts_with("running").then_some(())))?;
    engine.finish()
}
