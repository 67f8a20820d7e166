//! Gives each pod that does not use the machine's users a range of ids of its own, which it keeps over restarts.
//!
//! Source: `pkg/kubelet/userns`. A range is written down in the pod's directory before anything uses it, in the form in
//! which upstream writes it. Nothing is read before the first such pod comes.

use crate::reference::spec;
use parking_lot::Mutex;
use pintle_cri::IdMappings;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Ids of one pod.
const LENGTH: u32 = 65_536;
/// Ranges from the second on: the first is the machine's own, the last has the id that means nobody.
const SLOTS: std::ops::Range<u32> = 1..u32::MAX / LENGTH;
const FILE: &str = "userns";
/// A file of ours is much shorter.
const MAX_FILE_BYTES: u64 = 4096;

/// The ranges of a node's pods.
pub struct UserNamespaces {
    pods_dir: PathBuf,
    /// Slots by the uid of the pod; nothing before they were read from the pods' directories.
    taken: Mutex<Option<HashMap<String, u32>>>,
}

impl UserNamespaces {
    /// For pods whose directories are in `pods_dir`.
    pub fn new(pods_dir: PathBuf) -> Self {
        Self { pods_dir, taken: Mutex::default() }
    }

    /// The pod's own users and groups, chosen now if need be; empty when it uses the machine's.
    pub fn of(&self, pod: &Pod) -> Result<IdMappings, String> {
        if !is_wanted(pod) {
            return Ok(IdMappings::default());
        }
        let mut taken = self.taken.lock();
        let taken = taken.get_or_insert_with(|| read_all(&self.pods_dir));
        let slot = match taken.get(pod.uid()) {
            Some(slot) => *slot,
            None => {
                let slot = free(taken)
                    .ok_or("create user namespace: could not find an empty slot to allocate a user namespace")?;
                let dir = self.pods_dir.join(pod.uid());
                write(&dir, slot).map_err(|e| format!("create user namespace: {}: {e}", dir.display()))?;
                taken.insert(pod.uid().to_owned(), slot);
                slot
            }
        };
        Ok(IdMappings::from_root(slot * LENGTH, LENGTH))
    }

    /// The range of a pod is free again: nothing of the pod runs any more.
    pub fn release(&self, uid: &str) {
        if let Some(taken) = self.taken.lock().as_mut() {
            taken.remove(uid);
        }
        // Most pods have none, and it may have gone with the pod's directory.
        let _ = std::fs::remove_file(self.pods_dir.join(uid).join(FILE));
    }
}

/// Whether a pod does not use the machine's users.
pub fn is_wanted(pod: &Pod) -> bool {
    spec(pod).host_users == Some(false)
}

/// Why a runtime can't run pods with users of their own, in upstream's words.
pub fn unsupported(handler: &str) -> String {
    match handler {
        "" => "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned(),
        name => {
            format!("can't set `spec.hostUsers: false`, RuntimeClass handler {name:?} does not support user namespaces")
        }
    }
}

fn free(taken: &HashMap<String, u32>) -> Option<u32> {
    let used: std::collections::HashSet<u32> = taken.values().copied().collect();
    SLOTS.into_iter().find(|slot| !used.contains(slot))
}

fn write(dir: &Path, slot: u32) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let new = dir.join("userns.new");
    std::fs::write(&new, written(slot).to_string())?;
    std::fs::rename(new, dir.join(FILE))
}

/// What upstream writes of a range.
fn written(slot: u32) -> Value {
    let mapping = json!([{"hostId": slot * LENGTH, "containerId": 0, "length": LENGTH}]);
    json!({"uidMappings": mapping, "gidMappings": mapping})
}

fn read_all(pods_dir: &Path) -> HashMap<String, u32> {
    let entries = std::fs::read_dir(pods_dir).into_iter().flatten().flatten();
    let read = entries.filter_map(|entry| {
        let slot = read(&entry.path().join(FILE))?;
        Some((entry.file_name().to_string_lossy().into_owned(), slot))
    });
    read.collect()
}

/// The slot that a file tells; nothing when there is none, or it is not one of ours.
fn read(file: &Path) -> Option<u32> {
    let text = crate::container_config::read_bounded(file, MAX_FILE_BYTES).ok().filter(|text| !text.is_empty())?;
    let parse = || {
        let told: Value = serde_json::from_str(&text).ok()?;
        let first = u32::try_from(told["uidMappings"][0]["hostId"].as_u64()?).ok()?;
        let slot = first / LENGTH;
        (SLOTS.contains(&slot) && told == written(slot)).then_some(slot)
    };
    let slot = parse();
    if slot.is_none() {
        tracing::warn!(?file, "a pod's user namespace is written down in a way that is not ours; it gets another");
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::named;
    use serde_json::json;

    fn pod(uid: &str, host_users: Option<bool>) -> Pod {
        named("p", uid, json!({"hostUsers": host_users, "containers": [{"name": "c"}]}))
    }

    #[test]
    fn each_pod_has_a_range_that_it_keeps_and_gives_back() {
        let dir = crate::fake::temporary_directory();
        let first = |users: &UserNamespaces, uid: &str| users.of(&pod(uid, Some(false))).unwrap().users[0].outside;
        let users = UserNamespaces::new(dir.path().to_owned());
        assert!(users.of(&pod("m", None)).unwrap().is_empty() && users.of(&pod("m", Some(true))).unwrap().is_empty());
        assert!(!dir.path().join("m").exists(), "what is not asked for leaves nothing behind");
        assert_eq!([first(&users, "a"), first(&users, "b"), first(&users, "a")], [65_536, 131_072, 65_536]);
        let again = UserNamespaces::new(dir.path().to_owned());
        assert_eq!(first(&again, "c"), 196_608, "the others' ranges are known after a restart");
        again.release("a");
        assert!(!dir.path().join("a").join(FILE).exists());
        assert_eq!([first(&again, "d"), first(&again, "b")], [65_536, 131_072]);
    }

    #[test]
    fn what_upstream_wrote_is_read_and_nothing_else() {
        let dir = crate::fake::temporary_directory();
        let file = dir.path().join(FILE);
        let text = |host: u32, inside: u32| {
            let list = format!("[{{\"hostId\":{host},\"containerId\":{inside},\"length\":65536}}]");
            format!("{{\"uidMappings\":{list},\"gidMappings\":{list}}}")
        };
        for (content, slot) in [
            (text(131_072, 0), Some(2)),
            (text(0, 0), None),
            (text(65_537, 0), None),
            (text(65_536, 1), None),
            ("{".into(), None),
        ] {
            std::fs::write(&file, &content).unwrap();
            assert_eq!(read(&file), slot, "{content}");
        }
    }
}
