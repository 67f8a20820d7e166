//! Reads a kubeconfig: which server, what to trust, who asks.
//!
//! Taken are certificates and keys (inline or as files), bearer tokens (inline or as files) and `tls-server-name`.
//! Password, exec and auth-provider users, proxies and `insecure-skip-tls-verify` are refused by name.

use crate::http2::{HttpConfig, HttpTransport, Token};
use crate::transport::TransportError;
use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest kubeconfig or certificate file taken, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why a kubeconfig can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no kubeconfig: {source}")]
    Parse { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("the kubeconfig names no {what} {name:?}")]
    Missing { what: &'static str, name: String },
    #[error("the kubeconfig's {field} is not supported; use a client certificate or a token")]
    NotSupported { field: &'static str },
    #[error("the kubeconfig's {field}: {why}")]
    Invalid { field: &'static str, why: String },
    #[error(transparent)]
    Transport(#[from] TransportError),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
struct File {
    current_context: String,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    exec: Option<serde_yaml_ng::Value>,
    auth_provider: Option<serde_yaml_ng::Value>,
}

/// The current context of a kubeconfig.
#[derive(Clone)]
pub struct Kubeconfig {
    /// The namespace that the context names.
    pub namespace: Option<String>,
    cluster: Cluster,
    user: User,
    folder: PathBuf,
}

impl Kubeconfig {
    /// Reads a file; relative paths in it count from its folder.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KubeconfigError> {
        let path = path.as_ref();
        let text = read_bounded(path)?;
        let file: File = serde_yaml_ng::from_slice(&text)
            .map_err(|source| KubeconfigError::Parse { path: path.to_owned(), source })?;
        let context = find("context", &file.current_context, file.contexts.into_iter().map(|c| (c.name, c.context)))?;
        let cluster = find("cluster", &context.cluster, file.clusters.into_iter().map(|c| (c.name, c.cluster)))?;
        let user = find("user", &context.user, file.users.into_iter().map(|u| (u.name, u.user)))?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let config = Self { namespace: context.namespace, cluster, user, folder };
        config.refuse_unsupported()?;
        Ok(config)
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        &self.cluster.server
    }

    /// A transport to the server; connects at the first request.
    pub fn transport(&self) -> Result<HttpTransport, KubeconfigError> {
        Ok(HttpTransport::new(self.http_config()?)?)
    }

    /// The same as settings, for callers that speak to the server in another way.
    pub fn http_config(&self) -> Result<HttpConfig, KubeconfigError> {
        let invalid = |why: http::uri::InvalidUri| KubeconfigError::Invalid { field: "server", why: why.to_string() };
        let server: http::Uri = self.cluster.server.parse().map_err(invalid)?;
        let tls = (server.scheme_str() == Some("https")).then(|| self.tls()).transpose()?.map(Arc::new);
        let token = match (&self.user.token, &self.user.token_file) {
            (_, Some(path)) => Some(Token::File(self.folder.join(path))),
            (Some(token), None) => Some(Token::Fixed(token.clone())),
            (None, None) => None,
        };
        Ok(HttpConfig { server, tls, server_name: self.cluster.tls_server_name.clone(), token })
    }

    fn refuse_unsupported(&self) -> Result<(), KubeconfigError> {
        for (present, field) in [
            (self.cluster.insecure_skip_tls_verify, "insecure-skip-tls-verify"),
            (self.cluster.proxy_url.is_some(), "proxy-url"),
            (self.user.username.is_some(), "username"),
            (self.user.exec.is_some(), "exec"),
            (self.user.auth_provider.is_some(), "auth-provider"),
        ] {
            if present {
                return Err(KubeconfigError::NotSupported { field });
            }
        }
        Ok(())
    }

    /// TLS settings: trust in the cluster's authority, and the user's certificate if there is one.
    pub fn tls(&self) -> Result<rustls::ClientConfig, KubeconfigError> {
        let field = "certificate-authority";
        let cluster = &self.cluster;
        let pem = self
            .pem(field, &cluster.certificate_authority_data, &cluster.certificate_authority)?
            .ok_or_else(|| KubeconfigError::Invalid { field, why: "is needed for https".into() })?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(field, &pem)? {
            roots.add(certificate).map_err(|e| KubeconfigError::Invalid { field, why: e.to_string() })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| KubeconfigError::Invalid { field, why: e.to_string() })?
            .with_root_certificates(roots);
        let user = &self.user;
        let Some(chain) = self.pem("client-certificate", &user.client_certificate_data, &user.client_certificate)?
        else {
            return Ok(builder.with_no_client_auth());
        };
        let field = "client-key";
        let key = self
            .pem(field, &user.client_key_data, &user.client_key)?
            .ok_or_else(|| KubeconfigError::Invalid { field, why: "is needed with a client certificate".into() })?;
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|e| KubeconfigError::Invalid { field, why: e.to_string() })?;
        builder
            .with_client_auth_cert(certificates("client-certificate", &chain)?, key)
            .map_err(|e| KubeconfigError::Invalid { field, why: e.to_string() })
    }

    /// PEM text given inline (base64) or as a file.
    fn pem(
        &self,
        field: &'static str,
        inline: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Vec<u8>>, KubeconfigError> {
        if let Some(text) = inline {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim());
            return decoded.map(Some).map_err(|e| KubeconfigError::Invalid { field, why: e.to_string() });
        }
        file.as_ref().map(|path| read_bounded(&self.folder.join(path))).transpose()
    }
}

fn find<T>(
    what: &'static str,
    name: &str,
    mut entries: impl Iterator<Item = (String, T)>,
) -> Result<T, KubeconfigError> {
    let found = entries.find(|(entry, _)| entry == name).map(|(_, value)| value);
    found.ok_or_else(|| KubeconfigError::Missing { what, name: name.to_owned() })
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(list) if list.is_empty() => Err(KubeconfigError::Invalid { field, why: "holds no certificate".into() }),
        Ok(list) => Ok(list),
        Err(error) => Err(KubeconfigError::Invalid { field, why: error.to_string() }),
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, KubeconfigError> {
    use std::io::Read;
    let failed = |source| KubeconfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("longer than {MAX_FILE_BYTES} bytes");
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message)));
    }
    Ok(bytes)
}
