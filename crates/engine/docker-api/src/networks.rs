//! The Engine's calls on networks.

use crate::State;
use crate::answer::Result;
use crate::call::Call;
use pintle_docker::DockerError;
use std::sync::Arc;

#[allow(clippy::unused_async)]
pub(crate) async fn route(_state: &Arc<State>, call: Call, _parts: &[&str]) -> Result {
    Err(DockerError::unsupported(&format!("{} {}", call.method, call.path)))
}
