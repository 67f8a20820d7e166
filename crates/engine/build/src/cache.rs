//! The build cache: which image a step on another image made, by everything that shaped it.
//!
//! An entry is a small file named by its key, which holds the image's id. The key covers the parent, the platform, the
//! author and the whole configuration that the step would run with: in its command are the instruction's expanded
//! text, the checksums of what is copied and the build arguments in use. Only what was built here has an entry, so an
//! image that was loaded or pulled never passes for the result of a step (CVE-2024-24557).

use pintle_docker::model::Config;
use pintle_image::ImageStore;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io;
use std::path::PathBuf;

/// Changes when keys come to mean something else.
const VERSION: u32 = 1;

/// What shapes the result of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    /// Empty without one.
    pub parent: &'a str,
    pub platform: &'a str,
    pub author: &'a str,
    /// What the step would run with, its text as the command.
    pub config: &'a Config,
}

impl Shape<'_> {
    /// The key of the step.
    pub fn key(&self) -> String {
        // Where it runs does not shape the result.
        let config = Config {
            image: String::new(),
            hostname: String::new(),
            domainname: String::new(),
            mac_address: String::new(),
            ..self.config.clone()
        };
        let all = json!([VERSION, self.parent, self.platform, self.author, config]);
        hex::encode(Sha256::digest(all.to_string().as_bytes()))
    }
}

/// The entries on the disk.
#[derive(Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// The image of a step that was done before, if it is still there and still stands on its parent.
    pub fn find(&self, shape: &Shape<'_>, images: &ImageStore) -> Option<String> {
        let id = std::fs::read_to_string(self.0.join(shape.key())).ok()?;
        let image = images.resolve(&id).filter(|image| image.id == id)?;
        (image.parent.unwrap_or_default() == shape.parent).then_some(id)
    }

    /// Notes what a step made. Without the note it is only done again.
    pub fn note(&self, shape: &Shape<'_>, id: &str) {
        let path = self.0.join(shape.key());
        let new = path.with_extension("new");
        let noted = std::fs::write(&new, id).and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = noted {
            tracing::warn!(path = %path.display(), %error, "a build step is not remembered");
        }
    }

    /// Removes the entries of images that are gone; returns how many.
    pub fn sweep(&self, images: &ImageStore) -> io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            let id = std::fs::read_to_string(&path).unwrap_or_default();
            if images.resolve(&id).is_none_or(|image| image.id != id) {
                std::fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_docker::model::{Empty, HealthConfig};

    fn key(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config { cmd: Some(vec!["/bin/sh".into(), "-c".into(), "x".into()]), ..Config::default() };
        change(&mut config);
        Shape { parent: "sha256:1", platform: "linux/amd64", author: "", config: &config }.key()
    }

    #[test]
    fn everything_that_shapes_a_step_is_in_its_key() {
        type Change = fn(&mut Config);
        let changes: [Change; 16] = [
            |c| c.cmd = Some(vec!["/bin/sh".into(), "-c".into(), "y".into()]),
            |c| c.cmd = Some(vec!["/bin/sh".into(), "-c x".into()]),
            |c| c.cmd = Some(vec!["|1".into(), "A=b".into(), "/bin/sh".into(), "-c".into(), "x".into()]),
            |c| c.env = Some(vec!["A=b".into()]),
            |c| c.on_build = Some(vec!["RUN evil".into()]),
            |c| c.entrypoint = Some(vec!["e".into()]),
            |c| c.user = "5".into(),
            |c| c.working_dir = "/w".into(),
            |c| c.volumes = Some([("/v".to_owned(), Empty {})].into()),
            |c| c.exposed_ports = Some([("80/tcp".to_owned(), Empty {})].into()),
            |c| c.labels = Some([("a".to_owned(), "b".to_owned())].into()),
            |c| c.healthcheck = Some(HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() }),
            |c| c.healthcheck = Some(HealthConfig { start_interval: 1, ..HealthConfig::default() }),
            |c| c.shell = Some(vec!["/bin/ash".into()]),
            |c| c.stop_signal = "SIGINT".into(),
            |c| c.stop_timeout = Some(1),
        ];
        let mut keys: Vec<String> = changes.into_iter().map(key).collect();
        keys.push(key(|_| {}));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert_eq!(key(|c| (c.image, c.hostname) = ("x".into(), "h".into())), key(|_| {}));
    }

    #[test]
    fn parent_platform_and_author_are_in_the_key() {
        let config = Config::default();
        let plain = Shape { parent: "p", platform: "linux/amd64", author: "", config: &config };
        for other in
            [Shape { parent: "", ..plain }, Shape { platform: "linux/arm64", ..plain }, Shape { author: "a", ..plain }]
        {
            assert_ne!(other.key(), plain.key());
        }
    }
}
