//! Fills the secrets that hold tokens, and deletes them when their account goes.
//!
//! Source: `pkg/controller/serviceaccount/tokens_controller.go` of Kubernetes.

use super::{ACCOUNT_NAME, ACCOUNT_UID, BY_ACCOUNT, TOKEN_SECRETS, account_of};
use crate::context::Context;
use pintle_client::{ClientError, DeleteOptions, Preconditions};
use pintle_informer::{Change, Informer, Outcome, Queue, Selector, run_reconciler};
use pintle_types::k8s::ByteString;
use pintle_types::k8s::api::core::v1::{Secret, ServiceAccount};
use pintle_types::{Kind, ObjectKey};
use std::sync::Arc;

/// Makes the token of an account that a secret is to hold. An error says why there is none.
pub type Issue = Arc<dyn Fn(&ServiceAccount, &Secret) -> Result<String, String> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    Secret(ObjectKey),
    /// An account names a secret that is gone.
    Forget {
        account: ObjectKey,
        secret: String,
    },
}

struct Tokens {
    context: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    root_ca: String,
    issue: Issue,
}

/// Runs the controller until the context's stop.
pub async fn run(context: Context, root_ca: String, issue: Issue) {
    let secrets = context.informers.selected::<Secret>(Selector::fields(TOKEN_SECRETS));
    let accounts = context.informers.of::<ServiceAccount>();
    secrets.index(BY_ACCOUNT, account_of);
    let queue: Queue<Task> = Queue::new();
    let (from_secrets, from_accounts) = (queue.clone(), queue.clone());
    secrets.on_change(move |change| from_secrets.add(task_of(change)));
    let of_account = secrets.clone();
    accounts.on_change(move |change| {
        if matches!(change, Change::Added(_) | Change::Deleted(_)) {
            let key = change.object().key();
            let secrets = of_account.by_index(BY_ACCOUNT, &format!("{}/{}", key.namespace, key.name));
            secrets.iter().for_each(|secret| from_accounts.add(Task::Secret(secret.key())));
        }
    });
    secrets.synced().await;
    accounts.synced().await;
    let stop = context.stop.clone();
    let tokens = Tokens { context, secrets, accounts, root_ca, issue };
    let reconcile = async |task| match task {
        Task::Secret(key) => tokens.reconcile(&key).await,
        Task::Forget { account, secret } => tokens.forget(&account, &secret).await,
    };
    run_reconciler("tokens-controller", queue, 1, reconcile, stop).await;
}

fn task_of(change: &Change<Secret>) -> Task {
    let object = change.object();
    match (change, object.annotation(ACCOUNT_NAME)) {
        (Change::Deleted(_), Some(name)) => {
            Task::Forget { account: ObjectKey::new(object.namespace(), name), secret: object.name().to_owned() }
        }
        _ => Task::Secret(object.key()),
    }
}

fn is_of(account: &ServiceAccount, secret: &Secret) -> bool {
    secret.annotation(ACCOUNT_UID).is_none_or(|uid| uid.is_empty() || uid == account.uid())
}

/// What others did meanwhile comes as a change of its own.
fn settled<T>(result: Result<T, ClientError>) -> Result<Outcome, ClientError> {
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

impl Tokens {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Outcome::Done) };
        let Some(name) = secret.annotation(ACCOUNT_NAME).filter(|_| !secret.is_deleting()) else {
            return Ok(Outcome::Done);
        };
        let account = ObjectKey::new(&*key.namespace, name);
        match self.account(&account).await?.filter(|account| is_of(account, &secret)) {
            Some(account) => self.fill(&account, &secret).await,
            None => {
                let preconditions = Preconditions::uid(secret.uid());
                let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
                settled(self.context.client.delete::<Secret>(&key.namespace, &key.name, &options).await)
            }
        }
    }

    /// The account; when this process has not seen it yet, as the server knows it.
    async fn account(&self, key: &ObjectKey) -> Result<Option<Arc<ServiceAccount>>, ClientError> {
        match self.accounts.get(key) {
            Some(account) => Ok(Some(account)),
            None => Ok(self.context.client.get_opt(&key.namespace, &key.name).await?.map(Arc::new)),
        }
    }

    async fn fill(&self, account: &ServiceAccount, secret: &Secret) -> Result<Outcome, ClientError> {
        let mut wanted = secret.clone();
        let data = wanted.data.get_or_insert_default();
        let is_empty = |data: &std::collections::BTreeMap<String, ByteString>, key: &str| {
            data.get(key).is_none_or(|value| value.0.is_empty())
        };
        data.insert("ca.crt".into(), ByteString(self.root_ca.clone().into_bytes()));
        if is_empty(data, "namespace") {
            data.insert("namespace".into(), ByteString(account.namespace().as_bytes().to_vec()));
        }
        if is_empty(data, "token") {
            match (self.issue)(account, secret) {
                Ok(token) => drop(data.insert("token".into(), ByteString(token.into_bytes()))),
                Err(error) => {
                    tracing::error!(namespace = secret.namespace(), name = secret.name(), error, "no token was made");
                    return Ok(Outcome::Done);
                }
            }
        }
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_NAME.into(), account.name().to_owned());
        annotations.insert(ACCOUNT_UID.into(), account.uid().to_owned());
        if wanted == *secret { Ok(Outcome::Done) } else { settled(self.context.client.update(&wanted).await) }
    }

    async fn forget(&self, account: &ObjectKey, secret: &str) -> Result<Outcome, ClientError> {
        let Some(known) = self.accounts.get(account) else { return Ok(Outcome::Done) };
        let names = |account: &ServiceAccount| {
            account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(secret))
        };
        let there_again = self.secrets.get(&ObjectKey::new(&*account.namespace, secret)).is_some();
        if there_again || !names(&known) {
            return Ok(Outcome::Done);
        }
        let mut changed = ServiceAccount::clone(&known);
        if let Some(secrets) = &mut changed.secrets {
            secrets.retain(|reference| reference.name.as_deref() != Some(secret));
        }
        settled(self.context.client.update(&changed).await)
    }
}
