//! Compresses layers that were made here, before they travel: a registry should not keep plain archives.

use crate::blobs::Hashing;
use crate::record::{ImageRecord, LayerRecord};
use crate::store::manifest_json;
use crate::{At, ImageError, ImageStore, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};

impl ImageStore {
    /// Replaces the plain layers of an image by compressed ones, in all images that have them; the images keep their
    /// ids and get new manifests. The caller holds a lease. Returns the image as it is then.
    pub fn compress_layers(&self, id: &str) -> Result<ImageRecord> {
        let image = self.resolve(id).ok_or_else(|| ImageError::NotFound(id.into()))?;
        let plain: Vec<&LayerRecord> = image.layers.iter().filter(|l| l.digest == l.diff_id).collect();
        if plain.is_empty() {
            return Ok(image);
        }
        let compressed: Vec<Result<(String, u64)>> = std::thread::scope(|scope| {
            let work: Vec<_> = plain.iter().map(|layer| scope.spawn(|| self.compress(&layer.digest))).collect();
            work.into_iter().map(|w| w.join().expect("compressing does not panic")).collect()
        });
        let mut replaced = HashMap::new();
        for (layer, compressed) in plain.iter().zip(compressed) {
            replaced.insert(layer.digest.clone(), compressed?);
        }
        self.change(|images| {
            for image in images.values_mut() {
                self.replace(image, &replaced)?;
            }
            Ok(())
        })?;
        self.resolve(id).ok_or_else(|| ImageError::NotFound(id.into()))
    }

    fn compress(&self, digest: &str) -> Result<(String, u64)> {
        let path = self.blobs().path(digest);
        let mut source = BufReader::with_capacity(256 << 10, File::open(&path).at("open", &path)?);
        let ingest = self.root().join("ingest");
        let temporary = tempfile::NamedTempFile::new_in(&ingest).at("create a file in", &ingest)?;
        let hashing = Hashing::new(temporary.as_file());
        let mut encoder = flate2::write::GzEncoder::new(hashing, flate2::Compression::default());
        crate::entries::copy(source.by_ref(), |piece| encoder.write_all(piece)).at("compress", &path)?;
        let (compressed, size, _) = encoder.finish().at("compress", &path)?.finish();
        let target = self.blobs().path(&compressed);
        temporary.persist(&target).map_err(|e| e.error).at("rename to", &target)?;
        Ok((compressed, size))
    }

    fn replace(&self, image: &mut ImageRecord, replaced: &HashMap<String, (String, u64)>) -> Result<()> {
        if !image.layers.iter().any(|l| replaced.contains_key(&l.digest)) {
            return Ok(());
        }
        for layer in &mut image.layers {
            if let Some((digest, size)) = replaced.get(&layer.digest) {
                layer.digest.clone_from(digest);
                layer.size = *size;
            }
        }
        let path = self.blobs().path(&image.id);
        let size = std::fs::metadata(&path).at("read", &path)?.len();
        let manifest = self.blobs().put(&manifest_json(&image.id, size, &image.layers))?;
        for digest in image.digests.iter_mut().filter(|d| !image.origins.contains(d)) {
            *digest = digest.replace(&image.manifest, &manifest);
        }
        image.manifest = manifest;
        image.size = image.layers.iter().map(|l| l.size).sum();
        Ok(())
    }
}
