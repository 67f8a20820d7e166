//! Credentials for registries: how clients send them, and whether a registry takes them.

use crate::State;
use crate::answer::{Result, value};
use crate::call::Call;
use base64::Engine;
use pintle_distribution::{Credentials, Registry};
use pintle_docker::DockerError;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;

/// What clients send in the header `X-Registry-Auth` and to `/auth`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

impl From<AuthConfig> for Credentials {
    fn from(auth: AuthConfig) -> Self {
        Self {
            username: auth.username,
            password: auth.password,
            identity_token: auth.identitytoken,
            registry_token: auth.registrytoken,
        }
    }
}

/// The credentials of a request; none when there are none that can be read, as with Docker.
pub(crate) fn credentials(call: &Call) -> Credentials {
    let text = call.header("x-registry-auth").trim_end_matches('=');
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bytes = engine.decode(text).unwrap_or_default();
    serde_json::from_slice::<AuthConfig>(&bytes).unwrap_or_default().into()
}

/// The credentials for several registries that a build may pull from, by their addresses.
pub(crate) fn registry_credentials(call: &Call) -> HashMap<String, Credentials> {
    let text = call.header("x-registry-config").trim_end_matches('=');
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bytes = engine.decode(text).unwrap_or_default();
    let all: HashMap<String, AuthConfig> = serde_json::from_slice(&bytes).unwrap_or_default();
    all.into_iter().map(|(address, auth)| (address, auth.into())).collect()
}

/// `docker login`
pub(crate) async fn route(state: &State, call: &mut Call) -> Result {
    let auth: AuthConfig = call.json().await?;
    let address = auth.serveraddress.trim_start_matches("https://").trim_start_matches("http://");
    let host = match address.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
    .to_owned();
    let login = Registry::login(&host, auth.into(), &state.registries).await;
    login.map_err(|e| {
        let status = if e.is_unauthorized() { 401 } else { 500 };
        DockerError::new(status, e.to_string())
    })?;
    value(&json!({ "IdentityToken": "", "Status": "Login Succeeded" }))
}
