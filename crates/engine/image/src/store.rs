//! The image store: what images there are, under which names, and what of them is still in use.

use crate::assemble::oci_architecture;
use crate::blobs::Blobs;
use crate::index::Index;
use crate::layer::{Layers, chain_ids};
use crate::record::{ImageRecord, Images, LayerRecord, find, take_names};
use crate::snapshot::{SnapshotForm, SnapshotMounts, Snapshots};
use crate::{At, ImageError, Reference, Result, archive};
use oci_spec::image::ImageConfiguration;
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const MAX_CONFIGURATION_BYTES: u64 = 8 << 20;

/// What `load` brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    pub id: String,
    pub tags: Vec<String>,
}

/// An image to be listed; its blobs are in the store.
pub(crate) struct NewImage {
    pub(crate) id: String,
    pub(crate) manifest: String,
    pub(crate) layers: Vec<LayerRecord>,
    pub(crate) chain: Vec<String>,
    pub(crate) configuration: Vec<u8>,
    pub(crate) tags: Vec<String>,
    pub(crate) parent: Option<String>,
}

/// Now, as image configurations write it.
pub(crate) fn now() -> String {
    pintle_clock::system().now().to_string()
}

/// See the crate's documentation for what is where on the disk.
pub struct ImageStore {
    root: PathBuf,
    blobs: Blobs,
    layers: Layers,
    snapshots: Snapshots,
    index: Arc<Index>,
    /// Held for reading for a moment, while snapshots or leases are made, for writing while what is unused goes.
    pub(crate) sweeping: parking_lot::RwLock<()>,
    /// How many are bringing something in over a longer time.
    pub(crate) leases: AtomicUsize,
    /// There was something to sweep while something was brought in.
    pub(crate) sweep_later: AtomicBool,
}

impl Drop for ImageStore {
    fn drop(&mut self) {
        self.index.close();
    }
}

impl ImageStore {
    /// Opens the store at a directory, which is made when missing, and drops what was half written or half brought in.
    /// Images that had not reached the disk when the machine ended are made whole again, or dropped with a warning.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let ingest = root.join("ingest");
        match fs::remove_dir_all(&ingest) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at("empty", &ingest)?,
        }
        fs::create_dir_all(&ingest).at("create", &ingest)?;
        let index = Arc::new(Index::open(&root)?);
        let (blobs, layers, snapshots) = (Blobs::open(&root)?, Layers::open(&root)?, Snapshots::open(&root)?);
        let (sweeping, leases, sweep_later) = Default::default();
        let store = Self { root, blobs, layers, snapshots, index, sweeping, leases, sweep_later };
        store.restore()?;
        store.sweep()?;
        store.index.settle();
        Ok(store)
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
        let _held = self.hold();
        // What the archive holds besides, and all of it when it is broken, goes when this is done.
        self.sweep_later.store(true, Ordering::Release);
        let found = archive::ingest(source, &self.blobs, &self.root.join("ingest"))?;
        found.into_iter().map(|image| self.adopt(image)).collect()
    }

    pub(crate) fn adopt_found(&self, found: archive::Found) -> Result<LoadedImage> {
        let _held = self.hold();
        self.adopt(found)
    }

    /// Writes down which repository an image came from, and the digest that it has there.
    pub fn note_origin(&self, id: &str, origin: &Reference) -> Result<()> {
        let digest = origin.to_string();
        self.change(|images| {
            let record = images.get_mut(id).ok_or_else(|| ImageError::NotFound(id.into()))?;
            for known in [&mut record.origins, &mut record.digests] {
                if !known.contains(&digest) {
                    known.push(digest.clone());
                }
            }
            Ok(())
        })
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
        let layers: Vec<LayerRecord> = pairs
            .map(|((digest, size), diff)| LayerRecord { digest, diff_id: diff.clone(), size, content: 0 })
            .collect();
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
        let new = NewImage {
            id: found.configuration,
            manifest,
            layers,
            chain,
            configuration: configuration_bytes,
            tags: tags.clone(),
            parent: None,
        };
        let record = self.add(new)?;
        Ok(LoadedImage { id: record.id, tags })
    }

    /// Unpacks an image's layers, several at once, and lists it under its names.
    pub(crate) fn add(&self, new: NewImage) -> Result<ImageRecord> {
        let configuration = Arc::new(parse_configuration(&new.configuration)?);
        check_platform(&configuration)?;
        self.unpack_all(&new.layers, &new.chain)?;
        let mut layers = new.layers;
        for (layer, chain) in layers.iter_mut().zip(&new.chain) {
            layer.content = self.layers.content_size(chain)?;
        }
        let settling = self.index.mark()?;
        let tagged = (!new.tags.is_empty()).then(now);
        let size = layers.iter().map(|l| l.size).sum();
        let record = self.change(|images| {
            take_names(images, &new.tags);
            let record = images.entry(new.id.clone()).or_insert_with(|| ImageRecord {
                id: new.id,
                tags: Vec::new(),
                digests: Vec::new(),
                origins: Vec::new(),
                parent: new.parent.clone(),
                last_tagged: None,
                size,
                configuration,
                chain: new.chain,
                manifest: new.manifest.clone(),
                layers,
                settling: None,
            });
            record.settling = settling;
            record.parent = record.parent.take().or(new.parent);
            record.last_tagged = tagged.or(record.last_tagged.take());
            for tag in new.tags {
                let digest = format!("{}@{}", tag.parse::<Reference>()?.name(), new.manifest);
                if !record.digests.contains(&digest) {
                    record.digests.push(digest);
                }
                record.tags.push(tag);
            }
            Ok(record.clone())
        })?;
        self.index.settle();
        Ok(record)
    }

    /// Changes the index in one step: what `change` returns is given back, and all is kept as it was when it fails.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Images) -> Result<T>) -> Result<T> {
        self.index.change(change)
    }

    /// Looks at the index.
    pub(crate) fn with_images<T>(&self, look: impl FnOnce(&Images) -> T) -> T {
        self.index.with(look)
    }

    /// Waits until all images that are listed survive a power cut.
    pub fn wait_for_disk(&self) {
        self.index.wait();
    }

    /// Makes images anew that were cut off by the machine's end; what stood on their layers stands on them again.
    fn restore(&self) -> Result<()> {
        let cut = self.index.cut_off();
        if cut.is_empty() {
            return Ok(());
        }
        let is_cut = |id: &String| cut.iter().any(|record| record.id == *id);
        let sound: HashSet<String> = self.with_images(|images| {
            images.values().filter(|i| !is_cut(&i.id)).flat_map(|i| i.chain.iter().cloned()).collect()
        });
        for chain in cut.iter().flat_map(|record| &record.chain).filter(|chain| !sound.contains(*chain)) {
            self.layers.discard(chain)?;
        }
        let mut damaged = HashSet::new();
        for record in &cut {
            if let Err(error) = self.make_anew(record) {
                let names = record.tags.join(", ");
                tracing::warn!(id = record.id, names, %error, "the machine ended before the disk had this image: it is removed");
                damaged.insert(record.id.clone());
            }
        }
        self.index.sync()?;
        self.change(|images| {
            images.retain(|id, _| !damaged.contains(id));
            images.values_mut().filter(|record| is_cut(&record.id)).for_each(|record| record.settling = None);
            Ok(())
        })
    }

    fn make_anew(&self, record: &ImageRecord) -> Result<()> {
        let layers = record.layers.iter().map(|layer| &layer.digest);
        for digest in layers.chain([&record.id, &record.manifest]) {
            self.blobs.verify(digest)?;
        }
        self.unpack_all(&record.layers, &record.chain)
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

    /// All images, in the order of their ids.
    pub fn list(&self) -> Vec<ImageRecord> {
        self.with_images(|images| images.values().cloned().collect())
    }

    /// Finds an image by a name, a `name@digest`, its id, or the beginning of its id.
    pub fn resolve(&self, name: &str) -> Option<ImageRecord> {
        self.with_images(|images| find(images, name).cloned())
    }

    /// Gives an image one more name; another image that had it loses it.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        let name = name.parse::<Reference>()?.to_string();
        self.change(|images| {
            let id = find(images, image).map(|r| r.id.clone()).ok_or_else(|| ImageError::NotFound(image.into()))?;
            take_names(images, std::slice::from_ref(&name));
            if let Some(record) = images.get_mut(&id) {
                record.tags.push(name);
                record.last_tagged = Some(now());
            }
            Ok(())
        })
    }

    /// Takes a name away, and with its last name (or by its id) the image. Layers that a snapshot stands on stay.
    /// Returns the names and, when the image went, the id that were removed.
    pub fn remove(&self, name: &str) -> Result<Vec<String>> {
        let removed = self.change(|images| {
            let record = find(images, name).cloned().ok_or_else(|| ImageError::NotFound(name.into()))?;
            let complete = name.parse::<Reference>().map(|r| r.to_string()).ok();
            let one = complete.filter(|c| record.tags.len() > 1 && record.tags.contains(c));
            Ok(match (one, images.get_mut(&record.id)) {
                (Some(tag), Some(kept)) => {
                    kept.tags.retain(|t| *t != tag);
                    vec![tag]
                }
                _ => {
                    images.remove(&record.id);
                    record.tags.into_iter().chain([record.id]).collect()
                }
            })
        })?;
        self.sweep()?;
        Ok(removed)
    }

    /// A writable layer for a container; the same one when asked again with the same key.
    pub fn prepare_snapshot(&self, key: &str, image_id: &str) -> Result<SnapshotMounts> {
        let _held = self.sweeping.read();
        let image = self.resolve(image_id).ok_or_else(|| ImageError::NotFound(image_id.into()))?;
        self.prepare_on(key, &image.chain)
    }

    /// A writable layer on some layers (lowest first, by chain ID) that need not be an image's; on none it is empty.
    pub fn prepare_snapshot_on(&self, key: &str, chain: &[String]) -> Result<SnapshotMounts> {
        let _held = self.sweeping.read();
        if let Some(missing) = chain.iter().find(|id| !self.has_layer(id)) {
            return Err(ImageError::NotFound(missing.clone()));
        }
        self.prepare_on(key, chain)
    }

    fn prepare_on(&self, key: &str, chain: &[String]) -> Result<SnapshotMounts> {
        let lower = chain.iter().rev().map(|id| self.layers.path(id)).collect();
        self.snapshots.prepare(key, chain, lower, self.snapshot_form()?)
    }

    /// The form that new snapshots have: overlays where the kernel takes them.
    pub fn snapshot_form(&self) -> Result<SnapshotForm> {
        self.snapshots.form(&self.root.join("ingest"))
    }

    /// Decides that form, unless a snapshot was made or it was asked for.
    pub fn choose_snapshot_form(&self, form: SnapshotForm) {
        self.snapshots.choose(form);
    }

    /// What the root of a snapshot that exists is made of.
    pub fn snapshot_mounts(&self, key: &str) -> Result<SnapshotMounts> {
        self.snapshots.existing(key, self.layers_below(key)?)
    }

    /// The layers that a snapshot stands on, topmost first.
    pub(crate) fn layers_below(&self, key: &str) -> Result<Vec<PathBuf>> {
        Ok(self.snapshots.chain(key)?.iter().rev().map(|id| self.layers.path(id)).collect())
    }

    /// The layers that a snapshot stands on, lowest first, by chain ID.
    pub fn snapshot_chain(&self, key: &str) -> Result<Vec<String>> {
        self.snapshots.chain(key)
    }

    pub fn remove_snapshot(&self, key: &str) -> Result<()> {
        self.snapshots.remove(key)
    }

    pub fn snapshots(&self) -> Result<Vec<String>> {
        self.snapshots.keys()
    }

    /// Bytes and files that a container wrote into its own layer.
    pub fn snapshot_usage(&self, key: &str) -> Result<(u64, u64)> {
        match self.snapshot_mounts(key)?.lower.is_empty() {
            true => self.plan_of(key).map(|(mounts, plan)| plan.usage(&mounts.upper)),
            false => self.snapshots.usage(key),
        }
    }

    /// The layers that some snapshot stands on.
    pub(crate) fn used_chains(&self) -> Result<HashSet<String>> {
        self.snapshots.used_chains()
    }

    /// Removes the blobs and layers that no image names and no snapshot stands on. While something is brought in
    /// nothing goes: it does when that is done.
    pub fn sweep(&self) -> Result<()> {
        let ingest = self.root.join("ingest");
        // A layer and its blob may have the same name.
        let (layers, blobs) = (aside(&ingest)?, aside(&ingest)?);
        self.set_unused_aside(layers.path(), blobs.path())?;
        // Nobody has to wait for the disk by now, however many files go.
        [layers, blobs].into_iter().try_for_each(|aside| aside.close().at("empty", &ingest))
    }

    fn set_unused_aside(&self, for_layers: &Path, for_blobs: &Path) -> Result<()> {
        let _alone = self.sweeping.write();
        if self.leases.load(Ordering::Acquire) > 0 {
            self.sweep_later.store(true, Ordering::Release);
            return Ok(());
        }
        let mut chains = self.snapshots.used_chains()?;
        let mut blobs = HashSet::new();
        self.with_images(|images| {
            for image in images.values() {
                chains.extend(image.chain.iter().cloned());
                blobs.extend([image.id.clone(), image.manifest.clone()]);
                blobs.extend(image.layers.iter().map(|l| l.digest.clone()));
            }
        });
        self.layers.set_aside(&chains, for_layers)?;
        self.blobs.set_aside(&blobs, for_blobs)
    }
}

/// A directory for what is to go.
fn aside(ingest: &Path) -> Result<tempfile::TempDir> {
    tempfile::tempdir_in(ingest).at("create a directory in", ingest)
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

pub(crate) fn layer_media_type(layer: &LayerRecord) -> &'static str {
    if layer.digest == layer.diff_id {
        "application/vnd.oci.image.layer.v1.tar"
    } else {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    }
}
