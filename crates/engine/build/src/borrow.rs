//! Steps that images of a build's `--cache-from` went through already: found by what their histories say, as the images
//! may come from elsewhere. Only whoever asks for a build says which images are trusted so.

use oci_spec::image::History;
use pintle_image::{ImageRecord, ImageStore};

/// What the next step would make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Borrowed {
    /// This image itself: the step is its last.
    Whole(String),
    /// An image of the parent and one step of another image.
    Step {
        image: String,
        /// The place of the layer that the step made, if it made one.
        layer: Option<usize>,
        /// RFC 3339
        created: String,
    },
}

/// Whether `id` is below `image`, as far as is known here.
pub(crate) fn is_ancestor(images: &ImageStore, image: &ImageRecord, id: &str) -> bool {
    let mut next = image.parent.clone();
    while let Some(parent) = next {
        if parent == id {
            return true;
        }
        next = images.resolve(&parent).and_then(|p| p.parent);
    }
    false
}

fn history(image: &ImageRecord) -> Vec<History> {
    image.configuration.history().clone().unwrap_or_default()
}

/// Finds the step `command` on `parent` in one of the images. The one that has it is the only one for what follows.
pub(crate) fn find(sources: &mut Vec<ImageRecord>, parent: Option<&ImageRecord>, command: &str) -> Option<Borrowed> {
    let done = parent.map(history).unwrap_or_default();
    let below = parent.map(|p| p.chain.clone()).unwrap_or_default();
    let index = sources.iter().position(|source| {
        let steps = history(source);
        let same = steps.len() > done.len() && steps[..done.len()] == done[..] && source.chain.starts_with(&below);
        same && steps[done.len()].created_by().as_deref().unwrap_or_default() == command
    })?;
    let source = sources.swap_remove(index);
    let steps = history(&source);
    let step = &steps[done.len()];
    let found = if steps.len() == done.len() + 1 {
        Borrowed::Whole(source.id.clone())
    } else {
        let layer = (!step.empty_layer().unwrap_or(false)).then_some(below.len());
        Borrowed::Step { image: source.id.clone(), layer, created: step.created().clone().unwrap_or_default() }
    };
    *sources = vec![source];
    Some(found)
}
