//! A probe that runs a command in its container.

use super::Unhealthy;
use crate::duration;
use pintle_cri::{CriError, Runtime};
use std::time::Duration;

/// The output that an event shows.
const MAX_OUTPUT_BYTES: usize = 10 * 1024;

/// Success, or what the failure said.
pub async fn run(runtime: &dyn Runtime, id: &str, command: &[String], timeout: Duration) -> Result<(), Unhealthy> {
    let late = || format!("command timed out: {:?} timed out after {}", command.join(" "), duration::go(timeout));
    let seconds = timeout.as_secs().max(1);
    // The runtime keeps the time; ours only guards against one that does not.
    let guard = timeout + Duration::from_secs(5);
    match tokio::time::timeout(guard, runtime.exec_sync(id, command, seconds)).await {
        Err(_) | Ok(Err(CriError::DeadlineExceeded(_))) => Err(Unhealthy::Failed(late())),
        Ok(Err(error)) => Err(Unhealthy::Errored(error.to_string())),
        Ok(Ok(result)) if result.exit_code == 0 => Ok(()),
        Ok(Ok(result)) => {
            let output = [result.stdout, result.stderr].concat();
            let shown = String::from_utf8_lossy(&output[..output.len().min(MAX_OUTPUT_BYTES)]);
            Err(Unhealthy::Failed(shown.into_owned()))
        }
    }
}
