//! Searches registries for images.

use crate::State;
use crate::answer::{Result, value};
use crate::call::{Call, is_truth};
use pintle_docker::DockerError;
use serde_json::{Value, json};

/// How many are asked for when the client does not say.
const USUAL: u32 = 25;
const MOST: u32 = 100;

pub(crate) async fn search(state: &State, call: &Call) -> Result {
    let limit = match call.query.get("limit") {
        "" | "0" => USUAL,
        text => text.parse().map_err(|_| DockerError::invalid("invalid limit specified"))?,
    };
    if limit > MOST {
        return Err(DockerError::invalid(format!("limit {limit} is outside the range of [1, {MOST}]")));
    }
    let term = call.query.get("term");
    if term.contains("://") {
        let why = format!("invalid repository name: repository name ({term}) should not have a scheme");
        return Err(DockerError::invalid(why));
    }
    let filters = call.query.filters()?;
    let mut wanted = Wanted::default();
    for (key, values) in &filters {
        let bad = |text: &String| DockerError::invalid(format!("invalid filter '{key}={text}'"));
        for text in values {
            match key.as_str() {
                "is-official" if is_truth(text) => wanted.official = Some(matches!(text.as_str(), "true" | "1")),
                // No image is built automatically any more.
                "is-automated" if is_truth(text) => wanted.nothing |= matches!(text.as_str(), "true" | "1"),
                "stars" => wanted.stars = wanted.stars.max(text.parse().map_err(|_| bad(text))?),
                "is-official" | "is-automated" => return Err(bad(text)),
                _ => return Err(DockerError::invalid(format!("invalid filter '{key}'"))),
            }
        }
    }
    if wanted.nothing {
        return value(&json!([]));
    }
    let found = pintle_distribution::search(term, limit, &state.registries).await;
    let found = found.map_err(|error| DockerError::internal(error.to_string()))?;
    value(&found.into_iter().filter(|image| wanted.fits(image)).collect::<Vec<_>>())
}

/// What `--filter` says.
#[derive(Default)]
struct Wanted {
    official: Option<bool>,
    stars: u64,
    nothing: bool,
}

impl Wanted {
    fn fits(&self, image: &Value) -> bool {
        self.official.is_none_or(|official| image["is_official"].as_bool().unwrap_or_default() == official)
            && image["star_count"].as_u64().unwrap_or_default() >= self.stars
    }
}
