//! Follows a directory (or one file) of manifests by inotify: the pods are told again whenever they change.

use super::manifest;
use pintle_clock::Clock;
use pintle_types::k8s::api::core::v1::Pod;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// Files that are read, in the order of their names.
const MAX_FILES: usize = 500;
const MAX_FILE_BYTES: u64 = 3 << 20;
/// After the directory could not be watched.
const RETRY: Duration = Duration::from_secs(5);

/// Where the manifests are and what is known of them.
pub struct Source {
    path: PathBuf,
    node: String,
    clock: Arc<dyn Clock>,
    /// The last good pod of each file, with the bytes that it came from.
    known: BTreeMap<PathBuf, (Vec<u8>, Option<Arc<Pod>>)>,
}

impl Source {
    pub fn new(path: PathBuf, node: String, clock: Arc<dyn Clock>) -> Self {
        Self { path, node, clock, known: BTreeMap::new() }
    }

    /// Tells all pods now and after every change, for ever.
    pub async fn follow(mut self, tell: impl Fn(Vec<Arc<Pod>>)) {
        loop {
            match watch(&self.path) {
                Ok(notices) => {
                    let error = loop {
                        // After the watch began, so that nothing is missed.
                        tell(self.read());
                        if let Err(error) = changed(&notices).await {
                            break error;
                        }
                    };
                    tracing::warn!(%error, path = ?self.path, "static pods can't be watched any more; trying again");
                }
                Err(error) => {
                    tracing::warn!(%error, path = ?self.path, "static pods can't be watched; trying again");
                    tell(self.read());
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The pods of all files. A file that is no pod (any more) keeps the one that it was before.
    fn read(&mut self) -> Vec<Arc<Pod>> {
        let files = files(&self.path);
        self.known.retain(|path, _| files.contains(path));
        for path in files {
            let Some(bytes) = bytes(&path) else { continue };
            if self.known.get(&path).is_some_and(|(known, _)| *known == bytes) {
                continue;
            }
            let before = self.known.remove(&path).and_then(|(_, pod)| pod);
            let pod = match manifest::pod(&bytes, &path, &self.node, self.clock.now()) {
                Ok(pod) => Some(Arc::new(pod)),
                Err(error) => {
                    tracing::warn!(%error, ?path, "a manifest of a static pod is not taken");
                    before
                }
            };
            self.known.insert(path, (bytes, pod));
        }
        self.known.values().filter_map(|(_, pod)| pod.clone()).collect()
    }
}

/// Regular files (or links to them) whose names do not begin with a dot.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let shown = |entry: &std::fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.filter(shown).map(|e| e.path()).filter(|p| p.is_file()).collect();
    files.sort();
    files.truncate(MAX_FILES);
    files
}

fn bytes(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn watch(path: &Path) -> std::io::Result<Receiver> {
    let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // The directory of a single file: editors put another file in its place.
    let dir = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let changes = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    add_watch(&fd, dir, changes)?;
    // Not a pipe, but read like one: tokio has no safe way to wait for other descriptors.
    Receiver::from_owned_fd_unchecked(fd)
}

/// Waits for a change; what it is does not matter.
async fn changed(notices: &Receiver) -> std::io::Result<()> {
    loop {
        notices.readable().await?;
        let mut buffer = [0u8; 4096];
        match notices.try_read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            result => return result.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_clock::SystemClock;
    use pintle_types::Kind;
    use tokio::sync::mpsc;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
        )
    }

    #[tokio::test]
    async fn files_that_come_change_and_go_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("a.yaml"), manifest("a")).unwrap();
        std::fs::write(file(".hidden"), manifest("hidden")).unwrap();
        let (sender, mut told) = mpsc::unbounded_channel();
        let source = Source::new(dir.path().to_owned(), "n1".into(), Arc::new(SystemClock));
        let following = tokio::spawn(source.follow(move |pods| {
            let names: Vec<String> = pods.iter().map(|p| p.name().to_owned()).collect();
            let _ = sender.send(names.join(" "));
        }));
        let mut until = async |wanted: &str| while told.recv().await.unwrap() != wanted {};
        until("a-n1").await;
        std::fs::write(file("b.yaml"), manifest("b")).unwrap();
        until("a-n1 b-n1").await;
        std::fs::write(file("b.yaml"), "nonsense: [").unwrap();
        std::fs::write(file("c.json"), manifest("c")).unwrap();
        until("a-n1 b-n1 c-n1").await;
        std::fs::rename(file("a.yaml"), file(".a")).unwrap();
        until("b-n1 c-n1").await;
        std::fs::remove_file(file("b.yaml")).unwrap();
        until("c-n1").await;
        following.abort();
    }
}
