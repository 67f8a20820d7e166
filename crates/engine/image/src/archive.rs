//! Reads image archives: what `docker save` writes, and OCI image layouts, as one tar stream.
//!
//! The stream is read once. Every regular file goes into the blob store (or, when small, also stays at hand as it
//! may be an index); links between files, as older `docker save` made them, are followed at the end.
//! Source: OCI image specification, "Image Layout"; moby's image specification v1.2.

use crate::blobs::Blobs;
use crate::decompress::decompressed;
use crate::reference::is_digest;
use crate::{ImageError, Result, entries};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Component, Path};

const MAX_ENTRIES: usize = 100_000;
const MAX_INDEX_BYTES: u64 = 4 << 20;

/// An image of an archive; its blobs are in the store.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) names: Vec<String>,
    /// Digest of the configuration: the image's id.
    pub(crate) configuration: String,
    /// Digest of the manifest when the archive had one.
    pub(crate) manifest: Option<String>,
    /// Digests and sizes of the layers' blobs, lowest first.
    pub(crate) layers: Vec<(String, u64)>,
}

/// A file of the archive, by its name there.
struct Files {
    blobs: HashMap<String, (String, u64)>,
    links: HashMap<String, String>,
}

impl Files {
    /// The blob behind a name, following links of the archive a few steps.
    fn blob(&self, name: &str) -> Result<&(String, u64)> {
        let mut name = normal(name);
        for _ in 0..8 {
            if let Some(blob) = self.blobs.get(&name) {
                return Ok(blob);
            }
            match self.links.get(&name) {
                Some(target) => name = target.clone(),
                None => break,
            }
        }
        Err(ImageError::BadArchive(format!("the file {name} is missing")))
    }
}

/// A name without `.`, `..` and leading slashes.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(p) => parts.extend(p.to_str()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.join("/")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Stores all files of an archive and says which images it holds.
pub(crate) fn ingest(source: impl Read + Send, blobs: &Blobs, ingest: &Path) -> Result<Vec<Found>> {
    let mut files = Files { blobs: HashMap::new(), links: HashMap::new() };
    let mut count = 0;
    entries::for_each(decompressed(source).map_err(entries::broken)?, |entry| {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(ImageError::BadArchive(format!("more than {MAX_ENTRIES} files, in {}", ingest.display())));
        }
        let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
            let base = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
            files.links.insert(name.clone(), normal(&format!("{base}/{target}")));
        } else if kind.is_file() {
            let expected = name.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
            let stored = blobs.ingest_from(entry, expected.as_deref())?;
            files.blobs.insert(name, stored);
        }
        Ok(())
    })?;
    if files.blobs.contains_key("manifest.json") {
        return docker_images(&files, blobs);
    }
    if files.blobs.contains_key("index.json") {
        return oci_images(&files, blobs);
    }
    if count == 0 {
        return Err(ImageError::CutShort);
    }
    Err(ImageError::BadArchive("neither manifest.json (docker save) nor index.json (OCI layout) is in it".into()))
}

fn parse<T: for<'a> Deserialize<'a>>(blobs: &Blobs, digest: &str, what: &str) -> Result<T> {
    let bytes = blobs.read(digest, MAX_INDEX_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|e| ImageError::BadArchive(format!("{what}: {e}")))
}

fn docker_images(files: &Files, blobs: &Blobs) -> Result<Vec<Found>> {
    let list: Vec<DockerManifest> = parse(blobs, &files.blob("manifest.json")?.0, "manifest.json")?;
    let known = oci_images(files, blobs).unwrap_or_default();
    let image = |m: DockerManifest| {
        let configuration = files.blob(&m.config)?.0.clone();
        let layers: Vec<(String, u64)> = m.layers.iter().map(|l| files.blob(l).cloned()).collect::<Result<_>>()?;
        // Newer archives are OCI layouts too: then the image keeps the manifest, and the digest, that it had.
        let same = known.iter().find(|k| k.configuration == configuration && k.layers == layers);
        let manifest = same.and_then(|k| k.manifest.clone());
        Ok(Found { names: m.repo_tags.unwrap_or_default(), configuration, manifest, layers })
    };
    list.into_iter().map(image).collect()
}

fn oci_images(files: &Files, blobs: &Blobs) -> Result<Vec<Found>> {
    let index: Index = parse(blobs, &files.blob("index.json")?.0, "index.json")?;
    let mut found = Vec::new();
    for descriptor in &index.manifests {
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let name = names.iter().find_map(|key| descriptor.annotations.get(*key)).cloned();
        // A word alone is only a tag: of what, the layout does not say.
        let name = name.filter(|name| name.contains([':', '/']));
        found.extend(oci_image(files, blobs, descriptor, name.into_iter().collect(), 0)?);
    }
    Ok(found)
}

/// The image of a manifest; of an index, the one for this machine.
fn oci_image(
    files: &Files,
    blobs: &Blobs,
    descriptor: &Descriptor,
    names: Vec<String>,
    depth: u8,
) -> Result<Option<Found>> {
    let (digest, _) = blob_of(files, descriptor)?;
    if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
        if depth > 2 {
            return Err(ImageError::BadArchive("indexes within indexes within indexes".into()));
        }
        let index: Index = parse(blobs, digest, "an image index")?;
        let own = |d: &&Descriptor| {
            let architecture = crate::assemble::oci_architecture();
            d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture)
        };
        let Some(chosen) = index.manifests.iter().find(own) else { return Ok(None) };
        return oci_image(files, blobs, chosen, names, depth + 1);
    }
    let manifest: Manifest = parse(blobs, digest, "an image manifest")?;
    let layers = manifest.layers.iter().map(|l| blob_of(files, l).cloned()).collect::<Result<_>>()?;
    let configuration = blob_of(files, &manifest.config)?.0.clone();
    Ok(Some(Found { names, configuration, manifest: Some(digest.clone()), layers }))
}

fn blob_of<'a>(files: &'a Files, descriptor: &Descriptor) -> Result<&'a (String, u64)> {
    if !is_digest(&descriptor.digest) {
        return Err(ImageError::BadArchive(format!("{:?} is no sha256 digest", descriptor.digest)));
    }
    let blob = files.blob(&format!("blobs/{}", descriptor.digest.replace(':', "/")))?;
    if blob.1 != descriptor.size {
        let (digest, want, got) = (&descriptor.digest, descriptor.size, blob.1);
        return Err(ImageError::BadArchive(format!("{digest} has {got} bytes, its descriptor says {want}")));
    }
    Ok(blob)
}
