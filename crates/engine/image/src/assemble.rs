//! Makes an image from a few files: how the images that pintle brings with it come into the store.

use crate::blobs::digest_of;
use crate::layer::chain_ids;
use crate::record::{ImageRecord, LayerRecord};
use crate::store::{ImageStore, NewImage, manifest_json};
use crate::{ImageError, Reference, Result};
use serde_json::{Value, json};

/// A file of an image.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinFile<'a> {
    /// Without the leading slash.
    pub path: &'a str,
    pub mode: u32,
    pub content: &'a [u8],
}

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct BuiltinImage<'a> {
    pub reference: &'a str,
    pub files: &'a [BuiltinFile<'a>],
    /// The `config` object of the image configuration: `Entrypoint`, `ExposedPorts`, …
    pub config: Value,
}

fn layer_tar(files: &[BuiltinFile<'_>]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder.append_data(&mut header, file.path, file.content)?;
    }
    builder.into_inner()
}

impl ImageStore {
    /// Puts an image into the store and gives it its name. The same files make the same image: again costs nothing.
    pub fn install(&self, image: &BuiltinImage<'_>) -> Result<ImageRecord> {
        let reference: Reference = image.reference.parse()?;
        let tar = layer_tar(image.files).map_err(|e| ImageError::BadArchive(e.to_string()))?;
        let diff_id = digest_of(&tar);
        let configuration = json!({
            "architecture": oci_architecture(),
            "os": "linux",
            "config": image.config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created_by": "pintle" }],
        });
        let configuration = configuration.to_string().into_bytes();
        let id = digest_of(&configuration);
        if let Some(present) = self.resolve(&reference.to_string()).filter(|r| r.id == id) {
            return Ok(present);
        }
        let layer = self.blobs().put(&tar)?;
        self.blobs().put(&configuration)?;
        let layers = vec![LayerRecord { digest: layer, diff_id: diff_id.clone(), size: tar.len() as u64, content: 0 }];
        let manifest = manifest_json(&id, configuration.len() as u64, &layers);
        let manifest = self.blobs().put(&manifest)?;
        let (chain, tags) = (chain_ids(&[diff_id]), vec![reference.to_string()]);
        self.add(NewImage { id, manifest, layers, chain, configuration, tags, parent: None })
    }
}

/// This machine's architecture in the words of the image specification.
pub(crate) fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
