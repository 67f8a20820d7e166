//! Who asks: what the credentials of a request say.

pub mod anonymous;
pub mod bootstrap_token;
pub mod configuration;
pub mod front_proxy;
pub mod jwt;
pub mod keys;
pub mod oidc;
pub mod service_account;
pub mod static_token;
pub mod tokens;
pub mod webhook;

use crate::User;
use async_trait::async_trait;
use serde_json::Value;

/// Who a credential stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    pub user: User,
    /// The audiences, of those that were asked for, that the credential is meant for.
    pub audiences: Vec<String>,
    /// What the audit log is to say about it: keys and values.
    pub annotations: Vec<(String, String)>,
}

impl Authenticated {
    fn new(user: User, audiences: Vec<String>) -> Self {
        Self { user, audiences, annotations: Vec::new() }
    }
}

/// Nothing: not a credential of this kind. An error: one of this kind, and why it is not good.
pub type Verdict = Result<Option<Authenticated>, String>;

/// The objects of the cluster that credentials depend on.
#[async_trait]
pub trait Objects: Send + Sync {
    /// An object of the core group; nothing when it is not there.
    async fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value>;

    /// Gives a secret a label, if nobody changed it meanwhile. Failures are the implementer's to log.
    async fn label_secret(&self, namespace: &str, name: &str, key: &str, value: &str);
}

/// Compares in a time that does not tell how much of the text is right.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

/// Those of `wanted` that are among `own`. When none are wanted, all of `own`.
pub(crate) fn shared_audiences(own: &[String], wanted: &[String]) -> Vec<String> {
    if wanted.is_empty() {
        return own.to_vec();
    }
    wanted.iter().filter(|audience| own.contains(audience)).cloned().collect()
}
