//! The daemon: everything that Docker's commands work on, in one place.

use crate::containers::Containers;
use crate::error::{DockerError, Result};
use crate::events::Events;
use crate::exec::Execs;
use crate::networks::{self, Networks};
use crate::volumes::Volumes;
use pintle_clock::Clock;
use pintle_image::ImageStore;
use pintle_runtime::Engine;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the daemon keeps things.
#[derive(Clone, Debug)]
pub struct Config {
    /// Records, logs and volumes that survive a reboot, such as `/var/lib/pintle/docker`.
    pub data_dir: PathBuf,
    /// What does not, such as `/run/pintle/docker`.
    pub run_dir: PathBuf,
    /// Holds the cgroups of containers that name no parent, such as `/docker`.
    pub cgroup_parent: String,
    /// The bridge of the network `bridge`, at most 15 bytes.
    pub bridge: String,
    /// Containers run on when the daemon ends.
    pub live_restore: bool,
}

/// See the crate's documentation.
pub struct Daemon {
    pub config: Config,
    pub images: Arc<ImageStore>,
    pub engine: Arc<Engine>,
    pub clock: Arc<dyn Clock>,
    pub events: Events,
    pub networks: Arc<Networks>,
    pub volumes: Arc<Volumes>,
    pub(crate) containers: Containers,
    pub(crate) execs: Execs,
    stopping: AtomicBool,
}

impl Daemon {
    /// Opens the daemon's state and takes over what runs.
    ///
    /// # Errors
    /// When a directory cannot be made or read.
    pub async fn open(
        config: Config,
        images: Arc<ImageStore>,
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        for directory in [&config.data_dir, &config.run_dir] {
            let made = std::fs::create_dir_all(directory);
            made.map_err(|e| DockerError::io(format_args!("create {}", directory.display()), e))?;
        }
        crate::containers::make_base_layer(&config.data_dir)
            .map_err(|e| DockerError::io("make the lowest layer", e))?;
        let events = Events::new(Arc::clone(&clock));
        let containers = Containers::open(config.data_dir.join("containers"))?;
        let networks = Networks::open(networks_config(&config), Arc::clone(&clock))?;
        let volumes = Arc::new(Volumes::open(config.data_dir.join("volumes"), Arc::clone(&clock))?);
        let (execs, stopping) = Default::default();
        let daemon =
            Arc::new(Self { config, images, engine, clock, events, networks, volumes, containers, execs, stopping });
        daemon.recover().await?;
        Ok(daemon)
    }

    /// Nanoseconds since the epoch.
    pub fn now(&self) -> i64 {
        i64::try_from(self.clock.unix_nanos()).unwrap_or(i64::MAX)
    }

    /// From now on no policy starts a container again: the process is about to end, and the containers run on.
    pub fn end(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Stops all containers at once, each in its own time. They are not stopped by hand: the next daemon starts those
    /// again whose policy says so.
    pub async fn stop_all(self: &Arc<Self>) {
        let running = self.all_containers().into_iter().filter(|c| c.status().is_running());
        let stopping = running.map(|container| {
            let daemon = Arc::clone(self);
            async move {
                if let Err(error) = daemon.end_container(&container).await {
                    tracing::warn!(container = %container.id, %error, "a container cannot be stopped");
                }
            }
        });
        futures::future::join_all(stopping).await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The bridge of pods may go on forwarding whoever switched forwarding on.
fn networks_config(config: &Config) -> networks::Config {
    networks::Config {
        data_dir: config.data_dir.clone(),
        run_dir: config.run_dir.clone(),
        bridge: config.bridge.clone(),
        trusted: vec!["pintle0".to_owned()],
    }
}
