//! Why a registry did not give or take something.

use pintle_image::ImageError;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// In the words of Docker: the method, the address, and what the network said.
    #[error("{method} {url:?}: {why}")]
    Connection { method: String, url: String, why: String },
    #[error("{method} {url:?}: {why}")]
    Broken { method: String, url: String, why: String },
    /// The registry's own words.
    #[error("{message}")]
    Refused { status: u16, code: String, message: String },
    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    NoManifest(String),
    #[error("no matching manifest for {platform} in the manifest list entries")]
    NoPlatform { platform: String },
    #[error("{0}")]
    Invalid(String),
    #[error("An image does not exist locally with the tag: {0}")]
    NotPresent(String),
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Error {
    /// Whether trying again may help: the network broke, or the server was busy.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// A registry's refusal of a manifest, as Docker words it.
    pub(crate) fn of_manifest(self, reference: &pintle_image::Reference) -> Self {
        let Self::Refused { status, code, message } = self else { return self };
        let name = pintle_image::Reference { tag: None, digest: None, ..reference.clone() }.familiar();
        let message = match code.as_str() {
            "MANIFEST_UNKNOWN" => return Self::NoManifest(reference.familiar()),
            "NAME_UNKNOWN" => format!("repository {name} not found: {message}"),
            "DENIED" => {
                format!(
                    "pull access denied for {name}, repository does not exist or may require 'docker login': {message}"
                )
            }
            _ if status == 404 => return Self::NoManifest(reference.familiar()),
            _ => message,
        };
        Self::Refused { status, code, message }
    }

    /// Whether the registry does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NoManifest(_) | Self::NoPlatform { .. } => true,
            Self::Refused { code, .. } => matches!(code.as_str(), "NAME_UNKNOWN" | "DENIED"),
            _ => false,
        }
    }

    /// Whether the registry wants other credentials.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. })
    }
}
