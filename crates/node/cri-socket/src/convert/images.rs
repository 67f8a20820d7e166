//! Images, and who may pull them.

use super::Converted;
use crate::messages as m;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pintle_cri as cri;
use pintle_grpc::Status;

impl From<cri::Image> for m::Image {
    fn from(of: cri::Image) -> Self {
        Self {
            id: of.id,
            repo_tags: of.repo_tags,
            repo_digests: of.repo_digests,
            size: of.size,
            uid: of.uid.map(|value| m::Int64Value { value }),
            username: of.username,
            spec: None,
            pinned: false,
        }
    }
}

impl From<m::Image> for cri::Image {
    fn from(of: m::Image) -> Self {
        Self {
            id: of.id,
            repo_tags: of.repo_tags,
            repo_digests: of.repo_digests,
            size: of.size,
            uid: of.uid.map(|uid| uid.value),
            username: of.username,
        }
    }
}

impl From<cri::AuthConfig> for m::AuthConfig {
    fn from(of: cri::AuthConfig) -> Self {
        Self {
            username: of.username,
            password: of.password,
            auth: String::new(),
            server_address: of.server_address,
            identity_token: of.identity_token,
            registry_token: of.registry_token,
        }
    }
}

impl TryFrom<m::AuthConfig> for cri::AuthConfig {
    type Error = Status;
    /// `auth` is the name and password in one: `base64(name:password)`.
    fn try_from(of: m::AuthConfig) -> Converted<Self> {
        let (mut username, mut password) = (of.username, of.password);
        if !of.auth.is_empty() && username.is_empty() {
            let bad = || Status::invalid("auth is not the base64 form of NAME:PASSWORD");
            let text = STANDARD.decode(&of.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or_else(bad)?;
            let (name, secret) = text.split_once(':').ok_or_else(bad)?;
            (username, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
        Ok(Self {
            username,
            password,
            server_address: of.server_address,
            identity_token: of.identity_token,
            registry_token: of.registry_token,
        })
    }
}
