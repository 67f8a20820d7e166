//! Brings containers back to what is true after a restart of the daemon: adopts what runs, ends what does not, cleans
//! what was half made, and starts what its policy wants to run.

use super::Container;
use super::record::{Record, Status, snapshot_key};
use crate::daemon::Daemon;
use crate::error::Result;
use pintle_cri::RuntimeService;
use pintle_runtime::options::Owner;
use pintle_runtime::{ContainerPhase, ContainerView};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What Docker says of a container that it lost sight of.
const UNKNOWN_EXIT: i32 = 255;

impl Daemon {
    /// # Errors
    /// Only when the records cannot be listed.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let views: HashMap<String, ContainerView> =
            self.engine.views(Owner::Docker).into_iter().map(|v| (v.id.clone(), v)).collect();
        let (mut all, mut halves) = (Vec::new(), Vec::new());
        for (id, record) in self.containers.folder.load()? {
            let whole = |r: &Record| r.complete && !matches!(r.state.status, Status::Removing | Status::Dead);
            match record {
                Some(record) if whole(&record) => {
                    let named = self.containers.take_name(&record.name, &id);
                    if named.is_err() {
                        tracing::warn!(container = %id, name = %record.name, "two containers have one name");
                    }
                    let container = Container::new(record);
                    self.containers.insert(&container);
                    all.push(container);
                }
                half => halves.push((id, half)),
            }
        }
        // Only now that it is known who else has their volumes.
        for (id, record) in halves {
            self.clean_half_made(&id, record).await;
        }
        self.clean_sandboxes(&all).await;
        self.clean_layers().await;
        let running = views.values().filter(|v| v.phase == ContainerPhase::Running).map(|v| v.id.clone());
        self.networks.retain(&running.collect::<Vec<_>>())?;
        for container in &all {
            self.adopt(container, views.get(&container.id)).await;
        }
        Ok(())
    }

    async fn adopt(self: &Arc<Self>, container: &Arc<Container>, view: Option<&ContainerView>) {
        let status = container.status();
        match view {
            Some(view) if view.phase == ContainerPhase::Running => {
                // The daemon may have been killed before it wrote down what it had done.
                let paused = self.engine.is_frozen(&view.id).await;
                self.note(container, |r| {
                    r.state.status = if paused { Status::Paused } else { Status::Running };
                    r.state.pid = view.pid;
                    r.state.started_at = view.started_at;
                });
                self.settle_networks(container);
                self.watch(container, view.id.clone());
                self.begin_tests(container);
            }
            Some(view) if view.phase == ContainerPhase::Exited && status.is_running() => {
                // As if it ended now: policies and removal follow.
                self.note(container, |r| r.state.status = Status::Running);
                self.ended(container, view).await;
            }
            _ if matches!(status, Status::Running | Status::Paused) => {
                let lost = self.lost(container);
                self.ended(container, &lost).await;
            }
            _ => {
                self.take_down(container).await;
                if container.look(|r| r.host.auto_remove) {
                    self.remove_by_itself(container).await;
                } else {
                    self.revive(container, status);
                }
            }
        }
    }

    fn lost(&self, container: &Container) -> ContainerView {
        ContainerView {
            id: container.id.clone(),
            sandbox_id: String::new(),
            phase: ContainerPhase::Exited,
            pid: 0,
            started_at: container.look(|r| r.state.started_at),
            finished_at: self.now(),
            exit_code: UNKNOWN_EXIT,
            oom_killed: false,
            message: String::new(),
            cgroup: String::new(),
            log_path: String::new(),
        }
    }

    /// `always` starts what was stopped by hand too; the others what they would have started again at its end.
    fn revive(self: &Arc<Self>, container: &Arc<Container>, status: Status) {
        let ran_before = container.look(|r| r.state.started_at != 0);
        let wanted = match container.look(|r| r.host.restart_policy.name.clone()).as_str() {
            "always" => ran_before,
            _ => {
                status == Status::Restarting
                    || (ran_before && self.wants_restart(container, container.look(|r| r.state.exit_code)))
            }
        };
        if !wanted {
            self.forget_restart(container);
            return;
        }
        let (daemon, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            if let Err(error) = daemon.run(&container).await {
                tracing::warn!(container = %container.id, %error, "a container cannot be started again");
            }
        });
    }

    async fn clean_half_made(&self, id: &str, record: Option<Record>) {
        let record = record.unwrap_or_else(|| Record { complete: true, ..Record::default() });
        if let Some(sandbox) = record.sandbox
            && let Err(error) = self.engine.remove_pod_sandbox(&sandbox).await
        {
            tracing::warn!(container = %id, %error, "the sandbox of a half-removed container is left");
        }
        let (images, key) = (Arc::clone(&self.images), snapshot_key(id));
        let removed = tokio::task::spawn_blocking(move || images.remove_snapshot(&key)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(container = %id, "the layer of a half-made container is left");
            return;
        }
        if !record.complete || record.removes_volumes {
            self.remove_volumes_made_for(id).await;
        }
        if let Err(error) = self.containers.folder.remove(id) {
            tracing::warn!(container = %id, %error, "the folder of a half-made container is left");
        }
    }

    /// Sandboxes that no record knows: the daemon ended between making one and writing it down.
    async fn clean_sandboxes(&self, all: &[Arc<Container>]) {
        let known: HashSet<String> = all.iter().filter_map(|c| c.look(|r| r.sandbox.clone())).collect();
        for sandbox in self.engine.sandboxes_of(Owner::Docker) {
            if !known.contains(&sandbox)
                && let Err(error) = self.engine.remove_pod_sandbox(&sandbox).await
            {
                tracing::warn!(%sandbox, %error, "a sandbox of nobody is left");
            }
        }
    }

    /// Layers of containers that are gone.
    async fn clean_layers(&self) {
        let images = Arc::clone(&self.images);
        let keys = tokio::task::spawn_blocking(move || images.snapshots()).await;
        let Ok(Ok(keys)) = keys else { return };
        for key in keys {
            let Some(id) = key.strip_prefix("docker-") else { continue };
            if !matches!(self.containers.find(id), Ok(Some(_))) {
                self.clean_half_made(id, None).await;
            }
        }
    }
}
