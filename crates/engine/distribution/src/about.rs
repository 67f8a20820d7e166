//! Asks a registry about images without pulling them.

use crate::error::{Error, Result};
use crate::manifest::{self, Found, Platform};
use crate::pull::{configuration, fetch_manifest};
use crate::registry::Registry;
use crate::{Credentials, Options, stream};
use http::Method;
use pintle_image::Reference;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The longest list of tags that is read, in bytes.
const MAX_LIST: usize = 4 << 20;
/// The most tags that are taken of a repository.
const MAX_TAGS: usize = 10_000;

/// What a reference leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    pub media_type: String,
    pub digest: String,
    /// Bytes of the manifest or list.
    pub size: u64,
    /// `os`, `architecture` and `variant` of its images.
    pub platforms: Vec<(String, String, String)>,
}

/// Describes what a reference leads to.
///
/// # Errors
/// When the registry refuses it, or answers with what is no manifest.
pub async fn describe(reference: &Reference, credentials: Credentials, options: &Options) -> Result<Described> {
    let registry = Registry::open(reference, credentials, options, false).await?;
    let tag = reference.digest.as_deref().or(reference.tag.as_deref()).unwrap_or("latest");
    let (bytes, digest, found) = fetch_manifest(&registry, reference, tag).await?;
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        #[serde(default)]
        media_type: String,
    }
    let typed = serde_json::from_slice::<Typed>(&bytes).map(|t| t.media_type).unwrap_or_default();
    let (usual, platforms) = match found {
        Found::Image(image) => {
            let config = configuration(&registry, &image.config).await?;
            let platform: Platform = serde_json::from_slice(&config)
                .map_err(|e| Error::Invalid(format!("the configuration of {reference}: {e}")))?;
            (manifest::OCI_MANIFEST, vec![platform])
        }
        Found::List(list) => (manifest::OCI_INDEX, list.into_iter().filter_map(|d| d.platform).collect()),
    };
    Ok(Described {
        media_type: if typed.is_empty() { usual.to_owned() } else { typed },
        digest,
        size: bytes.len() as u64,
        platforms: platforms.into_iter().map(|p| (p.os, p.architecture, p.variant)).collect(),
    })
}

/// The tags of a repository, in order.
///
/// # Errors
/// When the registry refuses it.
pub async fn tags(reference: &Reference, credentials: Credentials, options: &Options) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    let registry = Registry::open(reference, credentials, options, false).await?;
    let answer = registry.ask(Method::GET, &registry.url("tags/list"), &[], None).await?;
    if answer.status() != 200 {
        return Err(Registry::refused(answer).await);
    }
    let bytes = stream::collect(answer, MAX_LIST).await?;
    let list: List = serde_json::from_slice(&bytes).map_err(|e| Error::Invalid(format!("the list of tags: {e}")))?;
    let sorted: BTreeSet<String> = list.tags.unwrap_or_default().into_iter().take(MAX_TAGS).collect();
    Ok(sorted.into_iter().collect())
}
