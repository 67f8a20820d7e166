//! `pintle server`: all parts in one process, from the first to the last breath.

use crate::cluster::{self, Cluster, private_directory};
use crate::control_plane::ControlPlane;
use crate::credentials::Credentials;
use crate::identity::NodeIdentity;
use crate::node::Node;
use crate::presence::{self, Presence};
use crate::{addons, docker, joining, logging, refresh, spare};
use anyhow::{Context, Result};
use pintle_apiserver::User;
use pintle_cli::OnExit;
use pintle_cli::status::Role;
use pintle_client::Client;
use pintle_cri::{PodSandboxFilter, RuntimeService};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the parts have to end after they were told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server whose parts all run.
pub(crate) struct Running {
    /// Acts as a member of `system:masters`.
    pub(crate) client: Client,
    node: Node,
    tasks: TaskTracker,
    stop: CancellationToken,
    on_exit: OnExit,
    _presence: Presence,
}

/// Runs a server until it is told to stop.
pub(crate) async fn run(arguments: pintle_cli::Daemon) -> Result<()> {
    logging::start(&arguments.log_level, None)?;
    let settings = cluster::settings(arguments.configured)?;
    if settings.heap_profile_rate() > 0 {
        pintle_linux::heap_profile::start(settings.heap_profile_rate());
    }
    let cluster = Cluster::new(settings)?;
    let running = Running::start(&cluster).await?;
    tracing::info!(
        url = cluster.local_url(),
        kubeconfig = %cluster.settings.write_kubeconfig().display(),
        "the server is ready for requests"
    );
    until_told_to_stop().await?;
    tracing::info!("stopping");
    running.stop().await
}

/// Waits for SIGTERM, SIGINT or SIGHUP.
pub(crate) async fn until_told_to_stop() -> Result<()> {
    let listen = |kind| signal(kind).context("listen to signals");
    let (mut terminate, mut interrupt, mut hangup) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

impl Running {
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        for directory in [cluster.settings.data_dir(), cluster.settings.run_dir()] {
            private_directory(&directory)?;
        }
        let presence = presence::claim(cluster, Role::Server)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let clock = pintle_clock::system();
        let credentials = Credentials::load_or_create(cluster, &*clock)?;
        let (plane, node) = tokio::try_join!(
            ControlPlane::start(cluster, &credentials, Arc::clone(&clock), &tasks, stop.clone()),
            Node::open(cluster, Arc::clone(&clock)),
        )?;
        credentials.write_kubeconfig(&cluster.settings.write_kubeconfig(), &cluster.local_url())?;
        plane.start_loops(&tasks, &stop);
        let client = plane.client(User::new("system:apiserver", &["system:masters"]), "pintle");
        tokio::try_join!(
            addons::apply(cluster, &client),
            joining::apply(cluster, credentials.authority.certificate_pem(), &client),
        )?;
        let identity = NodeIdentity::of_server(cluster, &credentials, &plane)?;
        node.start(cluster, &identity, Arc::clone(&clock), &tasks, &stop)?;
        tasks.spawn(docker::bind(cluster, &node.docker)?.serve(stop.clone()));
        tasks.spawn(spare::give_back(stop.clone()));
        let settings = cluster.clone();
        tasks.spawn(refresh::when_told(stop.clone(), move || credentials.refresh(&settings, &*clock)));
        tasks.close();
        Ok(Self { client, node, tasks, stop, on_exit: cluster.settings.on_exit(), _presence: presence })
    }

    /// Tells all parts to end and waits for them; containers run on unless the settings say otherwise.
    pub(crate) async fn stop(self) -> Result<()> {
        end(&self.node, &self.tasks, &self.stop, self.on_exit).await
    }
}

/// Tells all parts to end and waits for them; containers run on unless it is said otherwise.
pub(crate) async fn end(node: &Node, tasks: &TaskTracker, stop: &CancellationToken, on_exit: OnExit) -> Result<()> {
    docker::end(&node.docker, on_exit).await;
    stop.cancel();
    if tokio::time::timeout(PATIENCE, tasks.wait()).await.is_err() {
        tracing::warn!("{} parts did not end in time", tasks.len());
    }
    if on_exit == OnExit::Stop {
        stop_containers(node).await?;
    }
    Ok(())
}

/// Stops every sandbox. The next server finds them gone and starts their pods again.
async fn stop_containers(node: &Node) -> Result<()> {
    let sandboxes = node.engine.list_pod_sandbox(PodSandboxFilter::default()).await?;
    let stopping = sandboxes.iter().map(|sandbox| node.engine.stop_pod_sandbox(&sandbox.id));
    for result in futures::future::join_all(stopping).await {
        if let Err(error) = result {
            tracing::warn!(%error, "a sandbox could not be stopped");
        }
    }
    Ok(())
}
