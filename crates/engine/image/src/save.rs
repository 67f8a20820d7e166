//! Writes images as an archive: an OCI image layout that is also what `docker save` writes.
//!
//! ```text
//! blobs/sha256/<hex>   manifests, configurations, layers as they are in the store
//! index.json           a manifest for every name, with the name as an annotation
//! manifest.json        Docker's list of images: Config, RepoTags, Layers, LayerSources
//! oci-layout
//! repositories         Docker's oldest list: the topmost layer of every name
//! ```

use crate::record::{ImageRecord, LayerRecord, find};
use crate::tarball::Tarball;
use crate::{At, ImageError, ImageStore, Reference, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;

/// What of an image is saved.
struct Chosen {
    image: ImageRecord,
    tags: BTreeSet<String>,
}

impl ImageStore {
    /// Writes images as an archive. A repository without a tag means all its tags, an id an image without a name.
    ///
    /// # Errors
    /// For a name that is unknown: then nothing has been written.
    pub fn save(&self, names: &[String], target: impl Write) -> Result<()> {
        let chosen = self.with_images(|images| choose(images, names))?;
        let mut tarball = Tarball::new(target);
        tarball.folder("blobs/")?;
        tarball.folder("blobs/sha256/")?;
        for digest in blobs_of(&chosen) {
            let path = self.blobs().path(&digest);
            let file = File::open(&path).at("open", &path)?;
            let size = file.metadata().at("read", &path)?.len();
            tarball.file(&format!("blobs/{}", digest.replace(':', "/")), 0o644, size, file)?;
        }
        let text = |tarball: &mut Tarball<_>, name: &str, value: &Value| {
            let bytes = value.to_string().into_bytes();
            tarball.file(name, 0o644, bytes.len() as u64, &bytes[..])
        };
        text(&mut tarball, "index.json", &self.index(&chosen)?)?;
        text(&mut tarball, "manifest.json", &docker_manifest(&chosen))?;
        text(&mut tarball, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        let repositories = repositories(&chosen);
        if repositories.as_object().is_some_and(|all| !all.is_empty()) {
            text(&mut tarball, "repositories", &repositories)?;
        }
        tarball.finish()
    }

    fn index(&self, chosen: &BTreeMap<String, Chosen>) -> Result<Value> {
        let mut manifests = Vec::new();
        for Chosen { image, tags } in chosen.values() {
            let bytes = self.blobs().read(&image.manifest, 4 << 20)?;
            let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let media = manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
            let plain = json!({ "mediaType": media, "digest": image.manifest, "size": bytes.len() });
            for tag in tags {
                let mut named = plain.clone();
                let short = tag.rsplit_once(':').map_or("latest", |(_, short)| short);
                named["annotations"] =
                    json!({ "io.containerd.image.name": tag, "org.opencontainers.image.ref.name": short });
                manifests.push(named);
            }
            if tags.is_empty() {
                manifests.push(plain);
            }
        }
        let media = "application/vnd.oci.image.index.v1+json";
        Ok(json!({ "schemaVersion": 2, "mediaType": media, "manifests": manifests }))
    }
}

fn choose(images: &crate::record::Images, names: &[String]) -> Result<BTreeMap<String, Chosen>> {
    let mut chosen: BTreeMap<String, Chosen> = BTreeMap::new();
    let mut add = |image: &ImageRecord, tag: Option<String>| {
        let entry = chosen.entry(image.id.clone());
        let entry = entry.or_insert_with(|| Chosen { image: image.clone(), tags: BTreeSet::new() });
        entry.tags.extend(tag);
    };
    for name in names {
        let image = find(images, name);
        let reference = name.parse::<Reference>().ok();
        let tagged = image.zip(reference.as_ref()).filter(|(i, r)| i.tags.contains(&r.to_string()));
        let whole = reference.as_ref().filter(|_| !name.rsplit('/').next().unwrap_or(name).contains([':', '@']));
        let prefix = whole.map(|r| format!("{}:", r.name()));
        let of_repository: Vec<(&ImageRecord, &String)> = images
            .values()
            .flat_map(|i| i.tags.iter().map(move |t| (i, t)))
            .filter(|(_, tag)| prefix.as_ref().is_some_and(|p| tag.starts_with(p)))
            .collect();
        match (tagged, image) {
            _ if !of_repository.is_empty() => of_repository.iter().for_each(|(i, tag)| add(i, Some((*tag).clone()))),
            (Some((image, reference)), _) => add(image, Some(reference.to_string())),
            (None, Some(image)) => add(image, None),
            (None, None) => return Err(ImageError::NoReference(name.clone())),
        }
    }
    Ok(chosen)
}

fn blobs_of(chosen: &BTreeMap<String, Chosen>) -> BTreeSet<String> {
    let of_image = |c: &Chosen| {
        let layers: Vec<String> = c.image.layers.iter().map(|l| l.digest.clone()).collect();
        layers.into_iter().chain([c.image.id.clone(), c.image.manifest.clone()])
    };
    chosen.values().flat_map(of_image).collect()
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn familiar(tag: &str) -> String {
    tag.parse::<Reference>().map_or_else(|_| tag.to_owned(), |reference| reference.familiar())
}

fn docker_manifest(chosen: &BTreeMap<String, Chosen>) -> Value {
    let source = |layer: &LayerRecord| {
        let media = crate::store::layer_media_type(layer);
        (layer.diff_id.clone(), json!({ "mediaType": media, "size": layer.size, "digest": layer.digest }))
    };
    let entry = |Chosen { image, tags }: &Chosen| {
        json!({
            "Config": blob_name(&image.id),
            "RepoTags": if tags.is_empty() { Value::Null } else { tags.iter().map(|t| familiar(t)).collect() },
            "Layers": image.layers.iter().map(|l| blob_name(&l.digest)).collect::<Vec<_>>(),
            "LayerSources": image.layers.iter().map(source).collect::<Map<String, Value>>(),
        })
    };
    chosen.values().map(entry).collect()
}

fn repositories(chosen: &BTreeMap<String, Chosen>) -> Value {
    let mut all = json!({});
    for Chosen { image, tags } in chosen.values() {
        let top = image.layers.last().map(|l| l.digest.trim_start_matches("sha256:")).unwrap_or_default();
        for tag in tags.iter().map(|t| familiar(t)) {
            if let Some((name, short)) = tag.rsplit_once(':') {
                all[name][short] = top.into();
            }
        }
    }
    all
}
