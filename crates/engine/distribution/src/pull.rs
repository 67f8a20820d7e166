//! Brings an image from a registry: the manifest for this platform, its configuration, then the layers side by side.

use crate::error::{Error, Result};
use crate::manifest::{self, Descriptor, Found, Manifest};
use crate::progress::{Progress, Sink, Step, short};
use crate::registry::Registry;
use crate::{Credentials, Options, stream};
use futures::{StreamExt, TryStreamExt};
use http::Method;
use http_body_util::BodyExt;
use pintle_image::{ImageRecord, ImageStore, Lease, Received, Reference, chain_ids, diff_ids_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The largest image configuration, in bytes.
const MAX_CONFIGURATION: usize = 8 << 20;
/// How often a broken transfer is taken up again.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A server that sends nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// A pulled image.
#[derive(Clone, Debug)]
pub struct Pulled {
    pub image: ImageRecord,
    /// Of the manifest or list that the tag points to.
    pub digest: String,
    /// It was here already, and the tag pointed to it.
    pub up_to_date: bool,
}

/// Pulls one image. Nothing is listed until all of it is here; what a broken pull has brought is swept away later.
///
/// # Errors
/// When the registry cannot be reached, does not have it, or sends something else than the digests say.
pub async fn pull(
    store: &Arc<ImageStore>,
    reference: &Reference,
    credentials: Credentials,
    options: &Options,
    progress: Sink<'_>,
) -> Result<Pulled> {
    let _lease = Lease::of(store);
    let mirrors = if reference.registry == "docker.io" { &options.mirrors[..] } else { &[] };
    for mirror in mirrors {
        let pulled = match Registry::open_mirror(mirror, reference, options).await {
            Ok(registry) => pull_from(store, &registry, reference, options, progress).await,
            Err(error) => Err(error),
        };
        match pulled {
            Ok(pulled) => return Ok(pulled),
            Err(error) => tracing::info!(mirror, %reference, %error, "the mirror does not help: asking the registry"),
        }
    }
    let registry = Registry::open(reference, credentials, options, false).await?;
    let pulled = pull_from(store, &registry, reference, options, progress).await;
    if pulled.is_err() {
        // What has come goes when the last lease is given back; another sweep would find it as well.
        let _ = store.sweep();
    }
    pulled
}

async fn pull_from(
    store: &Arc<ImageStore>,
    registry: &Registry,
    reference: &Reference,
    options: &Options,
    progress: Sink<'_>,
) -> Result<Pulled> {
    let tag = reference.digest.clone().or_else(|| reference.tag.clone()).unwrap_or_else(|| "latest".to_owned());
    let (bytes, digest, manifest, manifest_digest) = find(registry, reference, &tag, options).await?;
    // Without the registry, as Docker tells it.
    progress(Progress::From { tag, repository: reference.repository.clone() });
    let had = store.resolve(&manifest.config.digest).is_some_and(|image| match &reference.tag {
        Some(_) => image.tags.contains(&Reference { digest: None, ..reference.clone() }.to_string()),
        None => true,
    });
    if store.resolve(&manifest.config.digest).is_some() {
        let image = name_present(store, reference, &digest, manifest.config.digest).await?;
        progress(Progress::Digest(digest.clone()));
        return Ok(Pulled { image, digest, up_to_date: had });
    }
    let configuration = configuration(registry, &manifest.config).await?;
    let diff_ids = diff_ids_of(&configuration)?;
    if diff_ids.len() != manifest.layers.len() {
        let (a, b) = (diff_ids.len(), manifest.layers.len());
        return Err(Error::Invalid(format!("the configuration names {a} layers, the manifest {b}")));
    }
    let plan = plan(&manifest, &diff_ids);
    fetch_layers(store, registry, plan, options, progress).await?;
    let store_manifest = put(store, bytes, &manifest_digest).await?;
    put(store, configuration, &manifest.config.digest).await?;
    let received = Received {
        manifest: store_manifest,
        configuration: manifest.config.digest.clone(),
        layers: manifest.layers.iter().map(|l| (l.digest.clone(), l.size)).collect(),
        tag: reference.tag.as_ref().map(|_| Reference { digest: None, ..reference.clone() }),
        origin: Some(Reference { tag: None, digest: Some(digest.clone()), ..reference.clone() }),
    };
    let listing = Arc::clone(store);
    let image = blocking(move || Ok(listing.list_received(received)?)).await?;
    progress(Progress::Digest(digest.clone()));
    Ok(Pulled { image, digest, up_to_date: had })
}

/// Gives an image that is here already the name that it has in the registry.
async fn name_present(store: &Arc<ImageStore>, reference: &Reference, digest: &str, id: String) -> Result<ImageRecord> {
    let tag = reference.tag.as_ref().map(|_| Reference { digest: None, ..reference.clone() });
    let origin = Reference { tag: None, digest: Some(digest.to_owned()), ..reference.clone() };
    let store = Arc::clone(store);
    blocking(move || {
        if let Some(tag) = tag {
            store.tag(&id, &tag.to_string())?;
        }
        store.note_origin(&id, &origin)?;
        Ok(store.resolve(&id).ok_or(pintle_image::ImageError::NotFound(id))?)
    })
    .await
}

/// The manifest for this platform with its bytes, the digest of what the tag points to, and the manifest's own.
async fn find(
    registry: &Registry,
    reference: &Reference,
    tag: &str,
    options: &Options,
) -> Result<(Vec<u8>, String, Manifest, String)> {
    let (bytes, digest, found) = fetch_manifest(registry, reference, tag).await?;
    match found {
        Found::Image(manifest) => Ok((bytes, digest.clone(), manifest, digest)),
        Found::List(list) => {
            let entry = manifest::choose(&list, &options.platform)?;
            let (bytes, own, found) = fetch_manifest(registry, reference, &entry.digest).await?;
            match found {
                Found::Image(manifest) => Ok((bytes, digest, manifest, own)),
                Found::List(_) => Err(Error::Invalid("a list of images contains another list".into())),
            }
        }
    }
}

pub(crate) async fn fetch_manifest(
    registry: &Registry,
    reference: &Reference,
    tag: &str,
) -> Result<(Vec<u8>, String, Found)> {
    let url = registry.url(&format!("manifests/{tag}"));
    let answer = registry.ask(Method::GET, &url, &manifest::ACCEPT, None).await?;
    match answer.status().as_u16() {
        200 => {}
        _ => return Err(Registry::refused(answer).await.of_manifest(reference)),
    }
    let media = answer.headers().get(http::header::CONTENT_TYPE).and_then(|m| m.to_str().ok()).unwrap_or_default();
    let media = media.to_owned();
    let bytes = stream::collect(answer, manifest::MAX_BYTES).await?.to_vec();
    let digest = pintle_image::digest_of(&bytes);
    if tag.starts_with("sha256:") && tag != digest {
        return Err(Error::Invalid(format!("manifest verification failed for digest {tag}")));
    }
    let found = manifest::parse(&bytes, &media)?;
    Ok((bytes, digest, found))
}

pub(crate) async fn configuration(registry: &Registry, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let url = registry.url(&format!("blobs/{}", descriptor.digest));
    let answer = registry.ask(Method::GET, &url, &[], None).await?;
    if answer.status() != 200 {
        return Err(Registry::refused(answer).await);
    }
    let bytes = stream::collect(answer, MAX_CONFIGURATION).await?.to_vec();
    if pintle_image::digest_of(&bytes) != descriptor.digest {
        return Err(Error::Invalid(format!("image config verification failed for digest {}", descriptor.digest)));
    }
    Ok(bytes)
}

/// Stores a small blob that was verified already.
async fn put(store: &Arc<ImageStore>, bytes: Vec<u8>, digest: &str) -> Result<String> {
    let (store, digest) = (Arc::clone(store), digest.to_owned());
    blocking(move || {
        if !store.has_blob(&digest) {
            store.put_blob(&bytes)?;
        }
        Ok(digest)
    })
    .await
}

/// A layer to fetch.
struct Layer {
    digest: String,
    size: u64,
    chain_id: String,
    diff_id: String,
}

fn plan(manifest: &Manifest, diff_ids: &[String]) -> Vec<Layer> {
    let chain = chain_ids(diff_ids);
    let both = manifest.layers.iter().zip(diff_ids.iter().zip(chain));
    both.map(|(layer, (diff_id, chain_id))| Layer {
        digest: layer.digest.clone(),
        size: layer.size,
        chain_id,
        diff_id: diff_id.clone(),
    })
    .collect()
}

async fn fetch_layers(
    store: &Arc<ImageStore>,
    registry: &Registry,
    layers: Vec<Layer>,
    options: &Options,
    progress: Sink<'_>,
) -> Result<()> {
    let (present, missing): (Vec<Layer>, Vec<Layer>) =
        layers.into_iter().partition(|l| store.has_blob(&l.digest) && store.has_layer(&l.chain_id));
    let tell = |layer: &Layer, step| progress(Progress::Layer { id: short(&layer.digest), step });
    present.iter().for_each(|layer| tell(layer, Step::AlreadyExists));
    missing.iter().for_each(|layer| tell(layer, Step::PullingLayer));
    let parallel = options.parallel.max(1);
    missing.iter().skip(parallel).for_each(|layer| tell(layer, Step::Waiting));
    // A loop, not a closure: the compiler cannot prove of the latter's that they may go to another thread.
    let mut fetching = Vec::new();
    for layer in &missing {
        fetching.push(async move {
            let _alone = options.in_flight.alone(&layer.chain_id).await;
            fetch_layer(store, registry, layer, progress).await.map(|()| layer)
        });
    }
    // Layers arrive in any order, and are done in theirs.
    let mut done = futures::stream::iter(fetching).buffered(parallel);
    while let Some(layer) = done.try_next().await? {
        tell(layer, Step::PullComplete);
    }
    Ok(())
}

async fn fetch_layer(store: &Arc<ImageStore>, registry: &Registry, layer: &Layer, progress: Sink<'_>) -> Result<()> {
    let id = short(&layer.digest);
    let tell = |step| progress(Progress::Layer { id: id.clone(), step });
    if store.has_blob(&layer.digest) && store.has_layer(&layer.chain_id) {
        tell(Step::DownloadComplete);
        return Ok(());
    }
    let (sender, pieces) = stream::pieces();
    let receiving = {
        let store = Arc::clone(store);
        let (digest, chain_id, diff_id) = (layer.digest.clone(), layer.chain_id.clone(), layer.diff_id.clone());
        tokio::task::spawn_blocking(move || store.receive_layer(pieces, &digest, &chain_id, &diff_id))
    };
    let sent = AtomicU64::new(0);
    let download = download(registry, layer, &sender, &sent, &tell).await;
    if let Err(error) = &download {
        // The other side may have given up already.
        let _ = sender.send(Err(std::io::Error::other(error.to_string()))).await;
    } else {
        tell(Step::Verifying);
        tell(Step::DownloadComplete);
        tell(Step::Extracting(layer.size, layer.size));
    }
    drop(sender);
    let received = receiving.await.map_err(|e| Error::Invalid(e.to_string()))?;
    download?;
    received?;
    Ok(())
}

/// Passes a blob on piece by piece; a broken connection is taken up where it broke.
async fn download(
    registry: &Registry,
    layer: &Layer,
    sender: &tokio::sync::mpsc::Sender<std::io::Result<bytes::Bytes>>,
    sent: &AtomicU64,
    tell: &(dyn Fn(Step) + Send + Sync),
) -> Result<()> {
    let mut attempt = 0;
    loop {
        let error = match download_once(registry, layer, sender, sent, tell).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        attempt += 1;
        if attempt == ATTEMPTS || !error.is_passing() {
            return Err(error);
        }
        let pause = FIRST_PAUSE * 2_u32.pow(attempt - 1);
        tell(Step::Retrying(u32::try_from(pause.as_secs()).unwrap_or(u32::MAX)));
        tokio::time::sleep(pause).await;
    }
}

async fn download_once(
    registry: &Registry,
    layer: &Layer,
    sender: &tokio::sync::mpsc::Sender<std::io::Result<bytes::Bytes>>,
    sent: &AtomicU64,
    tell: &(dyn Fn(Step) + Send + Sync),
) -> Result<()> {
    let url = registry.url(&format!("blobs/{}", layer.digest));
    let from = sent.load(Ordering::Relaxed);
    let range = (from > 0).then(|| format!("bytes={from}-"));
    let answer = registry.ask(Method::GET, &url, &[], range).await?;
    // A server without ranges sends all of it again: what is there already is passed over.
    let mut skip = match answer.status().as_u16() {
        206 => 0,
        200 => from,
        _ => return Err(Registry::refused(answer).await),
    };
    let broken = |why: String| Error::Broken { method: "Get".into(), url: url.clone(), why };
    let mut body = answer.into_body();
    let mut told = from;
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| broken("i/o timeout".into()))?;
        let Some(frame) = frame else { break };
        let Ok(mut piece) = frame.map_err(|e| broken(e.to_string()))?.into_data() else { continue };
        let passed = skip.min(piece.len() as u64);
        skip -= passed;
        let piece = piece.split_off(usize::try_from(passed).unwrap_or(usize::MAX));
        let total = sent.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
        if total > layer.size {
            return Err(Error::Invalid(format!("{} is longer than its manifest says", layer.digest)));
        }
        if sender.send(Ok(piece)).await.is_err() {
            // Unpacking failed; its own error says why.
            return Ok(());
        }
        // Often enough for a moving bar.
        if total - told >= layer.size / 100 || total == layer.size {
            told = total;
            tell(Step::Downloading(total, layer.size));
        }
    }
    if sent.load(Ordering::Relaxed) < layer.size { Err(broken("unexpected EOF".into())) } else { Ok(()) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Invalid(e.to_string()))?
}
