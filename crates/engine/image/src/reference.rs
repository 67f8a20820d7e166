//! Parses image references and completes them as docker does: `redis` is `docker.io/library/redis:latest`.
//!
//! Source: the grammar of distribution/reference.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {0:?}")]
pub struct ReferenceError(String);

/// A complete reference: registry, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

impl Reference {
    /// `docker.io/library/redis`
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as people write it: without docker.io and library.
    pub fn familiar(&self) -> String {
        let short = self.repository.strip_prefix("library/").filter(|short| !short.contains('/'));
        let name = match (self.registry.as_str(), short) {
            ("docker.io", Some(short)) => short.to_owned(),
            ("docker.io", None) => self.repository.clone(),
            _ => self.name(),
        };
        self.suffixed(name)
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let (registry, repository) = split_registry(name);
        let valid = repository.len() + registry.len() < 255
            && repository.split('/').all(is_path_component)
            && tag.as_deref().is_none_or(is_tag);
        if !valid {
            return Err(bad());
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { registry, repository, tag, digest })
    }
}

/// The first part is a registry when it could not be part of a name.
fn split_registry(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            let registry = if first == "index.docker.io" { "docker.io" } else { first };
            let repository = if registry == "docker.io" && !rest.contains('/') {
                format!("library/{rest}")
            } else {
                rest.to_owned()
            };
            (registry.to_owned(), repository)
        }
        Some(_) => ("docker.io".to_owned(), name.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{name}")),
    }
}

fn is_path_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.chars().all(|c| alphanumeric(c) || matches!(c, '.' | '_' | '-'))
        && part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// Whether a text is a digest of the one algorithm in use.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_sha256_hex)
}

pub(crate) fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (written, complete, familiar) in [
            ("redis", "docker.io/library/redis:latest", "redis:latest"),
            ("pintle/hello:v1", "docker.io/pintle/hello:v1", "pintle/hello:v1"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
            ("docker.io/redis:7", "docker.io/library/redis:7", "redis:7"),
            (&format!("ghcr.io/a/b@{digest}"), &format!("ghcr.io/a/b@{digest}"), &format!("ghcr.io/a/b@{digest}")),
        ] {
            let parsed: Reference = written.parse().unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.familiar().as_str()), (complete, familiar));
        }
    }

    #[test]
    fn bad_references_are_refused() {
        for text in ["", "UPPER", "a:b:c", "a//b", "a/", ":tag", "a@sha256:12", "a:-x", "a b"] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn broken_references_are_refused() {
        let digest = format!("host:5000/a/b_c.d-e:tag@sha256:{}", "a".repeat(64));
        pintle_noise::feed_text(&["redis", "docker.io/library/redis:7", &digest], 2000, |text| {
            if let Ok(reference) = text.parse::<Reference>() {
                assert_eq!(reference.to_string().parse(), Ok(reference.clone()), "{text:?}");
                // As with docker, a repository of docker.io that begins like a registry has no short form that is right.
                let first = reference.repository.split('/').next().unwrap_or_default();
                if reference.registry != "docker.io" || !(first.contains('.') || first == "localhost") {
                    assert_eq!(reference.familiar().parse(), Ok(reference), "{text:?}");
                }
            }
        });
    }
}
