//! Sends an image to a registry: its layers side by side, then configuration and manifest.

use crate::connection::Outgoing;
use crate::error::{Error, Result};
use crate::progress::{Progress, Sink, Step, short};
use crate::registry::Registry;
use crate::{Credentials, Options, authorization, stream};
use futures::{StreamExt, TryStreamExt};
use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use pintle_image::{ImageStore, Lease, Reference};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MAX_MANIFEST: u64 = 4 << 20;

/// A pushed image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest.
    pub digest: String,
    /// Bytes of the manifest.
    pub size: u64,
}

/// Pushes the image that has the tag of `reference`.
///
/// # Errors
/// When there is no such image, or the registry cannot be reached or refuses.
pub async fn push(
    store: &Arc<ImageStore>,
    reference: &Reference,
    credentials: Credentials,
    options: &Options,
    progress: Sink<'_>,
) -> Result<Pushed> {
    let image = store.resolve(&reference.to_string());
    let image = image
        .ok_or_else(|| Error::NotPresent(Reference { tag: None, digest: None, ..reference.clone() }.familiar()))?;
    let _lease = Lease::of(store);
    let registry = Registry::open(reference, credentials, options, true).await?;
    let (compressing, id) = (Arc::clone(store), image.id.clone());
    let compressed = tokio::task::spawn_blocking(move || compressing.compress_layers(&id)).await;
    let image = compressed.map_err(|e| Error::Invalid(e.to_string()))??;
    let sources = mount_sources(&image.origins, reference);
    *registry.also_pull.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sources.clone();
    let manifest = store.read_blob(image.manifest(), MAX_MANIFEST)?;
    let layers = image.layer_records();
    progress(Progress::Line(format!("The push refers to repository [{}]", reference.name())));
    for layer in layers {
        progress(Progress::Layer { id: short(&layer.diff_id), step: Step::Preparing });
    }
    let mut sending = Vec::new();
    for layer in layers {
        let (registry, sources) = (&registry, &sources);
        let tell = move |step| progress(Progress::Layer { id: short(&layer.diff_id), step });
        sending.push(async move { send_blob(store, registry, &layer.digest, layer.size, sources, &tell).await });
    }
    let done = futures::stream::iter(sending).buffer_unordered(options.parallel.max(1));
    done.try_collect::<Vec<()>>().await?;
    let configuration = std::fs::metadata(store.blob_path(&image.id)).map_or(0, |m| m.len());
    send_blob(store, &registry, &image.id, configuration, &[], &|_| {}).await?;
    let tag = reference.tag.clone().unwrap_or_else(|| "latest".to_owned());
    let digest = send_manifest(&registry, &tag, &manifest).await?;
    let size = manifest.len() as u64;
    progress(Progress::PushDone { tag, digest: digest.clone(), size });
    let origin = Reference { tag: None, digest: Some(digest.clone()), ..reference.clone() };
    let (noting, id) = (Arc::clone(store), image.id.clone());
    let noted = tokio::task::spawn_blocking(move || noting.note_origin(&id, &origin)).await;
    noted.map_err(|e| Error::Invalid(e.to_string()))??;
    Ok(Pushed { digest, size })
}

/// Repositories of the same registry that have the image: its layers need not travel again.
fn mount_sources(digests: &[String], reference: &Reference) -> Vec<String> {
    let parsed = digests.iter().filter_map(|d| d.parse::<Reference>().ok());
    let mut names: Vec<String> = parsed
        .filter(|d| d.registry == reference.registry && d.repository != reference.repository)
        .map(|d| d.repository)
        .collect();
    names.dedup();
    names.truncate(4);
    names
}

async fn send_blob(
    store: &Arc<ImageStore>,
    registry: &Registry,
    digest: &str,
    size: u64,
    sources: &[String],
    tell: &(dyn Fn(Step) + Send + Sync),
) -> Result<()> {
    let url = registry.url(&format!("blobs/{digest}"));
    let head = registry.ask(Method::HEAD, &url, &[], None).await?;
    if head.status() == 200 {
        tell(Step::LayerExists);
        return Ok(());
    }
    for source in sources {
        let query = format!("blobs/uploads/?mount={digest}&from={}", authorization::escape(source));
        let answer = registry.ask(Method::POST, &registry.url(&query), &[], None).await?;
        if answer.status() == 201 {
            tell(Step::Mounted(source.clone()));
            return Ok(());
        }
    }
    let begun = registry.ask(Method::POST, &registry.url("blobs/uploads/"), &[], None).await?;
    if begun.status() != 202 {
        return Err(Registry::refused(begun).await);
    }
    let location = registry.location(&begun)?;
    let url = format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' });
    let path = store.blob_path(digest);
    let answer = upload(registry, &url, &path, size, tell).await?;
    if answer.status() != 201 {
        return Err(Registry::refused(answer).await);
    }
    tell(Step::Pushed);
    Ok(())
}

/// Sends a file while it tells how far it is.
async fn upload(
    registry: &Registry,
    url: &str,
    path: &std::path::Path,
    size: u64,
    tell: &(dyn Fn(Step) + Send + Sync),
) -> Result<http::Response<hyper::body::Incoming>> {
    let sent = Arc::new(AtomicU64::new(0));
    let sending = registry.send(|| {
        let sent = Arc::clone(&sent);
        async move {
            let note = move |total| sent.store(total, Ordering::Relaxed);
            let body = stream::file_body(path, note).await;
            let body = body.map_err(|e| Error::Invalid(format!("read {}: {e}", path.display())))?;
            let mut request = Outgoing::new(Method::PUT, url)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, size.to_string());
            request.body = body;
            Ok(request)
        }
    });
    tokio::pin!(sending);
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        tokio::select! {
            answer = &mut sending => return answer,
            _ = tick.tick() => tell(Step::Pushing(sent.load(Ordering::Relaxed), size)),
        }
    }
}

async fn send_manifest(registry: &Registry, tag: &str, bytes: &[u8]) -> Result<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| Error::Invalid(e.to_string()))?;
    let media = value["mediaType"].as_str().unwrap_or(crate::manifest::OCI_MANIFEST).to_owned();
    let url = registry.url(&format!("manifests/{tag}"));
    let answer = registry
        .send(|| {
            let request = Outgoing::new(Method::PUT, url.as_str()).header(CONTENT_TYPE, &media).body(bytes.to_vec());
            std::future::ready(Ok(request))
        })
        .await?;
    if answer.status() != 201 {
        return Err(Registry::refused(answer).await);
    }
    Ok(pintle_image::digest_of(bytes))
}
