//! Everything that the settings say of authentication and authorization, made into what decides.

use crate::User;
use crate::authentication::anonymous::Anonymous;
use crate::authentication::configuration::{OidcSettings, load};
use crate::authentication::front_proxy::{CertificateCheck, FrontProxy, FrontProxySettings};
use crate::authentication::keys::{KeyRing, PublicKey, Signer};
use crate::authentication::service_account::ServiceAccounts;
use crate::authentication::static_token::StaticTokens;
use crate::authentication::tokens::Tokens;
use crate::authentication::webhook::TokenWebhook;
use crate::authorization::Authorizer;
use crate::authorization::configuration::AuthorizationSettings;
use crate::configuration::{ConfigurationError, read_file};
use arc_swap::ArcSwap;
use pintle_pki::SigningKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a server has without any setting.
#[derive(Clone, Debug)]
pub struct Basics {
    pub token_key: Arc<SigningKey>,
    pub issuer: String,
    pub static_tokens: Vec<(String, User)>,
    /// `--anonymous-auth`.
    pub anonymous: bool,
    /// The authority of clients' certificates (PEM).
    pub client_authority_pem: String,
}

/// The settings by their flags; the default is a cluster of service accounts, nodes and roles.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    pub authorization: AuthorizationSettings,
    /// `--authentication-config`; excludes `--oidc-*`.
    pub authentication_file: Option<PathBuf>,
    /// `--oidc-*`.
    pub oidc: Option<OidcSettings>,
    /// `--token-auth-file`.
    pub token_file: Option<PathBuf>,
    /// `--authentication-token-webhook-config-file`.
    pub token_webhook: Option<PathBuf>,
    /// `--authentication-token-webhook-version`; empty is `v1beta1`, as upstream's.
    pub token_webhook_version: String,
    /// `--authentication-token-webhook-cache-ttl`; two minutes by default.
    pub token_webhook_ttl: Option<Duration>,
    /// `--enable-bootstrap-token-auth`.
    pub bootstrap_tokens: bool,
    /// `--service-account-signing-key-file`.
    pub signing_key_file: Option<PathBuf>,
    /// `--service-account-key-file`: keys that check tokens besides the signing one.
    pub key_files: Vec<PathBuf>,
    /// `--service-account-issuer`, the first issues; empty is the cluster's own.
    pub issuers: Vec<String>,
    /// `--api-audiences`; empty is the first issuer.
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration`.
    pub max_token_expiration: Option<Duration>,
    /// `--service-account-extend-token-expiration=false`.
    pub keep_expiration: bool,
    /// `--requestheader-*`.
    pub front_proxy: Option<FrontProxySettings>,
}

/// Decides who asks and whether they may.
#[derive(Debug)]
pub struct Auth {
    pub tokens: Tokens,
    pub authorizer: Arc<Authorizer>,
    pub anonymous: ArcSwap<Anonymous>,
    pub front_proxy: Option<FrontProxy>,
    /// Tells clients from front proxies; only there when there are proxies.
    pub clients: Option<CertificateCheck>,
    authentication_file: Option<PathBuf>,
    anonymous_flag: bool,
}

/// How often the authentication file is looked at, as upstream does.
const RELOAD_PERIOD: Duration = Duration::from_secs(60);

impl AuthSettings {
    /// Reads all files that the settings name.
    pub fn build(&self, basics: Basics) -> Result<Auth, ConfigurationError> {
        if self.authentication_file.is_some() && self.oidc.is_some() {
            let why = "authentication-config file and oidc-* flags are mutually exclusive".into();
            return Err(ConfigurationError::Invalid { what: "--authentication-config".into(), why });
        }
        let mut tokens = Tokens::new(self.accounts(&basics)?);
        tokens.fixed = StaticTokens::new(basics.static_tokens.clone());
        if let Some(path) = &self.token_file {
            tokens.fixed.extend(StaticTokens::load(path)?);
        }
        tokens.bootstrap = self.bootstrap_tokens;
        if let Some(oidc) = &self.oidc {
            tokens.issuers.store(Arc::new(vec![Arc::new(oidc.issuer()?)]));
        }
        if let Some(path) = &self.token_webhook {
            let version = if self.token_webhook_version.is_empty() { "v1beta1" } else { &self.token_webhook_version };
            let ttl = self.token_webhook_ttl.unwrap_or(Duration::from_secs(120));
            tokens.webhook = Some(TokenWebhook::new(path, version, ttl)?);
        }
        let invalid = |why| ConfigurationError::Invalid { what: "--requestheader-client-ca-file".into(), why };
        let front_proxy = self.front_proxy.clone().map(FrontProxy::new).transpose().map_err(invalid)?;
        let clients = front_proxy.as_ref().map(|_| CertificateCheck::new(&basics.client_authority_pem));
        let auth = Auth {
            tokens,
            authorizer: Arc::new(Authorizer::new(self.authorization.modes()?)),
            anonymous: ArcSwap::default(),
            front_proxy,
            clients: clients.transpose().map_err(invalid)?,
            authentication_file: self.authentication_file.clone(),
            anonymous_flag: basics.anonymous,
        };
        auth.reload()?;
        Ok(auth)
    }

    fn accounts(&self, basics: &Basics) -> Result<ServiceAccounts, ConfigurationError> {
        let invalid =
            |path: &PathBuf, why: String| ConfigurationError::Invalid { what: path.display().to_string(), why };
        let own = Signer::from(basics.token_key.clone());
        let (signer, mut others) = match &self.signing_key_file {
            None => (own, Vec::new()),
            Some(path) => {
                let signer = Signer::from_pem(&read_file(path)?).map_err(|e| invalid(path, e.to_string()))?;
                (signer, vec![own.public().clone()])
            }
        };
        for path in &self.key_files {
            others.extend(PublicKey::all_from_pem(&read_file(path)?).map_err(|e| invalid(path, e.to_string()))?);
        }
        let issuers = if self.issuers.is_empty() { vec![basics.issuer.clone()] } else { self.issuers.clone() };
        let audiences = if self.audiences.is_empty() { vec![issuers[0].clone()] } else { self.audiences.clone() };
        Ok(ServiceAccounts {
            keys: KeyRing::new(signer, others),
            issuers,
            audiences,
            extend_expiration: !self.keep_expiration,
            max_seconds: self.max_token_expiration.map(|time| time.as_secs().try_into().unwrap_or(i64::MAX)),
        })
    }
}

impl Auth {
    /// What a server has without any setting: nothing is read, so nothing can fail.
    pub fn basic(basics: Basics) -> Self {
        let accounts = ServiceAccounts {
            keys: KeyRing::new(basics.token_key.into(), Vec::new()),
            audiences: vec![basics.issuer.clone()],
            issuers: vec![basics.issuer],
            extend_expiration: true,
            max_seconds: None,
        };
        let mut tokens = Tokens::new(accounts);
        tokens.fixed = StaticTokens::new(basics.static_tokens);
        Self {
            tokens,
            authorizer: Arc::default(),
            anonymous: ArcSwap::from_pointee(Anonymous { enabled: basics.anonymous, paths: Vec::new() }),
            front_proxy: None,
            clients: None,
            authentication_file: None,
            anonymous_flag: basics.anonymous,
        }
    }

    /// Reads the authentication file again. When it is wrong, what was read before goes on to count.
    pub fn reload(&self) -> Result<(), ConfigurationError> {
        let mut anonymous = Anonymous { enabled: self.anonymous_flag, paths: Vec::new() };
        if let Some(path) = &self.authentication_file {
            let loaded = load(path, &self.tokens.accounts.issuers)?;
            anonymous = loaded.anonymous.unwrap_or(anonymous);
            self.tokens.issuers.store(Arc::new(loaded.issuers));
        }
        self.anonymous.store(Arc::new(anonymous));
        Ok(())
    }

    /// Takes over changes of the authentication file until `stop`; ends at once when there is none.
    pub async fn follow_file(&self, stop: CancellationToken) {
        let Some(path) = &self.authentication_file else { return };
        let mut known = read_file(path).ok();
        while stop.run_until_cancelled(tokio::time::sleep(RELOAD_PERIOD)).await.is_some() {
            let Ok(now) = read_file(path) else { continue };
            if known.as_ref() == Some(&now) {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!(file = %path.display(), "the authentication file was read again"),
                Err(error) => tracing::error!(%error, "the authentication file has changed, but can't be used"),
            }
            known = Some(now);
        }
    }
}
