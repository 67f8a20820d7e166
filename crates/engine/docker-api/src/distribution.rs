//! What a registry says of an image without pulling it.

use crate::State;
use crate::answer::{Result, value};
use crate::auth::credentials;
use crate::call::Call;
use crate::images::{create::words, reference};
use pintle_distribution::describe;
use pintle_docker::DockerError;
use serde_json::json;

pub(crate) async fn inspect(state: &State, call: &Call, name: &str) -> Result {
    let reference = reference(name)?;
    let described = describe(&reference, credentials(call), &state.registries).await;
    let described = described.map_err(|error| {
        let status = if error.is_unauthorized() { 401 } else { 404 };
        DockerError::new(status, words(&error, &reference))
    })?;
    let platforms = described.platforms.iter().map(|(os, architecture, variant)| {
        let mut platform = json!({ "architecture": architecture, "os": os });
        if !variant.is_empty() {
            platform["variant"] = json!(variant);
        }
        platform
    });
    value(&json!({
        "Descriptor": {
            "mediaType": described.media_type,
            "digest": described.digest,
            "size": described.size,
        },
        "Platforms": platforms.collect::<Vec<_>>(),
    }))
}
