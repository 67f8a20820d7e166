//! Runs the hooks of containers: commands, requests, or a pause, after the start and before the stop.

use crate::host::Host;
use crate::probe::http::{Target, get};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, LifecycleHandler, Pod};
use std::time::Duration;

/// How long a hook's request may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one hook to its end. The error is what an event tells.
pub async fn run(
    host: &Host,
    pod: &Pod,
    container: &Container,
    container_id: &str,
    ips: &[String],
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let done = host.runtime.exec_sync(container_id, &command, 0).await;
        return match done {
            Ok(result) if result.exit_code == 0 => Ok(()),
            Ok(result) => {
                let output = [result.stdout, result.stderr].concat();
                let output = String::from_utf8_lossy(&output[..output.len().min(1024)]).into_owned();
                Err(format!("command '{}' exited with {}: {output:?}", command.join(" "), result.exit_code))
            }
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(action) = &hook.http_get {
        let target =
            Target::of_action(action, container, ips.first().map_or("", String::as_str), "kube-lifecycle/1.36")?;
        return get(&target, HTTP_TIMEOUT).await.map(|_| ());
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())).await;
        return Ok(());
    }
    Err(format!("invalid handler: container {} of pod {} has no known hook action", container.name, pod.name()))
}
