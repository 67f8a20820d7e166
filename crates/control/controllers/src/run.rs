//! Starts all controllers, each with its own identity.

use crate::context::Context;
use crate::{deployment, replicaset};
use futures::FutureExt;
use futures::future::BoxFuture;
use pintle_client::Client;
use pintle_clock::Clock;
use pintle_informer::{Informers, Recorder};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the controllers need.
pub struct Config {
    /// The client of one controller, by its name: `deployment-controller` acts as
    /// `system:serviceaccount:kube-system:deployment-controller`.
    pub clients: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The informers of all controllers; their client must be able to list and watch everything.
    pub informers: Informers,
    pub clock: Arc<dyn Clock>,
    /// The certificates, in PEM, that pods trust the API server by.
    pub root_ca: String,
}

pub(crate) type Start = fn(Context) -> BoxFuture<'static, ()>;

/// Each controller's name, which is that of its service account, and how it starts.
const CONTROLLERS: &[(&str, Start)] = &[
    ("deployment-controller", |context| deployment::run(context).boxed()),
    ("replicaset-controller", |context| replicaset::run::<replicaset::RsSets>(context).boxed()),
    ("replication-controller", |context| replicaset::run::<replicaset::RcSets>(context).boxed()),
];

/// Runs all controllers until `stop`.
pub async fn run(config: Config, stop: CancellationToken) {
    let mut running = tokio::task::JoinSet::new();
    for (name, start) in CONTROLLERS {
        let client = (config.clients)(name);
        let recorder = Recorder::with_clock(client.clone(), name, "", config.clock.clone());
        running.spawn(start(Context {
            client,
            informers: config.informers.clone(),
            recorder,
            clock: config.clock.clone(),
            stop: stop.clone(),
        }));
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a controller ended early");
        }
    }
}
