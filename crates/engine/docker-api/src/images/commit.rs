//! Makes images of containers.

use crate::State;
use crate::answer::Result;
use crate::call::Call;
use pintle_docker::DockerError;
use std::sync::Arc;

#[allow(clippy::unused_async)]
pub(crate) async fn commit(_state: &Arc<State>, _call: Call) -> Result {
    Err(DockerError::unsupported("making an image of a container"))
}
