//! Gives every namespace its `default` ServiceAccount and the certificates to trust the API server by; fills, and takes
//! away again, the secrets that hold tokens of accounts.

mod cleaner;
mod reconcile;
#[cfg(test)]
mod tests;
mod tokens;

pub use cleaner::run as run_cleaner;
pub use reconcile::{run_accounts, run_root_ca};
pub use tokens::{Issue, run as run_tokens};

use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Secret;

/// The type of the secrets that hold a token, as a field selector.
const TOKEN_SECRETS: &str = "type=kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const BY_ACCOUNT: &str = "service-account";

/// The account whose token a secret holds, as `namespace/name`.
fn account_of(secret: &Secret) -> Vec<String> {
    secret.annotation(ACCOUNT_NAME).map(|name| format!("{}/{name}", secret.namespace())).into_iter().collect()
}
