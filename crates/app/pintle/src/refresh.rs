//! Lets what runs show new certificates: when it is told to, by a signal, and now and then by itself.

use crate::presence::Present;
use anyhow::{Context, Result};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Clocks that jump, and certificates that run out, are noticed by then.
const LOOK_AGAIN: Duration = Duration::from_secs(6 * 60 * 60);

/// Refreshes at SIGUSR1 and a few times a day, until `stop`. `refresh` names what changed.
pub(crate) async fn when_told(stop: CancellationToken, refresh: impl Fn() -> Result<Vec<&'static str>>) {
    let mut told = match signal(SignalKind::user_defined1()) {
        Ok(told) => told,
        Err(error) => {
            tracing::error!(%error, "new certificates are not noticed: signals can't be listened to");
            return;
        }
    };
    loop {
        tokio::select! {
            _ = told.recv() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = stop.cancelled() => return,
        }
        match refresh() {
            Ok(changed) if changed.is_empty() => {}
            Ok(changed) => tracing::info!(names = changed.join(", "), "certificates were renewed"),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "certificates can't be renewed"),
        }
    }
}

/// Tells a server or an agent that runs that there are new certificates.
pub(crate) fn tell(running: &Present) -> Result<()> {
    let told = rustix::process::kill_process(running.pid, rustix::process::Signal::USR1);
    told.with_context(|| format!("tell process {} of its new certificates", running.pid.as_raw_nonzero()))
}
