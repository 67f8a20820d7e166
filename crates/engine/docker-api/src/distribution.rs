//! What a registry says of an image without pulling it.

use crate::State;
use crate::answer::Result;
use crate::call::Call;
use pintle_docker::DockerError;
use std::sync::Arc;

#[allow(clippy::unused_async)]
pub(crate) async fn inspect(_state: &Arc<State>, _call: &Call, name: &str) -> Result {
    Err(DockerError::unsupported(&format!("asking a registry about {name}")))
}
