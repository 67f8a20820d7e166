//! Takes names and images away by Docker's rules: what is in use stays, and parents that nobody named go along.

use crate::record::{ImageRecord, Images, find};
use crate::{ImageError, ImageStore, Reference, Result};
use std::collections::HashSet;

/// A container that was made of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUser {
    pub container_id: String,
    pub image_id: String,
    pub running: bool,
}

/// One line of `docker rmi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A complete name, and the image that had it.
    Untagged { reference: String, image: String },
    /// An image's id.
    Image(String),
    /// A layer's chain ID, and the bytes of its files.
    Layer { chain_id: String, bytes: u64 },
}

/// Which images `docker image prune` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneFilter {
    /// Also images with names; else only those without.
    pub all: bool,
    /// Only those made before, in seconds since 1970.
    pub until: Option<i64>,
    /// Labels that they must have, with this value where one is given.
    pub labels: Vec<(String, Option<String>)>,
    /// Labels that they must not have.
    pub not_labels: Vec<(String, Option<String>)>,
}

/// What a prune took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    /// Bytes of files.
    pub reclaimed: u64,
}

/// Why an image stays.
struct InTheWay {
    hard: bool,
    used: bool,
    message: String,
}

/// What may be in an image's way.
#[derive(Clone, Copy)]
struct Soft {
    references: bool,
    stopped: bool,
}

impl ImageStore {
    /// `docker rmi`: by a name, that name, and with the last one the image; by an id, the image. With `prune` its
    /// parents that have no name and no other child go too.
    ///
    /// # Errors
    /// [`ImageError::Conflict`] with Docker's words when a container or another image needs it.
    pub fn remove_image(&self, name: &str, force: bool, prune: bool, users: &[ImageUser]) -> Result<Vec<Removed>> {
        let used = self.used_chains()?;
        let removed = self.change(|images| {
            let mut removal = Removal { images, users, used: &used, removed: Vec::new() };
            removal.by_name(name, force, prune)?;
            Ok(removal.removed)
        })?;
        if removed.iter().any(|r| matches!(r, Removed::Image(_))) {
            self.sweep()?;
        }
        Ok(removed)
    }

    /// `docker image prune`: images without a name, or all that no container uses.
    pub fn prune(&self, filter: &PruneFilter, users: &[ImageUser]) -> Result<Pruned> {
        let used = self.used_chains()?;
        let removed = self.change(|images| {
            let mut removal = Removal { images, users, used: &used, removed: Vec::new() };
            removal.prune(filter);
            Ok(removal.removed)
        })?;
        self.sweep()?;
        let bytes = |r: &Removed| if let Removed::Layer { bytes, .. } = r { *bytes } else { 0 };
        Ok(Pruned { reclaimed: removed.iter().map(bytes).sum(), removed })
    }

    /// The images that were made on top of this one here.
    pub fn children(&self, id: &str) -> Vec<String> {
        self.with_images(|images| children(images, id))
    }
}

fn children(images: &Images, id: &str) -> Vec<String> {
    images.values().filter(|i| i.parent.as_deref() == Some(id)).map(|i| i.id.clone()).collect()
}

struct Removal<'a> {
    images: &'a mut Images,
    users: &'a [ImageUser],
    /// Layers that snapshots stand on.
    used: &'a HashSet<String>,
    removed: Vec<Removed>,
}

/// The first twelve digits of an id.
fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// Whether all names are of one repository, with one tag at most.
fn is_single(references: &[String]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let (digests, tags): (Vec<&String>, Vec<&String>) = references.iter().partition(|r| r.contains('@'));
    let repositories: HashSet<String> = digests.iter().filter_map(|d| repository(d)).collect();
    let first = tags.first().or(digests.first()).and_then(|r| repository(r));
    tags.len() <= 1 && repositories.len() == 1 && first.is_some_and(|f| repositories.contains(&f))
}

fn repository(reference: &str) -> Option<String> {
    reference.parse::<Reference>().ok().map(|r| r.name())
}

impl Removal<'_> {
    fn references(&self, id: &str) -> Vec<String> {
        self.images.get(id).map(ImageRecord::references).unwrap_or_default()
    }

    fn by_name(&mut self, name: &str, force: bool, prune: bool) -> Result<()> {
        let image = find(self.images, name).ok_or_else(|| ImageError::NotFound(name.into()))?;
        let id = image.id.clone();
        let is_id = id.starts_with(name) || id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(name));
        let references = self.references(&id);
        if is_id {
            if is_single(&references) {
                let soft = Soft { references: false, stopped: !force };
                self.check(&id, soft).map_err(|why| conflict(&id, &why))?;
                references.iter().for_each(|r| self.untag(&id, r));
            }
            return self.delete(&id, force, prune, false);
        }
        let user = self.users.iter().find(|u| u.image_id == id);
        if let Some(user) = user.filter(|_| !force && is_single(&references)) {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                 referenced image {}",
                short(&user.container_id),
                short(&id)
            )));
        }
        self.untag_name(&id, &name.parse::<Reference>()?);
        if self.references(&id).is_empty() {
            return self.delete(&id, force, prune, true);
        }
        Ok(())
    }

    /// Takes a name away, and when it was the last tag of its repository, the repository's digests.
    fn untag_name(&mut self, id: &str, reference: &Reference) {
        let written = match &reference.digest {
            Some(_) => Reference { tag: None, ..reference.clone() }.to_string(),
            None => reference.to_string(),
        };
        self.untag(id, &written);
        let left = self.references(id);
        let of_repository = |r: &&String| repository(r).is_some_and(|name| name == reference.name());
        let tagged = left.iter().filter(of_repository).any(|r| !r.contains('@'));
        if reference.digest.is_none() && !tagged {
            for digest in left.iter().filter(of_repository) {
                self.untag(id, digest);
            }
        }
    }

    fn untag(&mut self, id: &str, reference: &str) {
        if let Some(image) = self.images.get_mut(id) {
            image.forget(reference);
            self.removed.push(Removed::Untagged { reference: reference.to_owned(), image: id.to_owned() });
        }
    }

    /// What keeps an image: hard reasons always count, soft ones where asked.
    fn check(&self, id: &str, soft: Soft) -> std::result::Result<(), InTheWay> {
        let stays = |hard, used, message: String| Err(InTheWay { hard, used, message });
        if !children(self.images, id).is_empty() {
            return stays(true, false, "image has dependent child images".into());
        }
        let mut users = self.users.iter().filter(|u| u.image_id == id);
        if let Some(user) = users.clone().find(|u| u.running) {
            let message = format!("image is being used by running container {}", short(&user.container_id));
            return stays(true, true, message);
        }
        if soft.references && !self.references(id).is_empty() {
            return stays(false, false, "image is referenced in multiple repositories".into());
        }
        if let Some(user) = users.next().filter(|_| soft.stopped) {
            let message = format!("image is being used by stopped container {}", short(&user.container_id));
            return stays(false, true, message);
        }
        Ok(())
    }

    /// Deletes an image. Quietly: what keeps it is no error, unless it would be left without a name and unused.
    fn delete(&mut self, id: &str, force: bool, prune: bool, quiet: bool) -> Result<()> {
        let soft = Soft { references: !force, stopped: !force };
        if let Err(why) = self.check(id, soft) {
            let dangling = self.references(id).is_empty() && children(self.images, id).is_empty();
            return if quiet && (!dangling || why.used) { Ok(()) } else { Err(conflict(id, &why)) };
        }
        for reference in self.references(id) {
            self.untag(id, &reference);
        }
        let Some(image) = self.images.remove(id) else { return Ok(()) };
        self.removed.push(Removed::Image(id.to_owned()));
        let kept: HashSet<&String> = self.images.values().flat_map(|i| &i.chain).chain(self.used).collect();
        for (chain_id, layer) in image.chain.iter().zip(&image.layers).rev() {
            if !kept.contains(chain_id) {
                self.removed.push(Removed::Layer { chain_id: chain_id.clone(), bytes: layer.content });
            }
        }
        match image.parent {
            Some(parent) if prune && self.images.contains_key(&parent) => self.delete(&parent, false, true, true),
            _ => Ok(()),
        }
    }

    fn prune(&mut self, filter: &PruneFilter) {
        let fits = |i: &&ImageRecord| {
            let labels = i.configuration.config().as_ref().and_then(|c| c.labels().clone()).unwrap_or_default();
            let has = |(key, value): &(String, Option<String>)| {
                labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|v| v == found))
            };
            (filter.all || i.tags.is_empty())
                && filter.until.is_none_or(|until| i.created_seconds() < until)
                && filter.labels.iter().all(has)
                && !filter.not_labels.iter().any(has)
        };
        let chosen: Vec<String> = self.images.values().filter(fits).map(|i| i.id.clone()).collect();
        let mut before = usize::MAX;
        // A parent can go when its children have gone.
        while before != self.removed.len() {
            before = self.removed.len();
            chosen.iter().for_each(|id| self.prune_one(id));
        }
    }

    fn prune_one(&mut self, id: &str) {
        // What is in use or has children stays; that is no error here. A parent may be gone with its child.
        if self.users.iter().any(|u| u.image_id == id) || !children(self.images, id).is_empty() {
            return;
        }
        for reference in self.references(id) {
            self.untag(id, &reference);
        }
        // As above.
        let _ = self.delete(id, false, true, true);
    }
}

fn conflict(id: &str, why: &InTheWay) -> ImageError {
    let force = if why.hard { "cannot be forced" } else { "must be forced" };
    ImageError::Conflict(format!("conflict: unable to delete {} ({force}) - {}", short(id), why.message))
}
