//! `pintle agent`: the node half alone, for a cluster that this machine has joined.

use crate::cluster::{self, Cluster, private_directory};
use crate::identity::NodeIdentity;
use crate::node::Node;
use crate::{docker, join, logging, presence, refresh, server, spare};
use anyhow::Result;
use pintle_cli::status::Role;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs until it is told to stop. The API server may be away at any time, also when this starts.
pub(crate) async fn run(arguments: pintle_cli::Daemon) -> Result<()> {
    logging::start(&arguments.log_level, None)?;
    let cluster = Cluster::new(cluster::settings(arguments.configured)?)?;
    for directory in [cluster.settings.data_dir(), cluster.settings.run_dir()] {
        private_directory(&directory)?;
    }
    let _presence = presence::claim(&cluster, Role::Agent)?;
    let (tasks, stop, clock) = (TaskTracker::new(), CancellationToken::new(), pintle_clock::system());
    let identity = Arc::new(NodeIdentity::of_agent(&cluster)?);
    let node = Node::open(&cluster, Arc::clone(&clock)).await?;
    node.start(&cluster, &identity, Arc::clone(&clock), &tasks, &stop)?;
    for renewal in join::renewals(&cluster, &identity, &clock) {
        let stop = stop.clone();
        tasks.spawn(async move {
            // A renewal has no end of its own.
            let _ended = stop.run_until_cancelled(renewal).await;
        });
    }
    let (refreshed, settings) = (Arc::clone(&identity), cluster.clone());
    tasks.spawn(refresh::when_told(stop.clone(), move || refreshed.refresh(&settings)));
    tasks.spawn(docker::bind(&cluster, &node.docker)?.serve(stop.clone()));
    tasks.spawn(spare::give_back(stop.clone()));
    tasks.close();
    tracing::info!(node = cluster.node_name, server = cluster.settings.server, "the agent runs");
    server::until_told_to_stop().await?;
    tracing::info!("stopping");
    server::end(&node, &tasks, &stop, cluster.settings.on_exit()).await
}
