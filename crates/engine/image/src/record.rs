//! What the store's index says of an image.

use crate::reference::is_digest;
use crate::{At, ImageError, Reference, Result};
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

pub(crate) type Images = BTreeMap<String, ImageRecord>;

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Of the blob, compressed or not.
    pub digest: String,
    /// Of the uncompressed content.
    pub diff_id: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of its files, unpacked.
    #[serde(default)]
    pub content: u64,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Complete names with tags, such as `docker.io/library/redis:7`.
    pub tags: Vec<String>,
    /// `repository@sha256:…` of the manifest, for each repository that it has a name in or came from.
    pub digests: Vec<String>,
    /// Those of them that a registry knows: pulled from there, or pushed to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// The image that it was committed or built on here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When it got a name last (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tagged: Option<String>,
    /// Bytes of its blobs.
    pub size: u64,
    pub configuration: Arc<ImageConfiguration>,
    /// Lowest first.
    pub chain: Vec<String>,
    pub(crate) manifest: String,
    pub(crate) layers: Vec<LayerRecord>,
    /// The boot of the machine under which its files were written, until they are known to be on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settling: Option<String>,
}

impl ImageRecord {
    /// The digest of its manifest.
    pub fn manifest(&self) -> &str {
        &self.manifest
    }

    /// The digests and sizes of its layers' blobs, lowest first.
    pub fn layers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.layers.iter().map(|layer| (layer.digest.as_str(), layer.size))
    }

    /// Its layers, lowest first.
    pub fn layer_records(&self) -> &[LayerRecord] {
        &self.layers
    }

    /// Bytes of its files, unpacked: the size that `docker images` shows.
    pub fn unpacked_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.content).sum()
    }

    /// When it was made, in seconds since 1970; 0 where it does not say.
    pub fn created_seconds(&self) -> i64 {
        let text = self.configuration.created().as_deref().unwrap_or_default();
        text.parse::<pintle_clock::Timestamp>().map_or(0, |time| time.as_second())
    }

    /// Whether nothing names it.
    pub fn is_dangling(&self) -> bool {
        self.tags.is_empty()
    }

    /// Everything that names it: tags, and the digests that registries know it by.
    pub(crate) fn references(&self) -> Vec<String> {
        let mut all: Vec<String> = self.tags.iter().chain(&self.origins).cloned().collect();
        all.sort();
        all
    }

    /// Takes one name away, whichever kind it is.
    pub(crate) fn forget(&mut self, reference: &str) {
        self.tags.retain(|t| t != reference);
        self.origins.retain(|o| o != reference);
        self.digests.retain(|d| d != reference);
    }
}

pub(crate) fn read_index(path: &Path) -> Result<Images> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Images::new()),
        other => other.at("read", path)?,
    };
    let list: Vec<ImageRecord> = serde_json::from_slice(&bytes)
        .map_err(|e| ImageError::BadIndex { path: path.to_owned(), why: e.to_string() })?;
    Ok(list.into_iter().map(|record| (record.id.clone(), record)).collect())
}

/// Takes names away from the images that have them.
pub(crate) fn take_names(images: &mut Images, names: &[String]) {
    for image in images.values_mut() {
        image.tags.retain(|tag| !names.contains(tag));
    }
}

/// An image by its id, by a name, by `name@digest`, or by the beginning of its id, in this order.
pub(crate) fn find<'a>(images: &'a Images, name: &str) -> Option<&'a ImageRecord> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let id = format!("sha256:{hex}");
    if is_digest(&id) {
        return images.get(&id);
    }
    let by_name = name.parse::<Reference>().ok().and_then(|reference| {
        let tag = reference.to_string();
        let known = Reference { tag: None, ..reference.clone() }.to_string();
        images.values().find(|image| match &reference.digest {
            Some(digest) => {
                image.digests.contains(&known)
                    || (*digest == image.manifest && image.digests.iter().any(|d| d.starts_with(&reference.name())))
            }
            None => image.tags.contains(&tag),
        })
    });
    by_name.or_else(|| by_short_id(images, hex))
}

fn by_short_id<'a>(images: &'a Images, hex: &str) -> Option<&'a ImageRecord> {
    if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let prefix = format!("sha256:{hex}");
    let mut matching = images.values().filter(|image| image.id.starts_with(&prefix));
    let first = matching.next();
    if matching.next().is_some() { None } else { first }
}
