//! What happens when a container ends: its state, its networks, its restart policy, its removal.

use super::record::Status;
use super::{Container, Ends};
use crate::daemon::Daemon;
use pintle_runtime::ContainerView;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The pause before a container is started again doubles up to the longest; one that ran longer begins anew.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const STEADY_NANOS: i64 = 10_000_000_000;

impl Daemon {
    /// Waits, in a task of its own, until a container that runs has ended.
    pub(crate) fn watch(self: &Arc<Self>, container: &Arc<Container>, runtime_id: String) {
        let (daemon, engine, container) = (Arc::downgrade(self), Arc::clone(&self.engine), Arc::clone(container));
        tokio::spawn(async move {
            let Ok(view) = engine.wait_container(&runtime_id).await else { return };
            drop(engine);
            if let Some(daemon) = daemon.upgrade() {
                daemon.ended(&container, &view).await;
            }
        });
    }

    /// A container has ended, as the runtime says.
    pub(crate) async fn ended(self: &Arc<Self>, container: &Arc<Container>, view: &ContainerView) {
        let changing = container.changing.lock().await;
        if !matches!(container.status(), Status::Running | Status::Paused) {
            return;
        }
        self.end_tests(container);
        self.take_down(container).await;
        let ran = view.finished_at.saturating_sub(view.started_at);
        let restart = self.wants_restart(container, view.exit_code);
        self.note(container, |r| {
            r.state.pid = 0;
            r.state.exit_code = view.exit_code;
            r.state.finished_at = view.finished_at;
            r.state.oom_killed = view.oom_killed;
            r.state.status = if restart { Status::Restarting } else { Status::Exited };
            r.ports.clear();
            if restart {
                r.restart_count += 1;
            }
        });
        if view.oom_killed {
            self.tell_of(container, "oom", &[]);
        }
        let (code, seconds) = (view.exit_code.to_string(), (ran / 1_000_000_000).to_string());
        self.tell_of(container, "die", &[("execDuration", &seconds), ("exitCode", &code)]);
        container.ends.send_modify(|ends| {
            *ends = Ends { exits: ends.exits + 1, code: view.exit_code, error: String::new(), ..ends.clone() };
        });
        drop(changing);
        if restart {
            self.restart_later(container, ran);
        } else if container.look(|r| r.host.auto_remove) {
            self.remove_by_itself(container).await;
        }
    }

    /// Whether its policy starts it again.
    pub(super) fn wants_restart(&self, container: &Container, code: i32) -> bool {
        if self.is_stopping() {
            return false;
        }
        container.look(|r| {
            let policy = &r.host.restart_policy;
            let most = u32::try_from(policy.maximum_retry_count).unwrap_or_default();
            match policy.name.as_str() {
                _ if r.stopped_by_hand => false,
                "always" | "unless-stopped" => true,
                "on-failure" => code != 0 && (most == 0 || r.restart_count < most),
                _ => false,
            }
        })
    }

    fn restart_later(self: &Arc<Self>, container: &Arc<Container>, ran: i64) {
        let tries = container.look(|r| r.restart_count).saturating_sub(1).min(16);
        let pause = if ran > STEADY_NANOS { FIRST_PAUSE } else { FIRST_PAUSE * 2_u32.pow(tries) };
        let (daemon, again) = (Arc::downgrade(self), Arc::downgrade(container));
        let task = tokio::spawn(async move {
            tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
            start_again(&daemon, &again).await;
        });
        if let Some(old) = container.restarter.lock().replace(task.abort_handle()) {
            old.abort();
        }
    }

    /// `--rm`
    pub(super) async fn remove_by_itself(self: &Arc<Self>, container: &Arc<Container>) {
        if let Err(error) = self.erase(container, true).await {
            tracing::warn!(container = %container.id, %error, "a container cannot be removed after its end");
        }
    }

    /// A container that waits to be started again is stopped: it is not.
    pub(crate) fn forget_restart(&self, container: &Container) {
        if let Some(task) = container.restarter.lock().take() {
            task.abort();
        }
        self.note(container, |r| {
            if r.state.status == Status::Restarting {
                r.state.status = Status::Exited;
            }
        });
    }
}

async fn start_again(daemon: &Weak<Daemon>, container: &Weak<Container>) {
    let (Some(daemon), Some(container)) = (daemon.upgrade(), container.upgrade()) else { return };
    container.restarter.lock().take();
    if let Err(error) = daemon.run_again(&container).await {
        tracing::warn!(container = %container.id, %error, "a container cannot be started again");
        container.ends.send_modify(|ends| ends.exits += 1);
    }
}
