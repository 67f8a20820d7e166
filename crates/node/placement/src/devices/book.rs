//! Who has which devices, and the file in which it is kept over restarts.
//!
//! The file's form is upstream's `kubelet_internal_checkpoint`; its checksum is our own.

use super::messages::ContainerAllocateResponse;
use super::pool::Ids;
use super::{DeviceError, Wish};
use crate::checkpoint::{self, CheckpointError};
use crate::cpu_set::CpuSet;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pintle_grpc::Message;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SUM: &str = "Checksum";
/// What upstream puts devices under that are near to no node.
const NO_NODE: &str = "-1";

/// What one container has of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) ids: BTreeMap<String, CpuSet>,
    pub(super) answer: ContainerAllocateResponse,
}

impl Entry {
    /// Whether it is what is wished for.
    pub(super) fn check(&self, wish: &Wish<'_>) -> Result<(), DeviceError> {
        if u64::try_from(self.ids.len()) == Ok(wish.count) {
            return Ok(());
        }
        Err(DeviceError::Changed {
            pod: wish.uid.to_owned(),
            container: wish.container.to_owned(),
            resource: wish.resource.to_owned(),
            had: self.ids.len(),
            wanted: wish.count,
        })
    }
}

/// By pod, container and resource.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<(String, String, String), Entry>);

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Option<Vec<Line>>,
    registered_devices: Option<BTreeMap<String, BTreeSet<String>>>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(rename = "PodUID")]
    uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    /// By the node that they are near to.
    #[serde(rename = "DeviceIDs")]
    ids: BTreeMap<String, Vec<String>>,
    #[serde(rename = "AllocResp")]
    answer: String,
}

impl Book {
    /// With the names of the resources that were registered.
    pub(super) fn read(path: &Path) -> Result<(Self, Vec<String>), CheckpointError> {
        let file: File = checkpoint::read(path, SUM)?.unwrap_or_default();
        let mut book = Self::default();
        for line in file.data.pod_device_entries.unwrap_or_default() {
            let corrupt = |why: String| CheckpointError::Corrupt { path: path.to_owned(), why };
            let bytes = STANDARD.decode(&line.answer).map_err(|e| corrupt(e.to_string()))?;
            let answer = pintle_grpc::decode(&bytes).map_err(|e| corrupt(e.to_string()))?;
            let mut ids: BTreeMap<String, CpuSet> = BTreeMap::new();
            for (node, list) in line.ids {
                let node: CpuSet = node.parse::<u32>().ok().into_iter().collect();
                for id in list {
                    let nodes = ids.entry(id).or_default();
                    *nodes = nodes.union(&node);
                }
            }
            book.0.insert((line.uid, line.container, line.resource), Entry { ids, answer });
        }
        let known = file.data.registered_devices.unwrap_or_default().into_keys().collect();
        Ok((book, known))
    }

    pub(super) fn write<'a>(
        &self,
        path: &Path,
        known: impl Iterator<Item = (&'a String, Ids)>,
    ) -> Result<(), CheckpointError> {
        let line = |((uid, container, resource), entry): (&(String, String, String), &Entry)| {
            let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (id, nodes) in &entry.ids {
                let mut names: Vec<String> = nodes.iter().map(|node| node.to_string()).collect();
                if names.is_empty() {
                    names.push(NO_NODE.to_owned());
                }
                names.into_iter().for_each(|node| ids.entry(node).or_default().push(id.clone()));
            }
            let answer = STANDARD.encode(entry.answer.encode());
            Line { uid: uid.clone(), container: container.clone(), resource: resource.clone(), ids, answer }
        };
        let pod_device_entries = Some(self.0.iter().map(line).collect());
        let registered_devices = Some(known.map(|(name, ids)| (name.clone(), ids)).collect());
        checkpoint::write(path, &File { data: Data { pod_device_entries, registered_devices } }, SUM)
    }

    pub(super) fn insert(&mut self, uid: &str, container: &str, resource: &str, entry: Entry) {
        self.0.insert((uid.to_owned(), container.to_owned(), resource.to_owned()), entry);
    }

    pub(super) fn get(&self, uid: &str, container: &str, resource: &str) -> Option<&Entry> {
        self.0.get(&(uid.to_owned(), container.to_owned(), resource.to_owned()))
    }

    /// What a container has, by resource.
    pub(super) fn of<'a>(&'a self, uid: &'a str, container: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let from = (uid.to_owned(), container.to_owned(), String::new());
        let own = self.0.range(from..).take_while(move |((u, c, _), _)| u == uid && c == container);
        own.map(|((_, _, resource), entry)| (resource.as_str(), entry))
    }

    /// What is somebody's, but for what those containers of a pod had before.
    pub(super) fn used(&self, resource: &str, uid: &str, before: &[&str]) -> Ids {
        let theirs = |u: &str, c: &str| u == uid && before.contains(&c);
        let of = self.0.iter().filter(|((u, c, name), _)| name == resource && !theirs(u, c));
        of.flat_map(|(_, entry)| entry.ids.keys().cloned()).collect()
    }

    /// Says whether something went.
    pub(super) fn retain(&mut self, stays: impl Fn(&str) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|(uid, _, _), _| stays(uid));
        self.0.len() != before
    }
}
