//! What a server needs to know before it starts.

use crate::admission::AdmissionSettings;
use crate::audit::AuditConfig;
use crate::runtime_config::RuntimeConfig;
use pintle_auth::User;
use pintle_pki::{Identity, SigningKey};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The settings of an API server.
#[derive(Clone)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// The address that the endpoints of the service `default/kubernetes` point to.
    pub advertise_address: IpAddr,
    /// How long a server that died stays among those endpoints, in seconds.
    pub endpoint_ttl_seconds: u64,
    /// The address of the service `default/kubernetes`: the first of the service range.
    pub service_address: IpAddr,
    /// The range of service addresses, or one of each family with a comma between, as the ServiceCIDR `kubernetes` has.
    pub service_cidr: String,
    /// TLS settings with client certificates verified where given ([`pintle_pki::server_config`]).
    pub tls: Arc<rustls::ServerConfig>,
    /// The authority that pods check this server's certificate with (PEM); published for the `kube-root-ca.crt` maps.
    pub authority_pem: String,
    /// Signs service account tokens.
    pub token_key: Arc<SigningKey>,
    /// The issuer of service account tokens, also their only default audience.
    pub issuer: String,
    /// Shown to kubelets; HTTP/1.1 only ([`pintle_pki::client_config_http1`]). Nothing: requests that need the
    /// kubelet are answered 503.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// Shown to other API servers that answer for a part of the API; they believe what its bearer says of the user.
    pub front_proxy: Option<Arc<Identity>>,
    /// Bearer tokens with the users they stand for.
    pub static_tokens: Vec<(String, User)>,
    /// Whether requests without credentials go on as `system:anonymous`.
    pub anonymous: bool,
    /// Who else is let in, and who decides what they may ([`pintle_auth::AuthSettings`]); counts in place of
    /// `static_tokens`, `anonymous`, `token_key` and `issuer`. Nothing: these, nodes and roles.
    pub auth: Option<Arc<pintle_auth::Auth>>,
    /// Requests that are answered at the same time, watches and streams not counted; more are told to come back.
    pub max_in_flight: usize,
    /// As many more may be writes; with priority and fairness the two are one number of seats.
    pub max_mutating_in_flight: usize,
    /// Which admission plugins judge writes, and what they are told.
    pub admission: AdmissionSettings,
    /// What is audited, if anything is.
    pub audit: Option<AuditConfig>,
    /// The value of the header `Strict-Transport-Security`, which is not sent without one.
    pub strict_transport_security: Option<http::HeaderValue>,
    /// Whether there is anything under `/debug/pprof/`.
    pub profiling: bool,
    /// Which versions of built-in kinds are served.
    pub runtime_config: RuntimeConfig,
    /// Whether objects can be had and given in CBOR: upstream's alpha feature `CBORServingAndStorage`.
    pub cbor: bool,
}

/// The default issuer and audience.
pub(crate) const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Config {
    /// Usual settings around what has no default.
    pub fn new(
        bind: SocketAddr,
        advertise_address: IpAddr,
        tls: Arc<rustls::ServerConfig>,
        authority_pem: String,
        token_key: Arc<SigningKey>,
    ) -> Self {
        Self {
            bind,
            advertise_address,
            endpoint_ttl_seconds: 15,
            service_address: IpAddr::from([10, 43, 0, 1]),
            service_cidr: "10.43.0.0/16".into(),
            tls,
            authority_pem,
            token_key,
            issuer: DEFAULT_ISSUER.into(),
            kubelet_tls: None,
            front_proxy: None,
            static_tokens: Vec::new(),
            anonymous: true,
            auth: None,
            max_in_flight: 400,
            max_mutating_in_flight: 200,
            admission: AdmissionSettings::default(),
            audit: None,
            strict_transport_security: None,
            profiling: true,
            runtime_config: RuntimeConfig::default(),
            cbor: false,
        }
    }

    /// What these settings say of authentication.
    pub fn basics(&self) -> pintle_auth::Basics {
        pintle_auth::Basics {
            token_key: self.token_key.clone(),
            issuer: self.issuer.clone(),
            static_tokens: self.static_tokens.clone(),
            anonymous: self.anonymous,
            client_authority_pem: self.authority_pem.clone(),
        }
    }
}
