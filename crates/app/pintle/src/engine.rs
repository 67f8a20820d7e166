//! `pintle engine`: the container engine alone, for the docker command.

use crate::adapters::NoPodNetwork;
use crate::cluster::{Cluster, private_directory};
use crate::node::{open_docker, open_engine, open_images};
use crate::{cri, docker, host, logging, presence, server};
use anyhow::Result;
use pintle_cli::status::Role;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs until it is told to stop; containers run on unless the settings say otherwise.
pub(crate) async fn run(arguments: pintle_cli::Daemon) -> Result<()> {
    logging::start(&arguments.log_level, None)?;
    let cluster = Cluster::new(arguments.configured.settings()?)?;
    for directory in [cluster.settings.data_dir(), cluster.settings.run_dir()] {
        private_directory(&directory)?;
    }
    let _presence = presence::claim(&cluster, Role::Engine)?;
    host::prepare()?;
    let clock = pintle_clock::system();
    let images = open_images(&cluster).await?;
    let engine = open_engine(&cluster, &images, Arc::new(NoPodNetwork), Arc::clone(&clock)).await?;
    let daemon = open_docker(&cluster, &images, &engine, clock).await?;
    let api = docker::bind(&cluster, &daemon)?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(api.serve(stop.clone()));
    tokio::spawn(cri::bind(&cluster)?.serve(Arc::clone(&engine) as _, stop.clone()));
    tracing::info!(socket = %cluster.settings.docker_socket().display(), "the engine is ready for requests");
    server::until_told_to_stop().await?;
    docker::end(&daemon, cluster.settings.on_exit()).await;
    stop.cancel();
    serving.await?;
    Ok(())
}
