//! Runs hooks: programs that get the container's state on stdin (config.md, "POSIX-platform Hooks").

use crate::bundle::Hook;
use crate::{Error, Result, refuse};
use pintle_linux::process::PidFd;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs hooks one after the other; the first that fails ends it.
pub fn run(kind: &str, hooks: &[Hook], state: &serde_json::Value) -> Result<()> {
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, state).map_err(|e| Error::new(format!("error running {kind} hook #{number}: {e}")))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &serde_json::Value) -> Result<()> {
    let failed = |e: std::io::Error| Error::new(format!("{}: {e}", hook.path.display()));
    if !hook.path.is_absolute() {
        return refuse(format!("the path {:?} is not absolute", hook.path.display().to_string()));
    }
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|v| v.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    if let Some(seconds) = hook.timeout {
        let handle = PidFd::open(child.id().cast_signed()).map_err(failed)?;
        if !handle.wait(Duration::from_secs(seconds)).map_err(failed)? {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return refuse(format!("hook ran past specified timeout of {seconds}s"));
        }
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    refuse(format!("{}, stderr: {}", output.status, said.chars().take(4096).collect::<String>().trim_end()))
}
