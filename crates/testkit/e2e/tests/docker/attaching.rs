//! Clients that join a container while it writes, and logs whose writers do not wait.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, until};
use std::path::Path;

/// Counts in bursts until it is told to stop: by a signal, since a process that is sent in may be killed with the rest.
const COUNTS: &str = "trap 'stop=1' TERM; i=0; while [ -z \"$stop\" ]; do j=0; while [ $j -lt 50 ]; do echo $i; \
                      i=$((i+1)); j=$((j+1)); done; busybox usleep 1000; done";

/// Bytes that a file has by now.
fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

/// The contents of frames: each has its length in the last four of eight bytes before it.
fn contents(mut framed: &[u8]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = framed.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let (content, rest) = rest.split_at_checked(usize::try_from(length)?).context("a frame breaks off")?;
        all.extend_from_slice(content);
        framed = rest;
    }
    ensure!(framed.is_empty(), "{} bytes after the last frame", framed.len());
    Ok(all)
}

/// Whoever asks for what was written and for what comes gets each line once, with and without a terminal.
pub fn whole(engine: &Engine) -> Result<()> {
    for (name, tty) in [("e2e-counts", &[][..]), ("e2e-counts-tty", &["-t"])] {
        engine.run_detached(&[&["--name", name][..], tty].concat(), &["sh", "-c", COUNTS])?;
        until("lines are in the log", SOON, || Ok((engine.ok(&["logs", name])?.lines().count() > 3000).then_some(())))?;
        let output = engine.path(name);
        let mut client = engine.command("curl");
        let socket = engine.path("run/docker.sock").to_string_lossy().into_owned();
        let address = format!("http://engine/v1.47/containers/{name}/attach?logs=1&stream=1&stdout=1");
        client.args(["-sN", "--unix-socket", &socket, "-X", "POST", &address, "-o"]).arg(&output);
        let mut client = engine.start_program(client)?;
        until("the client has old lines and new ones", SOON, || Ok((size(&output) > 60_000).then_some(())))?;
        engine.ok(&["kill", "--signal", "TERM", name])?;
        ensure!(client.wait()?.success());
        let seen = std::fs::read(&output)?;
        let text = if tty.is_empty() { contents(&seen)? } else { seen };
        let text = String::from_utf8(text)?.replace('\r', "");
        let wrong = text.lines().enumerate().find(|(at, line)| at.to_string() != *line);
        ensure!(wrong.is_none(), "{name}: the line {wrong:?}");
        let logged = engine.ok(&["logs", name])?.lines().count();
        ensure!(text.lines().count() == logged, "{name}: {} of {logged} lines", text.lines().count());
        engine.ok(&["rm", "-f", name])?;
    }
    Ok(())
}

/// Every client gets all that comes, and one may type for all.
pub fn several(engine: &Engine) -> Result<()> {
    engine.run_detached(&["--name", "e2e-shared", "-i"], &["cat"])?;
    let watching = engine.spawn(&["attach", "--no-stdin", "e2e-shared"])?;
    let mut first = engine.spawn(&["attach", "e2e-shared"])?;
    let mut second = engine.spawn(&["attach", "e2e-shared"])?;
    // Each has joined when what it types comes back to it.
    for (client, word) in [(&mut first, "from-first\n"), (&mut second, "from-second\n")] {
        client.say(word)?;
        client.expect(word, SOON)?;
    }
    first.expect("from-second\n", SOON)?;
    until("the one that only watches has joined", SOON, || {
        first.say("again\n")?;
        Ok(watching.output().contains("again\n").then_some(()))
    })?;
    engine.ok(&["rm", "-f", "e2e-shared"])?;
    Ok(())
}

/// Writers of logs that do not wait: how that is asked for, and that nothing is lost for want of waiting.
pub fn non_blocking(engine: &Engine) -> Result<()> {
    let refused = |options: &[&str]| {
        let words: Vec<&str> = options.iter().flat_map(|option| ["--log-opt", option]).collect();
        engine.refused(&[&["run", "--rm"][..], &words, &[BUSYBOX, "true"]].concat())
    };
    for (options, words) in [
        (&["mode=other"][..], "logger: logging mode not supported: other"),
        (&["max-buffer-size=1m"], "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        (&["mode=non-blocking", "max-buffer-size=much"], "error parsing option max-buffer-size: invalid size: 'much'"),
    ] {
        let said = refused(options)?;
        ensure!(said.contains(words), "{options:?}: {said}");
    }
    let options = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=4m"];
    for driver in ["json-file", "local"] {
        let named = ["--name", "e2e-hasty", "--log-driver", driver];
        let writes = ["sh", "-c", "busybox seq 20000; busybox seq 100 >&2"];
        engine.ok(&[&["run", "-d"][..], &named, &options, &[BUSYBOX], &writes].concat())?;
        ensure!(engine.ok(&["wait", "e2e-hasty"])? == "0");
        let kept = engine.docker(&["logs", "e2e-hasty"])?;
        ensure!((kept.stdout.lines().count(), kept.stderr.lines().count()) == (20_000, 100), "{driver}");
        let told =
            engine.ok(&["inspect", "-f", "{{index .HostConfig.LogConfig.Config \"max-buffer-size\"}}", "e2e-hasty"])?;
        ensure!(told == "4m", "{told}");
        engine.ok(&["rm", "e2e-hasty"])?;
    }
    Ok(())
}
