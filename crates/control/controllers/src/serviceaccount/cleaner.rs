//! Marks the tokens that older clusters made for every account and that nobody has used for a year as invalid, and
//! deletes them after another year.
//!
//! Source: `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go` of Kubernetes.

use super::{ACCOUNT_NAME, ACCOUNT_UID, TOKEN_SECRETS};
use crate::context::Context;
use pintle_client::{ClientError, DeleteOptions, Patch, PatchOptions, Preconditions};
use pintle_clock::Timestamp;
use pintle_informer::{Informer, Selector};
use pintle_types::k8s::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use pintle_types::{Kind, ObjectKey};
use serde_json::{Value, json};
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(24 * 3600);
const KEEP_DAYS: i64 = 365;
const DAY_SECONDS: i64 = 24 * 3600;
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Runs the controller until the context's stop.
pub async fn run(context: Context) {
    let secrets = context.informers.selected::<Secret>(Selector::fields(TOKEN_SECRETS));
    let (accounts, pods) = (context.informers.of::<ServiceAccount>(), context.informers.of::<Pod>());
    secrets.synced().await;
    accounts.synced().await;
    pods.synced().await;
    loop {
        if let Err(error) = clean(&context, &secrets, &accounts, &pods).await {
            tracing::warn!(%error, "old tokens of service accounts could not be looked through");
        }
        if context.stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}

/// A day as labels carry it.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

fn day_of(text: &str) -> Option<Timestamp> {
    format!("{text}T00:00:00Z").parse().ok().filter(|_| text.len() == 10)
}

async fn clean(
    context: &Context,
    secrets: &Informer<Secret>,
    accounts: &Informer<ServiceAccount>,
    pods: &Informer<Pod>,
) -> Result<(), ClientError> {
    if secrets.is_empty() {
        return Ok(());
    }
    let Some(map) = context.client.get_opt::<ConfigMap>("kube-system", TRACKING).await? else { return Ok(()) };
    let since = map.data.as_ref().and_then(|data| day_of(data.get("since")?));
    let second = context.now().as_second();
    let Ok(limit) = Timestamp::from_second(second - KEEP_DAYS * DAY_SECONDS) else { return Ok(()) };
    // The day after the one on which tracking began counts as its begin.
    if since.is_none_or(|since| since.as_second() + DAY_SECONDS > limit.as_second()) {
        return Ok(());
    }
    for secret in secrets.list() {
        if is_unused(&secret, limit) && is_made_for(&secret, accounts) && !is_mounted(&secret, pods) {
            invalidate_or_delete(context, &secret, limit).await?;
        }
    }
    Ok(())
}

fn is_unused(secret: &Secret, limit: Timestamp) -> bool {
    let created = secret.metadata.creation_timestamp.as_ref().is_some_and(|at| at.0 < limit);
    let used = secret.label(LAST_USED);
    // What is no day tells nothing: such secrets stay.
    let long_ago = used.is_none_or(|used| day_of(used).is_some() && *used < *day(limit));
    created && !secret.is_deleting() && long_ago
}

/// Whether the account names the secret, as those do that the controllers of older versions made.
fn is_made_for(secret: &Secret, accounts: &Informer<ServiceAccount>) -> bool {
    let account = secret.annotation(ACCOUNT_NAME).map(|name| ObjectKey::new(secret.namespace(), name));
    let Some(account) = account.and_then(|key| accounts.get(&key)) else { return false };
    let same = secret.annotation(ACCOUNT_UID).is_none_or(|uid| uid.is_empty() || uid == account.uid());
    same && account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(secret.name()))
}

fn is_mounted(secret: &Secret, pods: &Informer<Pod>) -> bool {
    pods.in_namespace(secret.namespace()).iter().any(|pod| names_secret(&pod.to_value()["spec"], secret.name()))
}

/// Whether any field that refers to secrets names this one.
fn names_secret(value: &Value, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| names_secret(item, name)),
        Value::Object(fields) => fields.iter().any(|(field, value)| match field.as_str() {
            "secretName" => value == name,
            "imagePullSecrets" => value.as_array().is_some_and(|list| list.iter().any(|item| item["name"] == name)),
            "secret" => value["name"] == name || value["secretName"] == name,
            field if field.ends_with("ecretRef") || field == "secretKeyRef" => value["name"] == name,
            _ => names_secret(value, name),
        }),
        _ => false,
    }
}

async fn invalidate_or_delete(context: &Context, secret: &Secret, limit: Timestamp) -> Result<(), ClientError> {
    let (namespace, name) = (secret.namespace(), secret.name());
    let done = match secret.label(INVALID_SINCE).filter(|since| day_of(since).is_some()) {
        None => {
            let labels = json!({INVALID_SINCE: day(context.now())});
            let patch = Patch::Merge(json!({"metadata": {"uid": secret.uid(), "labels": labels}}));
            context.client.patch::<Secret>(namespace, name, patch, &PatchOptions::default()).await.map(drop)
        }
        Some(since) if *since >= *day(limit) => return Ok(()),
        Some(_) => {
            let resource_version = secret.metadata.resource_version.clone();
            let preconditions = Preconditions { resource_version, ..Preconditions::default() };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            context.client.delete::<Secret>(namespace, name, &options).await
        }
    };
    match done {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
