//! Makes images of what containers wrote, and of archives of a whole root file system.

use crate::blobs::Hashing;
use crate::configuration::{Addition, EMPTY_LAYER, child};
use crate::decompress::{Compression, sniff};
use crate::entries::broken;
use crate::layer::chain_ids;
use crate::record::{ImageRecord, LayerRecord};
use crate::store::{NewImage, manifest_json, now};
use crate::tree::{Change, Form, Plan, plan};
use crate::{At, ImageError, ImageStore, Reference, Result, SnapshotMounts, tarball};
use rustix::fs as rfs;
use serde_json::Value;
use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

const MAX_CONFIGURATION: u64 = 8 << 20;

/// Where the new layer of an image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitSource<'a> {
    /// A container's own layer, which stays as it is.
    Snapshot(&'a str),
    /// A layer that nobody will use again: it becomes the image's without a copy. Nothing may have it mounted.
    Spent(&'a str),
    /// A layer of another image here, by its place: what is below it must be the parent's layers.
    Of { image: &'a str, layer: usize },
    /// Only the configuration changes.
    Nothing,
}

/// A new image on top of another.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    pub source: CommitSource<'a>,
    /// The image below, by id or name.
    pub parent: Option<&'a str>,
    /// Docker's `Config` object, complete.
    pub config: Value,
    /// More members of the configuration: `container`, `container_config`, `docker_version`; or null.
    pub extra: Value,
    /// The command that made it.
    pub created_by: &'a str,
    pub author: &'a str,
    pub comment: &'a str,
    /// RFC 3339; empty is now.
    pub created: &'a str,
    pub tag: Option<Reference>,
}

impl Default for Commit<'_> {
    fn default() -> Self {
        Self {
            source: CommitSource::Nothing,
            parent: None,
            config: Value::Object(Default::default()),
            extra: Value::Null,
            created_by: "",
            author: "",
            comment: "",
            created: "",
            tag: None,
        }
    }
}

/// A new image of one layer.
#[derive(Clone, Debug, Default)]
pub struct Import<'a> {
    /// Docker's `Config` object; see [`crate::apply_changes`].
    pub config: Value,
    pub extra: Value,
    /// `Imported from -` by default.
    pub comment: &'a str,
    /// RFC 3339; empty is now.
    pub created: &'a str,
    pub tag: Option<Reference>,
}

/// A layer that is in the store, with the chain ID of its place.
struct NewLayer {
    record: LayerRecord,
    chain_id: String,
}

impl ImageStore {
    /// The configuration of an image as it was written, with what the typed form has no place for.
    pub fn configuration_json(&self, id: &str) -> Result<Value> {
        let bytes = self.blobs().read(id, MAX_CONFIGURATION)?;
        serde_json::from_slice(&bytes).map_err(|e| ImageError::BadArchive(format!("the configuration {id}: {e}")))
    }

    /// What a container changed, as `docker diff` lists it.
    pub fn diff(&self, key: &str) -> Result<Vec<Change>> {
        let (_, plan) = self.plan_of(key)?;
        let change = |item: crate::tree::Planned| {
            let path = format!("/{}", item.path.display());
            item.kind.map(|kind| Change { path, kind })
        };
        Ok(plan.items.into_iter().filter_map(change).collect())
    }

    /// Writes a container's whole root file system as a tar stream.
    pub fn export(&self, key: &str, target: impl Write) -> Result<()> {
        let mounts = self.snapshot_mounts(key)?;
        tarball::write_merged(&mounts.upper, &mounts.lower, target)
    }

    /// Makes an image of what a container wrote, or of a new configuration alone.
    pub fn commit(&self, commit: &Commit<'_>) -> Result<ImageRecord> {
        let _held = self.hold();
        let find = |name: &str| self.resolve(name).ok_or_else(|| ImageError::NotFound(name.into()));
        let parent = commit.parent.map(find).transpose()?;
        let below = parent.as_ref().map(|p| p.chain.clone()).unwrap_or_default();
        let layer = match commit.source {
            CommitSource::Nothing => None,
            CommitSource::Of { image, layer } => Some(borrowed(&find(image)?, layer, &below)?),
            CommitSource::Snapshot(key) => self.layer_of(key, &below, false)?,
            CommitSource::Spent(key) => self.layer_of(key, &below, true)?,
        };
        let parent_configuration = parent.as_ref().map(|p| self.configuration_json(&p.id)).transpose()?;
        let created = if commit.created.is_empty() { now() } else { commit.created.to_owned() };
        let configuration = child(
            parent_configuration.as_ref(),
            &Addition {
                diff_id: layer.as_ref().map(|l| l.record.diff_id.as_str()),
                created: &created,
                created_by: commit.created_by,
                author: commit.author,
                comment: commit.comment,
                config: &commit.config,
                extra: &commit.extra,
            },
        );
        self.list_new(&configuration, parent.as_ref(), layer, commit.tag.as_ref())
    }

    /// Makes an image of an archive of a root file system, compressed or not.
    pub fn import(&self, source: impl Read + Send, import: &Import<'_>) -> Result<ImageRecord> {
        let _held = self.hold();
        let layer = self.take_layer(source)?;
        let created = if import.created.is_empty() { now() } else { import.created.to_owned() };
        let comment = if import.comment.is_empty() { "Imported from -" } else { import.comment };
        let addition = Addition {
            diff_id: Some(&layer.record.diff_id),
            created: &created,
            created_by: "",
            author: "",
            comment,
            config: if import.config.is_null() { &Value::Object(Default::default()) } else { &import.config },
            extra: &import.extra,
        };
        let configuration = child(None, &addition);
        self.list_new(&configuration, None, Some(layer), import.tag.as_ref())
    }

    fn list_new(
        &self,
        configuration: &Value,
        parent: Option<&ImageRecord>,
        layer: Option<NewLayer>,
        tag: Option<&Reference>,
    ) -> Result<ImageRecord> {
        let configuration = configuration.to_string().into_bytes();
        let id = self.blobs().put(&configuration)?;
        let mut layers = parent.map(|p| p.layers.clone()).unwrap_or_default();
        let mut chain = parent.map(|p| p.chain.clone()).unwrap_or_default();
        if let Some(layer) = layer {
            layers.push(layer.record);
            chain.push(layer.chain_id);
        }
        let manifest = self.blobs().put(&manifest_json(&id, configuration.len() as u64, &layers))?;
        let tags = tag.map(Reference::to_string).into_iter().collect();
        let parent = parent.map(|p| p.id.clone());
        self.add(NewImage { id, manifest, layers, chain, configuration, tags, parent })
    }

    /// The layer of what a container wrote; nothing when it wrote nothing.
    fn layer_of(&self, key: &str, below: &[String], spent: bool) -> Result<Option<NewLayer>> {
        if self.snapshot_chain(key)? != below {
            return Err(ImageError::Conflict(format!(
                "the snapshot {key} stands on other layers than its parent image"
            )));
        }
        let (mounts, plan) = self.plan_of(key)?;
        if plan.items.is_empty() {
            return Ok(None);
        }
        let record = self.write_layer(&plan, &mounts)?;
        if record.diff_id == EMPTY_LAYER {
            return Ok(None);
        }
        let chain_id = next_chain(below, &record.diff_id);
        if spent {
            // Of a copy the layer is unpacked like any other.
            if !mounts.lower.is_empty() || below.is_empty() {
                self.keep_upper(&plan, &mounts, &chain_id)?;
            }
            self.remove_snapshot(key)?;
        }
        Ok(Some(NewLayer { record, chain_id }))
    }

    /// What differs in a snapshot.
    pub(crate) fn plan_of(&self, key: &str) -> Result<(SnapshotMounts, Plan)> {
        let mounts = self.snapshot_mounts(key)?;
        let form = if mounts.lower.is_empty() { Form::Whole } else { Form::Changes };
        let plan = plan(&mounts.upper, &self.layers_below(key)?, form)?;
        Ok((mounts, plan))
    }

    fn write_layer(&self, plan: &Plan, mounts: &SnapshotMounts) -> Result<LayerRecord> {
        let ingest = self.root().join("ingest");
        let temporary = tempfile::NamedTempFile::new_in(&ingest).at("create a file in", &ingest)?;
        let mut hashing = Hashing::new(BufWriter::with_capacity(256 << 10, temporary.as_file()));
        tarball::write_layer(plan, &mounts.upper, &mut hashing)?;
        let (digest, size, mut buffered) = hashing.finish();
        buffered.flush().at("write", temporary.path())?;
        drop(buffered);
        let path = self.blobs().path(&digest);
        temporary.persist(&path).map_err(|e| e.error).at("rename to", &path)?;
        Ok(LayerRecord { diff_id: digest.clone(), digest, size, content: 0 })
    }

    /// Makes a container's own layer one of the store's: it is in the right form already.
    fn keep_upper(&self, plan: &Plan, mounts: &SnapshotMounts, chain_id: &str) -> Result<()> {
        let target = self.layers().path(chain_id);
        if target.exists() {
            return Ok(());
        }
        for path in plan.generated.iter().rev() {
            let path = mounts.upper.join(path);
            let removed = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            removed.at("remove", &path)?;
        }
        strip(&mounts.upper)?;
        fs::rename(&mounts.upper, &target).at("rename to", &target)
    }

    /// Stores and unpacks the lowest layer of an image from a stream whose digests nobody knows yet.
    fn take_layer(&self, source: impl Read + Send) -> Result<NewLayer> {
        let ingest = self.root().join("ingest");
        let directory = tempfile::tempdir_in(&ingest).at("create a directory in", &ingest)?;
        let (compression, whole) = sniff(source).map_err(broken)?;
        // No reader of layers knows the others.
        let mut kept: Box<dyn Read> = match compression {
            Compression::Program(_) => compression.decompress(whole).map_err(broken)?,
            _ => Box::new(whole),
        };
        let (digest, size) = self.blobs().ingest_from(&mut kept, None)?;
        let root = directory.path().join("fs");
        fs::create_dir(&root).at("create", &root)?;
        let (diff_id, content) = self.layers().unpack_to(&self.blobs().path(&digest), &root)?;
        self.layers().place(&root, &diff_id, content)?;
        Ok(NewLayer { chain_id: diff_id.clone(), record: LayerRecord { digest, diff_id, size, content } })
    }
}

/// A layer that an image has on top of these.
fn borrowed(image: &ImageRecord, layer: usize, below: &[String]) -> Result<NewLayer> {
    let found = image.layers.get(layer).zip(image.chain.get(layer)).filter(|_| image.chain[..layer] == *below);
    let (record, chain_id) = found.ok_or_else(|| {
        ImageError::Conflict(format!("layer {layer} of the image {} stands on other layers", image.id))
    })?;
    Ok(NewLayer { record: record.clone(), chain_id: chain_id.clone() })
}

fn next_chain(below: &[String], diff_id: &str) -> String {
    match below.last() {
        None => diff_id.to_owned(),
        Some(last) => chain_ids(&[last.clone(), diff_id.to_owned()]).pop().unwrap_or_default(),
    }
}

/// Takes away what overlayfs noted for itself in a layer: where entries were copied from.
fn strip(directory: &Path) -> Result<()> {
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for name in ["trusted.overlay.origin", "trusted.overlay.impure"] {
            match rfs::lremovexattr(&next, name) {
                Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
                Err(e) => return Err(io::Error::from(e)).at("change", &next),
            }
        }
        for entry in fs::read_dir(&next).at("list", &next)? {
            let entry = entry.at("list", &next)?;
            let kind = entry.file_type().at("read", entry.path())?;
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                // Only directories and files that were copied up have it.
                let _ = rfs::lremovexattr(entry.path(), "trusted.overlay.origin");
            }
        }
    }
    Ok(())
}
