//! Sets logs aside that have grown large: CRI leaves that to those who ask for containers.
//!
//! As upstream's container log manager, it looks every ten seconds at the log of each running container, for nobody
//! tells how large they are. Files are named as the engine names its own: `0.log`, `0.log.1` and so on. Holds no state
//! but where the logs are, which it asks for again after a restart.

use crate::messages as m;
use parking_lot::Mutex;
use pintle_grpc::{CallError, SocketClient};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between two looks, as upstream's.
const PERIOD: Duration = Duration::from_secs(10);
/// Of each log, with the one that is written to, as upstream's.
const KEPT_FILES: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(120);
/// The number of `CONTAINER_RUNNING`.
const RUNNING: i32 = 1;

/// The task that does it, which begins once and ends with its owner.
pub(super) struct Logs {
    socket: Arc<SocketClient>,
    /// Nothing is done without.
    pub(super) max_bytes: Option<u64>,
    task: Mutex<JoinSet<()>>,
}

impl Logs {
    pub(super) fn new(socket: Arc<SocketClient>) -> Self {
        Self { socket, max_bytes: None, task: Mutex::default() }
    }

    pub(super) fn look_after(&self) {
        let Some(max_bytes) = self.max_bytes else { return };
        let mut task = self.task.lock();
        if task.is_empty() {
            task.spawn(Keeper { socket: Arc::clone(&self.socket), max_bytes, paths: HashMap::new() }.keep());
        }
    }
}

struct Keeper {
    socket: Arc<SocketClient>,
    max_bytes: u64,
    /// By the ids of the containers that ran at the last look.
    paths: HashMap<String, PathBuf>,
}

impl Keeper {
    async fn keep(mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the runtime can't be asked for its logs; trying again");
            }
        }
    }

    async fn look(&mut self) -> Result<(), CallError> {
        let state = Some(m::ContainerStateValue { state: RUNNING });
        let filter = Some(m::ContainerFilter { state, ..Default::default() });
        let running: m::ListContainersResponse =
            self.call("ListContainers", &m::ListContainersRequest { filter }).await?;
        let mut before = std::mem::take(&mut self.paths);
        for m::Container { id, .. } in running.containers {
            let path = match before.remove(&id) {
                Some(path) => path,
                None => self.path(&id).await?,
            };
            // A container without a log has nothing to set aside.
            if std::fs::metadata(&path).is_ok_and(|log| log.len() >= self.max_bytes) {
                self.rotate(&id, &path).await;
            }
            self.paths.insert(id, path);
        }
        Ok(())
    }

    async fn path(&self, id: &str) -> Result<PathBuf, CallError> {
        let asked = m::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let told: m::ContainerStatusResponse = self.call("ContainerStatus", &asked).await?;
        Ok(told.status.unwrap_or_default().log_path.into())
    }

    /// Where that fails the log grows on until it is tried again.
    async fn rotate(&self, id: &str, path: &Path) {
        if let Err(error) = set_aside(path) {
            return tracing::warn!(%error, path = %path.display(), "a container's log can't be set aside");
        }
        let asked = m::ReopenContainerLogRequest { container_id: id.to_owned() };
        let opened: Result<m::ReopenContainerLogResponse, _> = self.call("ReopenContainerLog", &asked).await;
        if let Err(error) = opened {
            tracing::warn!(%error, id, "a container's log can't be opened anew");
            // The runtime writes on into what was set aside: readers are to find it.
            if !path.exists()
                && let Err(error) = std::fs::rename(aside(path, 1), path)
            {
                tracing::warn!(%error, path = %path.display(), "a container's log can't be put back");
            }
        }
    }

    async fn call<Q: pintle_grpc::Message, A: pintle_grpc::Message>(
        &self,
        verb: &str,
        asked: &Q,
    ) -> Result<A, CallError> {
        self.socket.call(&format!("/runtime.v1.RuntimeService/{verb}"), asked, Some(TIMEOUT)).await
    }
}

fn aside(path: &Path, number: u32) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

/// Renames a log to `<path>.1`, after the older ones made room; the oldest goes.
fn set_aside(path: &Path) -> io::Result<()> {
    for number in (1..KEPT_FILES - 1).rev() {
        match std::fs::rename(aside(path, number), aside(path, number + 1)) {
            // There are fewer of them at first.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, aside(path, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_logs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        for text in ["one", "two", "three", "four", "five", "six"] {
            std::fs::write(&path, text).unwrap();
            set_aside(&path).unwrap();
        }
        assert!(!path.exists() && !aside(&path, KEPT_FILES).exists());
        let kept: Vec<String> = (1..KEPT_FILES).map(|n| std::fs::read_to_string(aside(&path, n)).unwrap()).collect();
        assert_eq!(kept, ["six", "five", "four", "three"]);
        assert!(set_aside(&path).is_err());
    }
}
