//! Manifests in their four media types, and the choice among those of a list.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The largest manifest that is read, in bytes: the distribution specification's least that all must take.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// More layers than the kernel's overlay could stack.
const MAX_LAYERS: usize = 500;

/// What a request for a manifest accepts.
pub(crate) const ACCEPT: [&str; 4] = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    /// Layers that are elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) urls: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: String,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// What a reference led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Image(Manifest),
    List(Vec<Descriptor>),
}

/// Reads a manifest or list. The media type is the header's, or what the content says.
pub(crate) fn parse(bytes: &[u8], media_type: &str) -> Result<Found> {
    let bad = |why: String| Error::Invalid(format!("the registry's manifest: {why}"));
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    if value["schemaVersion"] == 1 {
        return Err(Error::Invalid(
            "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported"
                .into(),
        ));
    }
    let named = value["mediaType"].as_str().unwrap_or(media_type);
    if matches!(named, DOCKER_LIST | OCI_INDEX) || value["manifests"].is_array() {
        let list = serde_json::from_value(value["manifests"].clone()).map_err(|e| bad(e.to_string()))?;
        return Ok(Found::List(list));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
    let digests = manifest.layers.iter().chain([&manifest.config]);
    for descriptor in digests {
        check_digest(&descriptor.digest)?;
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(bad(format!("{} layers are more than {MAX_LAYERS}", manifest.layers.len())));
    }
    Ok(Found::Image(manifest))
}

/// Only SHA-256 in its plain form: the text becomes a file name.
pub(crate) fn check_digest(digest: &str) -> Result<()> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(());
    }
    Err(Error::Invalid(format!("unsupported digest {digest:?}")))
}

/// The entry of a list for a platform: the exact variant, else one without, else any.
pub(crate) fn choose(list: &[Descriptor], platform: &(String, String, String)) -> Result<Descriptor> {
    let (os, architecture, variant) = platform;
    let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == *os && p.architecture == *architecture);
    let of = |wanted: &str| {
        list.iter().filter(fits).find(|d| d.platform.as_ref().is_some_and(|p| p.variant == wanted)).cloned()
    };
    let found =
        of(variant).or_else(|| of("")).or_else(|| list.iter().find(fits).filter(|_| variant.is_empty()).cloned());
    let named = [os, architecture, variant].into_iter().filter(|p| !p.is_empty()).cloned().collect::<Vec<_>>();
    let found = found.ok_or_else(|| Error::NoPlatform { platform: named.join("/") })?;
    check_digest(&found.digest)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digit: char, architecture: &str, variant: &str) -> Descriptor {
        let platform = Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() };
        let digest = format!("sha256:{}", digit.to_string().repeat(64));
        Descriptor { media_type: OCI_MANIFEST.into(), digest, size: 1, platform: Some(platform), urls: Vec::new() }
    }

    #[test]
    fn the_nearest_platform_is_chosen() {
        let list = [entry('1', "arm", "v6"), entry('2', "arm", "v7"), entry('3', "amd64", "")];
        let pick = |architecture: &str, variant: &str| {
            let found = choose(&list, &("linux".into(), architecture.into(), variant.into()));
            found.map(|d| d.digest.chars().last().unwrap()).map_err(|e| e.to_string())
        };
        assert_eq!(pick("arm", "v7"), Ok('2'));
        assert_eq!(pick("arm", ""), Ok('1'));
        assert_eq!(pick("amd64", "v3"), Ok('3'));
        let none = "no matching manifest for linux/arm64/v8 in the manifest list entries";
        assert_eq!(pick("arm64", "v8"), Err(none.to_owned()));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let digest = "a".repeat(64);
        let good = format!(r#"{{"schemaVersion":2,"config":{{"digest":"sha256:{digest}","size":2}},"layers":[]}}"#);
        assert!(matches!(parse(good.as_bytes(), OCI_MANIFEST), Ok(Found::Image(_))));
        assert!(matches!(parse(br#"{"schemaVersion":2,"manifests":[]}"#, ""), Ok(Found::List(_))));
        let traversal = good.replace(&digest, "../../etc/passwd");
        for bad in ["", "[]", r#"{"schemaVersion":1}"#, traversal.as_str()] {
            assert!(parse(bad.as_bytes(), "").is_err(), "{bad}");
        }
    }
}
