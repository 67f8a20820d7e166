//! The commands that make a cluster of several nodes; their names and flags are kubeadm's.

use crate::Configured;
use crate::output::Format;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub struct Init {
    /// The token by which nodes join, as `abcdef.0123456789abcdef` [default: a new one]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How long the token lasts; 0 is for ever.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub token_ttl: String,
    /// Keeps the cluster's keys for two hours where further servers can fetch them, sealed; the state must be in etcd.
    #[arg(long, requires = "datastore_endpoints")]
    pub upload_certs: bool,
    #[command(flatten)]
    pub configured: Configured,
}

#[derive(Args, Clone, Debug)]
pub struct Join {
    /// The API server, as `HOST:PORT`.
    #[arg(value_name = "HOST:PORT")]
    pub endpoint: String,
    /// The token that `pintle init` or `pintle token create` printed.
    #[arg(long, value_name = "TOKEN", env = "PINTLE_TOKEN", hide_env_values = true)]
    pub token: String,
    /// The hash of the public key of the cluster's authority, as `sha256:…`; may be repeated.
    #[arg(long, value_name = "HASH")]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// Believes any authority that knows the token, when the hash is not known.
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// Makes this machine one more server of the cluster; with --certificate-key and --datastore-endpoints.
    #[arg(long, requires = "certificate_key")]
    pub control_plane: bool,
    /// The key that `pintle init --upload-certs` printed.
    #[arg(long, value_name = "KEY")]
    pub certificate_key: Option<String>,
    #[command(flatten)]
    pub configured: Configured,
}

/// Who asks: an administrator.
#[derive(Args, Clone, Debug)]
pub struct Administrator {
    /// The administrator's kubeconfig.
    #[arg(long, value_name = "FILE", default_value = "/etc/pintle/kubeconfig", env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub struct TokenCreate {
    /// The token, as `abcdef.0123456789abcdef` [default: a new one]
    pub token: Option<String>,
    /// How long the token lasts; 0 is for ever.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub ttl: String,
    /// What the token is for: signing, authentication.
    #[arg(long, value_delimiter = ',', default_value = "signing,authentication")]
    pub usages: Vec<String>,
    /// The groups that who has the token is in, besides system:bootstrappers.
    #[arg(long, value_delimiter = ',', default_value = "system:bootstrappers:kubeadm:default-node-token")]
    pub groups: Vec<String>,
    /// What a person should know about the token.
    #[arg(long)]
    pub description: Option<String>,
    /// Prints the whole command by which a node joins with the token.
    #[arg(long)]
    pub print_join_command: bool,
    #[command(flatten)]
    pub administrator: Administrator,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes a token.
    Create(TokenCreate),
    /// Lists tokens.
    List {
        /// `table` or `json`.
        #[arg(short, long, default_value = "table")]
        output: Format,
        #[command(flatten)]
        administrator: Administrator,
    },
    /// Deletes tokens, named by their id or as a whole.
    Delete {
        #[arg(required = true)]
        tokens: Vec<String>,
        #[command(flatten)]
        administrator: Administrator,
    },
    /// Prints a new token, which the cluster does not know of yet.
    Generate,
}
