//! Which conditions of pressure the node is under: one lasts for a while after the last sign of it.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by eviction, which finds pressure, the node's status, which tells it, and admission, which goes by it.
#[derive(Default)]
pub struct Pressures {
    seen: Mutex<BTreeMap<&'static str, Instant>>,
    transition: Duration,
    /// Told when a condition comes or goes.
    pub changed: Notify,
}

impl Pressures {
    /// A condition lasts for `transition` after it was last seen.
    pub fn new(transition: Duration) -> Self {
        Self { transition, ..Self::default() }
    }

    /// Takes the conditions that there are signs of right now.
    pub fn see(&self, conditions: impl IntoIterator<Item = &'static str>) {
        let now = Instant::now();
        let mut seen = self.seen.lock();
        let before = seen.len();
        seen.retain(|_, at| now.duration_since(*at) < self.transition);
        let mut news = seen.len() != before;
        for condition in conditions {
            news |= seen.insert(condition, now).is_none();
        }
        if news {
            self.changed.notify_one();
        }
    }

    /// The conditions, sorted.
    pub fn current(&self) -> Vec<&'static str> {
        self.seen.lock().keys().copied().collect()
    }

    pub fn is_under(&self, condition: &str) -> bool {
        self.seen.lock().contains_key(condition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pressure_lasts_for_a_while_after_its_last_sign() {
        let pressures = Pressures::new(Duration::from_secs(300));
        pressures.see(["MemoryPressure"]);
        tokio::time::advance(Duration::from_secs(299)).await;
        pressures.see(["DiskPressure"]);
        assert_eq!(pressures.current(), ["DiskPressure", "MemoryPressure"]);
        tokio::time::advance(Duration::from_secs(1)).await;
        pressures.see([]);
        assert_eq!(pressures.current(), ["DiskPressure"]);
        assert!(!pressures.is_under("MemoryPressure"));
    }
}
