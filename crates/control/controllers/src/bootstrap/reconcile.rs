//! Watches the tokens and what they sign.

use super::plan::{Life, life, sign, signing};
use crate::context::Context;
use pintle_client::{ClientError, DeleteOptions, Preconditions};
use pintle_informer::{Informer, Outcome, Queue, Selector, run_reconciler};
use pintle_types::k8s::api::core::v1::{ConfigMap, Secret};
use pintle_types::{Kind, ObjectKey};
use std::time::Duration;

const TOKENS: &str = "type=bootstrap.kubernetes.io/token";
const TOKENS_NAMESPACE: &str = "kube-system";
const INFO: &str = "cluster-info";
const INFO_NAMESPACE: &str = "kube-public";

fn tokens(context: &Context) -> Informer<Secret> {
    context.informers.selected(Selector::fields(TOKENS))
}

fn settled<T>(result: Result<T, ClientError>) -> Result<Outcome, ClientError> {
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// Signs `cluster-info` until the context's stop.
pub async fn run_signer(context: Context) {
    let maps = context.informers.selected::<ConfigMap>(Selector::fields(format!("metadata.name={INFO}")));
    let tokens = tokens(&context);
    let queue: Queue<()> = Queue::new();
    let (from_maps, from_tokens) = (queue.clone(), queue.clone());
    maps.on_change(move |change| {
        if change.object().namespace() == INFO_NAMESPACE {
            from_maps.add(());
        }
    });
    tokens.on_change(move |_| from_tokens.add(()));
    maps.synced().await;
    tokens.synced().await;
    let reconcile = async |()| {
        let Some(map) = maps.get(&ObjectKey::new(INFO_NAMESPACE, INFO)) else { return Ok(Outcome::Done) };
        let secrets = tokens.in_namespace(TOKENS_NAMESPACE);
        let signers: Vec<_> = secrets.iter().filter_map(|secret| signing(secret, context.clock.now())).collect();
        let Some(data) = map.data.as_ref().and_then(|data| sign(data, &signers)) else { return Ok(Outcome::Done) };
        let mut changed = ConfigMap::clone(&map);
        changed.data = Some(data);
        settled(context.client.update(&changed).await)
    };
    run_reconciler("bootstrap-signer", queue, 1, reconcile, context.stop.clone()).await;
}

/// Deletes tokens when their time is over, until the context's stop.
pub async fn run_cleaner(context: Context) {
    let tokens = tokens(&context);
    let queue: Queue<ObjectKey> = Queue::new();
    let from_tokens = queue.clone();
    tokens.on_change(move |change| from_tokens.add(change.object().key()));
    tokens.synced().await;
    let reconcile = async |key: ObjectKey| {
        let Some(token) = tokens.get(&key).filter(|_| key.namespace == TOKENS_NAMESPACE) else {
            return Ok(Outcome::Done);
        };
        match life(&token, context.clock.now()) {
            Life::Forever => Ok(Outcome::Done),
            Life::Seconds(left) => Ok(Outcome::After(Duration::from_secs(left))),
            Life::Over => {
                let options =
                    DeleteOptions { preconditions: Preconditions::uid(token.uid()), ..DeleteOptions::default() };
                settled(context.client.delete::<Secret>(&key.namespace, &key.name, &options).await)
            }
        }
    };
    run_reconciler("token-cleaner", queue, 1, reconcile, context.stop.clone()).await;
}
