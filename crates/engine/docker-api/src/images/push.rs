//! Pushes images.

use super::told::channel;
use super::{familiar, reference, tell};
use crate::State;
use crate::answer::Result;
use crate::auth::credentials;
use crate::call::Call;
use pintle_distribution::push as send;
use pintle_image::Reference;
use std::sync::Arc;

pub(crate) async fn push(state: &Arc<State>, call: &Call, name: &str) -> Result {
    let tag = call.query.get("tag");
    let whole = if tag.is_empty() { name.to_owned() } else { format!("{name}:{tag}") };
    let wanted = reference(&whole)?;
    let all = if tag.is_empty() { tags_of(state, &wanted) } else { vec![wanted.clone()] };
    let all = if all.is_empty() { vec![wanted.clone()] } else { all };
    let (teller, answer) = channel();
    let (state, credentials) = (Arc::clone(state), credentials(call));
    tokio::spawn(async move {
        for one in all {
            let told = teller.clone();
            let progress = move |progress| told.progress(progress);
            match send(&state.images, &one, credentials.clone(), &state.registries, &progress).await {
                Ok(_) => {
                    let name = familiar(&one.to_string());
                    tell(&state, "push", &name, &name);
                }
                Err(error) => return teller.error(&error.to_string()),
            }
        }
    });
    Ok(answer)
}

/// Every tag that a repository has here.
fn tags_of(state: &State, wanted: &Reference) -> Vec<Reference> {
    let images = state.images.list();
    let tags = images.iter().flat_map(|i| &i.tags).filter_map(|t| t.parse::<Reference>().ok());
    tags.filter(|t| t.name() == wanted.name()).collect()
}
