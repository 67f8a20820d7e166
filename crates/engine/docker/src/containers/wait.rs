//! Waits until a container has ended, or is gone.

use super::{Container, Ends};
use crate::daemon::Daemon;
use std::sync::Arc;
use tokio::sync::watch;

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// It does not run, which may be so already.
    #[default]
    NotRunning,
    /// It ends the next time.
    NextExit,
    /// It is gone.
    Removed,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    pub code: i32,
    pub error: String,
}

/// A wait that has begun: what happens from now on counts.
pub struct Waiting {
    container: Arc<Container>,
    condition: Condition,
    seen: u64,
    ends: watch::Receiver<Ends>,
}

impl Daemon {
    /// Begins to wait.
    pub fn wait_for(&self, container: &Arc<Container>, condition: Condition) -> Waiting {
        let ends = container.ends.subscribe();
        let seen = ends.borrow().exits;
        Waiting { container: Arc::clone(container), condition, seen, ends }
    }
}

impl Waiting {
    /// Resolves when it is so.
    pub async fn done(mut self) -> Waited {
        if self.condition == Condition::NotRunning {
            let idle = self.container.look(|r| (!r.state.status.is_running()).then(|| r.state.clone()));
            if let Some(state) = idle {
                return Waited { code: state.exit_code, error: state.error };
            }
        }
        let (condition, seen) = (self.condition, self.seen);
        let is_so = |ends: &Ends| ends.removed || (condition != Condition::Removed && ends.exits > seen);
        let ends = match self.ends.wait_for(is_so).await {
            Ok(ends) => ends.clone(),
            Err(_) => Ends::default(),
        };
        let code = if ends.exits > 0 { ends.code } else { self.container.look(|r| r.state.exit_code) };
        Waited { code, error: ends.error }
    }
}
