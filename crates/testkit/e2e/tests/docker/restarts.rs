//! The engine dies without warning, at chosen and at random moments, and another takes over.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Spawned, Subject, until};
use rustix::process::Signal;
use std::time::Duration;

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

/// Whether some process of this machine was started with these words.
fn is_there(engine: &Engine, words: &str) -> Result<bool> {
    let found = engine.host.run(&["pgrep", "-f", &format!("^{words}$")])?;
    Ok(found.status.success())
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

/// Numbers that a seed decides (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Runs, builds, networks and removals without end, in the background: what fails meanwhile is no failure.
const LOAD: &str = r#"
i=0
while :; do
    i=$((i+1))
    docker run -d --name load-$1-$i -v load-$1-$i:/v e2e/busybox:1 sleep 3600
    docker run --rm e2e/busybox:1 true
    printf "FROM e2e/busybox:1\nRUN echo $1-$i > /made\nRUN cat /made\n" | docker build --force-rm -q -t load/$1:$i -
    [ $((i % 2)) = 0 ] && docker rm -f load-$1-$((i-1)) && docker rmi load/$1:$((i-1))
    [ $((i % 3)) = 0 ] && docker network create load-$1-$i && docker network rm load-$1-$i
done
"#;

fn load(engine: &Engine, name: &str) -> Result<Spawned> {
    let mut command = engine.command("timeout");
    command.args(["300", "sh", "-c", LOAD, "load", name]);
    engine.start_program(command)
}

/// What is said of every container, image, network and volume must fit together.
fn consistent(engine: &Engine) -> Result<()> {
    for id in engine.ok(&["ps", "-aq"])?.lines() {
        let told = engine.docker(&["inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.State.Pid}}", id])?;
        // The load may be removing it.
        let Ok(told) = told.ok() else { continue };
        let words: Vec<&str> = told.split_whitespace().collect();
        let [status, running, pid] = words[..] else { anyhow::bail!("{told}") };
        ensure!((running == "true") == (status == "running") && (pid != "0") == (running == "true"), "{id}: {told}");
        if running == "true" {
            ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{id} runs without a process");
            ensure!(engine.ok(&["exec", id, "echo", "there"])? == "there");
        }
    }
    for id in engine.ok(&["images", "-aq"])?.lines() {
        engine.ok(&["image", "inspect", id])?;
    }
    ensure!(engine.ok(&["run", "--rm", BUSYBOX, "echo", "works"])? == "works");
    Ok(())
}

pub fn chaos(_: &Engine) -> Result<()> {
    let seed = std::env::var("PINTLE_E2E_SEED").ok().map(|s| s.parse()).transpose()?.unwrap_or(20_260_401);
    let mut random = Random(seed);
    let engine = Engine::start()?;
    for kill in 0..20 {
        let step = || format!("kill {kill} of seed {seed}");
        let loads = [load(&engine, &format!("a{kill}"))?, load(&engine, &format!("b{kill}"))?];
        std::thread::park_timeout(Duration::from_millis(100 + random.below(1500)));
        engine.stop_daemon(Signal::KILL).with_context(step)?;
        loads.iter().try_for_each(|load| load.signal(Signal::TERM))?;
        drop(loads);
        engine.start_daemon().with_context(step)?;
        consistent(&engine).with_context(step)?;
    }
    engine.finish().with_context(|| format!("seed {seed}"))
}
