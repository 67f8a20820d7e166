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
    authorization: AuthorizationSettings,
    anonymous_flag: bool,
}

/// How often the two files are looked at, as upstream does.
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
            authorization: self.authorization.clone(),
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
        let mut accounts = ServiceAccounts::new(KeyRing::new(signer, others), issuers, self.audiences.clone());
        accounts.extend_expiration = !self.keep_expiration;
        accounts.max_seconds = self.max_token_expiration.map(|time| time.as_secs().try_into().unwrap_or(i64::MAX));
        Ok(accounts)
    }
}

impl Auth {
    /// What a server has without any setting: nothing is read, so nothing can fail.
    pub fn basic(basics: Basics) -> Self {
        let keys = KeyRing::new(basics.token_key.into(), Vec::new());
        let accounts = ServiceAccounts::new(keys, vec![basics.issuer], Vec::new());
        let mut tokens = Tokens::new(accounts);
        tokens.fixed = StaticTokens::new(basics.static_tokens);
        Self {
            tokens,
            authorizer: Arc::default(),
            anonymous: ArcSwap::from_pointee(Anonymous { enabled: basics.anonymous, paths: Vec::new() }),
            front_proxy: None,
            clients: None,
            authentication_file: None,
            authorization: AuthorizationSettings::default(),
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

    fn reload_authorization(&self) -> Result<(), ConfigurationError> {
        let invalid = |why| ConfigurationError::Invalid { what: "--authorization-config".into(), why };
        self.authorizer.replace(self.authorization.modes()?).map_err(invalid)
    }

    /// Takes over changes of the two files until `stop`; ends at once when there are none.
    pub async fn follow_files(&self, stop: CancellationToken) {
        type Reload = fn(&Auth) -> Result<(), ConfigurationError>;
        let files: [(&Option<PathBuf>, Reload); 2] =
            [(&self.authentication_file, Self::reload), (&self.authorization.file, Self::reload_authorization)];
        let named = files.into_iter().filter_map(|(file, reload)| file.as_deref().map(|path| (path, reload)));
        let mut known: Vec<_> = named.map(|(path, reload)| (path, reload, read_file(path).ok())).collect();
        if known.is_empty() {
            return;
        }
        while stop.run_until_cancelled(tokio::time::sleep(RELOAD_PERIOD)).await.is_some() {
            for (path, reload, text) in &mut known {
                let Some(now) = read_file(path).ok().filter(|now| text.as_ref() != Some(now)) else { continue };
                match reload(self) {
                    Ok(()) => tracing::info!(file = %path.display(), "the file was read again"),
                    Err(error) => tracing::error!(%error, "the file has changed, but can't be used"),
                }
                *text = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basics() -> Basics {
        Basics {
            token_key: Arc::new(SigningKey::ephemeral().unwrap()),
            issuer: "https://own".into(),
            static_tokens: Vec::new(),
            anonymous: true,
            client_authority_pem: String::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_count_within_a_minute_unless_they_are_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let (who, may) = (folder.path().join("authentication.yaml"), folder.path().join("authorization.yaml"));
        let head = |kind: &str| format!("apiVersion: apiserver.config.k8s.io/v1\nkind: {kind}\n");
        let write = |anonymous: &str, authorizers: &str| {
            let text = format!("{}anonymous: {anonymous}\n", head("AuthenticationConfiguration"));
            std::fs::write(&who, text).unwrap();
            let text = format!("{}authorizers: {authorizers}\n", head("AuthorizationConfiguration"));
            std::fs::write(&may, text).unwrap();
        };
        write("{enabled: false}", "[{type: AlwaysDeny, name: d}, {type: AlwaysAllow, name: a}]");
        let mut settings = AuthSettings { authentication_file: Some(who.clone()), ..AuthSettings::default() };
        settings.authorization.file = Some(may.clone());
        let auth = Arc::new(settings.build(basics()).unwrap());
        let stop = CancellationToken::new();
        let following = tokio::spawn({
            let (auth, stop) = (auth.clone(), stop.clone());
            async move { auth.follow_files(stop).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!auth.anonymous.load().admits("/livez"));
        write("{enabled: true, conditions: [{path: /livez}]}", "[{type: RBAC, name: r}]");
        tokio::time::sleep(RELOAD_PERIOD).await;
        assert!(auth.anonymous.load().admits("/livez") && !auth.anonymous.load().admits("/api"));
        let decision = auth.authorizer.decide(&User::anonymous(), &Default::default()).await;
        assert!(decision.allowed, "another set of built-in modes is not taken over: {decision:?}");
        stop.cancel();
        following.await.unwrap();
    }
}
