//! The image store: what images there are, under which names, and what of them is still in use.

use crate::assemble::oci_architecture;
use crate::blobs::Blobs;
use crate::layer::{Layers, chain_ids};
use crate::reference::is_sha256_hex;
use crate::snapshot::{SnapshotMounts, Snapshots};
use crate::{At, ImageError, Reference, Result, archive};
use oci_spec::image::ImageConfiguration;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const MAX_CONFIGURATION_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Of the blob, compressed or not.
    pub(crate) digest: String,
    /// Of the uncompressed content.
    pub(crate) diff_id: String,
    /// Bytes of the blob.
    pub(crate) size: u64,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Complete names with tags, such as `docker.io/library/redis:7`.
    pub tags: Vec<String>,
    /// `repository@sha256:…` of the manifest.
    pub digests: Vec<String>,
    /// Bytes of its blobs.
    pub size: u64,
    pub configuration: Arc<ImageConfiguration>,
    /// Lowest first.
    pub chain: Vec<String>,
    manifest: String,
    layers: Vec<LayerRecord>,
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
}

/// What `load` brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    pub id: String,
    pub tags: Vec<String>,
}

type Images = BTreeMap<String, ImageRecord>;

/// See the crate's documentation for what is where on the disk.
pub struct ImageStore {
    root: PathBuf,
    blobs: Blobs,
    layers: Layers,
    snapshots: Snapshots,
    images: Mutex<Images>,
    /// Held for reading while something is being brought in, for writing while what is unused is swept away.
    pub(crate) sweeping: parking_lot::RwLock<()>,
    /// How many are bringing something in over a longer time.
    pub(crate) leases: AtomicUsize,
}

impl ImageStore {
    /// Opens the store at a directory, which is made when missing, and drops what was half written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let ingest = root.join("ingest");
        match fs::remove_dir_all(&ingest) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at("empty", &ingest)?,
        }
        fs::create_dir_all(&ingest).at("create", &ingest)?;
        let images = read_index(&root.join("images.json"))?;
        let (blobs, layers, snapshots) = (Blobs::open(&root)?, Layers::open(&root)?, Snapshots::open(&root)?);
        let (sweeping, leases) = Default::default();
        Ok(Self { root, blobs, layers, snapshots, images: Mutex::new(images), sweeping, leases })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Loads a `docker save` archive or an OCI layout from a tar stream, compressed or not.
    pub fn load(&self, source: impl Read + Send) -> Result<Vec<LoadedImage>> {
        let _held = self.sweeping.read();
        let found = archive::ingest(source, &self.blobs, &self.root.join("ingest"))?;
        found.into_iter().map(|image| self.adopt(image)).collect()
    }

    pub(crate) fn adopt_found(&self, found: archive::Found) -> Result<LoadedImage> {
        let _held = self.sweeping.read();
        self.adopt(found)
    }

    /// Writes down which repository an image came from, and the digest that it has there.
    pub fn note_origin(&self, id: &str, origin: &Reference) -> Result<()> {
        let digest = origin.to_string();
        let mut images = self.images.lock();
        let mut changed = images.clone();
        let record = changed.get_mut(id).ok_or_else(|| ImageError::NotFound(id.into()))?;
        if record.digests.contains(&digest) {
            return Ok(());
        }
        record.digests.push(digest);
        self.write_index(&changed)?;
        *images = changed;
        Ok(())
    }

    /// Checks an image whose blobs are in the store, unpacks its layers, and lists it.
    fn adopt(&self, found: archive::Found) -> Result<LoadedImage> {
        let configuration_bytes = self.blobs.read(&found.configuration, MAX_CONFIGURATION_BYTES)?;
        let configuration = parse_configuration(&configuration_bytes)?;
        let diff_ids: Vec<String> = configuration.rootfs().diff_ids().clone();
        if diff_ids.len() != found.layers.len() {
            let (a, b) = (diff_ids.len(), found.layers.len());
            return Err(ImageError::BadArchive(format!("the configuration names {a} layers, the manifest {b}")));
        }
        let pairs = found.layers.into_iter().zip(&diff_ids);
        let layers: Vec<LayerRecord> =
            pairs.map(|((digest, size), diff)| LayerRecord { digest, diff_id: diff.clone(), size }).collect();
        let manifest = match found.manifest {
            Some(manifest) => manifest,
            None => {
                let size = configuration_bytes.len() as u64;
                self.blobs.put(&manifest_json(&found.configuration, size, &layers))?
            }
        };
        let tags: Vec<String> =
            found.names.iter().map(|n| Ok(n.parse::<Reference>()?.to_string())).collect::<Result<_>>()?;
        let chain = chain_ids(&diff_ids);
        let record = self.add(found.configuration, manifest, layers, chain, &configuration_bytes, tags.clone())?;
        Ok(LoadedImage { id: record.id, tags })
    }

    /// Unpacks an image's layers, several at once, and lists it under its names.
    pub(crate) fn add(
        &self,
        id: String,
        manifest: String,
        layers: Vec<LayerRecord>,
        chain: Vec<String>,
        configuration: &[u8],
        tags: Vec<String>,
    ) -> Result<ImageRecord> {
        let configuration = Arc::new(parse_configuration(configuration)?);
        check_platform(&configuration)?;
        self.unpack_all(&layers, &chain)?;
        self.sync()?;
        let mut images = self.images.lock();
        let mut changed = images.clone();
        take_names(&mut changed, &tags);
        let size = layers.iter().map(|l| l.size).sum();
        let record = changed.entry(id.clone()).or_insert_with(|| ImageRecord {
            id,
            tags: Vec::new(),
            digests: Vec::new(),
            size,
            configuration,
            chain,
            manifest: manifest.clone(),
            layers,
        });
        for tag in tags {
            let digest = format!("{}@{manifest}", tag.parse::<Reference>()?.name());
            if !record.digests.contains(&digest) {
                record.digests.push(digest);
            }
            record.tags.push(tag);
        }
        let record = record.clone();
        self.write_index(&changed)?;
        *images = changed;
        Ok(record)
    }

    fn unpack_all(&self, layers: &[LayerRecord], chain: &[String]) -> Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<()> {
            loop {
                let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (Some(layer), Some(chain)) = (layers.get(i), chain.get(i)) else { return Ok(()) };
                self.layers.unpack(&self.blobs.path(&layer.digest), chain, &layer.diff_id)?;
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(layers.len());
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            helpers.into_iter().map(|h| h.join().expect("unpacking does not panic")).fold(own, Result::and)
        })
    }

    /// Everything written so far survives a power cut.
    fn sync(&self) -> Result<()> {
        let directory = fs::File::open(&self.root).at("open", &self.root)?;
        rustix::fs::syncfs(&directory).at("sync", &self.root)
    }

    fn write_index(&self, images: &Images) -> Result<()> {
        let path = self.root.join("images.json");
        let list: Vec<&ImageRecord> = images.values().collect();
        let bytes =
            serde_json::to_vec(&list).map_err(|e| ImageError::BadIndex { path: path.clone(), why: e.to_string() })?;
        let temporary = tempfile::NamedTempFile::new_in(self.root.join("ingest")).at("create a file in", &self.root)?;
        fs::write(temporary.path(), bytes).at("write", temporary.path())?;
        temporary.as_file().sync_all().at("sync", temporary.path())?;
        temporary.persist(&path).map_err(|e| e.error).at("rename to", &path)?;
        Ok(())
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Vec<ImageRecord> {
        self.images.lock().values().cloned().collect()
    }

    /// Finds an image by a name, a `name@digest`, its id, or the beginning of its id.
    pub fn resolve(&self, name: &str) -> Option<ImageRecord> {
        find(&self.images.lock(), name).cloned()
    }

    /// Gives an image one more name; another image that had it loses it.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        let name = name.parse::<Reference>()?.to_string();
        let mut images = self.images.lock();
        let id = find(&images, image).map(|r| r.id.clone()).ok_or_else(|| ImageError::NotFound(image.into()))?;
        let mut changed = images.clone();
        take_names(&mut changed, std::slice::from_ref(&name));
        if let Some(record) = changed.get_mut(&id) {
            record.tags.push(name);
        }
        self.write_index(&changed)?;
        *images = changed;
        Ok(())
    }

    /// Takes a name away, and with its last name (or by its id) the image. Layers that a snapshot stands on stay.
    /// Returns the names and, when the image went, the id that were removed.
    pub fn remove(&self, name: &str) -> Result<Vec<String>> {
        let removed = {
            let mut images = self.images.lock();
            let record = find(&images, name).cloned().ok_or_else(|| ImageError::NotFound(name.into()))?;
            let complete = name.parse::<Reference>().map(|r| r.to_string()).ok();
            let one = complete.filter(|c| record.tags.len() > 1 && record.tags.contains(c));
            let mut changed = images.clone();
            let removed = match (one, changed.get_mut(&record.id)) {
                (Some(tag), Some(kept)) => {
                    kept.tags.retain(|t| *t != tag);
                    vec![tag]
                }
                _ => {
                    changed.remove(&record.id);
                    record.tags.into_iter().chain([record.id]).collect()
                }
            };
            self.write_index(&changed)?;
            *images = changed;
            removed
        };
        self.sweep()?;
        Ok(removed)
    }

    /// A writable layer for a container; the same one when asked again with the same key.
    pub fn prepare_snapshot(&self, key: &str, image_id: &str) -> Result<SnapshotMounts> {
        let _held = self.sweeping.read();
        let image = self.resolve(image_id).ok_or_else(|| ImageError::NotFound(image_id.into()))?;
        let lower = image.chain.iter().rev().map(|chain| self.layers.path(chain)).collect();
        self.snapshots.prepare(key, &image.chain, lower)
    }

    pub fn remove_snapshot(&self, key: &str) -> Result<()> {
        self.snapshots.remove(key)
    }

    pub fn snapshots(&self) -> Result<Vec<String>> {
        self.snapshots.keys()
    }

    /// Bytes and files that a container wrote into its own layer.
    pub fn snapshot_usage(&self, key: &str) -> Result<(u64, u64)> {
        self.snapshots.usage(key)
    }

    /// Removes the blobs and layers that no image names and no snapshot stands on. While something is brought in
    /// nothing goes: a later sweep takes it.
    pub fn sweep(&self) -> Result<()> {
        let _alone = self.sweeping.write();
        if self.leases.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let mut chains = self.snapshots.used_chains()?;
        let mut blobs = HashSet::new();
        for image in self.images.lock().values() {
            chains.extend(image.chain.iter().cloned());
            blobs.extend([image.id.clone(), image.manifest.clone()]);
            blobs.extend(image.layers.iter().map(|l| l.digest.clone()));
        }
        self.layers.sweep(&chains)?;
        self.blobs.sweep(&blobs)
    }
}

fn read_index(path: &Path) -> Result<Images> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Images::new()),
        other => other.at("read", path)?,
    };
    let list: Vec<ImageRecord> = serde_json::from_slice(&bytes)
        .map_err(|e| ImageError::BadIndex { path: path.to_owned(), why: e.to_string() })?;
    Ok(list.into_iter().map(|record| (record.id.clone(), record)).collect())
}

fn parse_configuration(bytes: &[u8]) -> Result<ImageConfiguration> {
    serde_json::from_slice(bytes).map_err(|e| ImageError::BadArchive(format!("the image's configuration: {e}")))
}

/// The digests of the uncompressed layers that an image's configuration names, lowest first.
pub fn diff_ids_of(configuration: &[u8]) -> Result<Vec<String>> {
    Ok(parse_configuration(configuration)?.rootfs().diff_ids().clone())
}

fn check_platform(configuration: &ImageConfiguration) -> Result<()> {
    let (architecture, os) = (configuration.architecture().to_string(), configuration.os().to_string());
    if os != "linux" || architecture != oci_architecture() {
        let own = oci_architecture();
        return Err(ImageError::BadArchive(format!(
            "the image is for {os}/{architecture}; this machine is linux/{own}"
        )));
    }
    Ok(())
}

/// Takes names away from the images that have them.
fn take_names(images: &mut Images, names: &[String]) {
    for image in images.values_mut() {
        image.tags.retain(|tag| !names.contains(tag));
    }
}

fn find<'a>(images: &'a Images, name: &str) -> Option<&'a ImageRecord> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if is_sha256_hex(hex) {
        return images.get(&format!("sha256:{hex}"));
    }
    let by_name = name.parse::<Reference>().ok().and_then(|reference| {
        let complete = reference.to_string();
        images.values().find(|image| match &reference.digest {
            Some(digest) => *digest == image.manifest && image.digests.iter().any(|d| d.starts_with(&reference.name())),
            None => image.tags.contains(&complete),
        })
    });
    by_name.or_else(|| by_short_id(images, hex))
}

fn by_short_id<'a>(images: &'a Images, hex: &str) -> Option<&'a ImageRecord> {
    if hex.len() < 4 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let prefix = format!("sha256:{hex}");
    let mut matching = images.values().filter(|image| image.id.starts_with(&prefix));
    let first = matching.next();
    if matching.next().is_some() { None } else { first }
}

/// An OCI manifest for an image that came without one.
pub(crate) fn manifest_json(configuration: &str, configuration_size: u64, layers: &[LayerRecord]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|l| serde_json::json!({ "mediaType": layer_media_type(l), "digest": l.digest, "size": l.size }))
        .collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": configuration,
            "size": configuration_size,
        },
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

fn layer_media_type(layer: &LayerRecord) -> &'static str {
    if layer.digest == layer.diff_id {
        "application/vnd.oci.image.layer.v1.tar"
    } else {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    }
}
