//! Runs every test of kube-rs in the namespace that it is given, and tells which of them failed.

mod controllers;
mod requests;
mod watches;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ObjectMeta};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(60);

type Outcome = Pin<Box<dyn Future<Output = Result<()>>>>;
type Test = (&'static str, fn(Place) -> Outcome);

/// Where the tests run.
#[derive(Clone)]
pub struct Place {
    pub client: Client,
    pub namespace: String,
    pub image: String,
}

impl Place {
    pub fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

pub fn config_map(name: &str, data: &[(&str, &str)], labels: &[(&str, &str)]) -> ConfigMap {
    let map = |pairs: &[(&str, &str)]| {
        let own: BTreeMap<String, String> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Some(own).filter(|own| !own.is_empty())
    };
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels: map(labels), ..ObjectMeta::default() };
    ConfigMap { metadata, data: map(data), ..ConfigMap::default() }
}

/// Asks until there is an answer.
pub async fn eventually<T, F: Future<Output = Result<Option<T>>>>(what: &str, mut ask: impl FnMut() -> F) -> Result<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await.with_context(|| format!("{what}: not within {} s", LIMIT.as_secs()))?
}

const TESTS: [Test; 12] = [
    ("create, read, update, delete", |place| Box::pin(requests::life(place))),
    ("patches, apply, scale and status", |place| Box::pin(requests::patches(place))),
    ("kinds that are found out", |place| Box::pin(requests::dynamic(place))),
    ("entries", |place| Box::pin(requests::entries(place))),
    ("metadata alone, and pages", |place| Box::pin(requests::partial(place))),
    ("inside a pod", |place| Box::pin(requests::pod(place))),
    ("a watcher with lists", |place| Box::pin(watches::lists(place))),
    ("a watcher with streaming lists", |place| Box::pin(watches::streaming(place))),
    ("a watch of a version that is too old", |place| Box::pin(watches::expired(place))),
    ("a reflector", |place| Box::pin(watches::reflected(place))),
    ("a controller with a finalizer", |place| Box::pin(controllers::finalized(place))),
    ("two leaders by turns", |place| Box::pin(controllers::leases(place))),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let client = Client::try_default().await?;
    let place = Place { client, namespace: variable("TEST_NAMESPACE")?, image: variable("TEST_IMAGE")? };
    let mut failed = 0;
    let filter = std::env::args().nth(1).unwrap_or_default();
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        let outcome = tokio::time::timeout(2 * LIMIT, test(place.clone())).await.context("took too long");
        match outcome.and_then(|outcome| outcome) {
            Ok(()) => println!("{name}: ok"),
            Err(error) => {
                failed += 1;
                println!("{name}: FAILED: {error:#}");
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
