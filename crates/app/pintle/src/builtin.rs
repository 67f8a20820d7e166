//! The images that every node has from the start: `pintle/hello` and `pintle/pause`.

use pintle_image::{BuiltinFile, BuiltinImage, ImageError, ImageStore};
use serde_json::json;

/// Puts them into the store; costs nothing when they are there.
pub(crate) fn install(images: &ImageStore) -> Result<(), ImageError> {
    let hello = |tag: &'static str, version: &str| BuiltinImage {
        reference: tag,
        files: &[BuiltinFile { path: "hello", mode: 0o755, content: pintle_embedded::HELLO }],
        config: json!({
            "Entrypoint": ["/hello"],
            "Env": ["PATH=/", format!("VERSION={version}")],
            "ExposedPorts": { "8080/tcp": {} },
            "User": "65532:65532",
        }),
    };
    images.install(&hello("pintle/hello:latest", "v1"))?;
    images.tag("pintle/hello:latest", "pintle/hello:v1")?;
    images.install(&hello("pintle/hello:v2", "v2"))?;
    images.install(&BuiltinImage {
        reference: "pintle/pause:latest",
        files: &[BuiltinFile { path: "pause", mode: 0o755, content: pintle_embedded::PAUSE }],
        config: json!({ "Entrypoint": ["/pause"], "User": "65535:65535" }),
    })?;
    Ok(())
}
