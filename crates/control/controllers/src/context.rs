//! What every controller is given: its own client, the shared informers, a recorder and the time.

use pintle_client::Client;
use pintle_clock::{Clock, Timestamp};
use pintle_informer::{Informers, Recorder};
use pintle_types::Time;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One controller's surroundings. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Asks as the controller's own service account.
    pub client: Client,
    pub informers: Informers,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub stop: CancellationToken,
}

impl Context {
    /// The time in whole seconds.
    pub fn now(&self) -> Timestamp {
        self.clock.now_seconds()
    }

    /// The time as objects carry it.
    pub fn time(&self) -> Time {
        Time(self.now())
    }
}

/// Seconds from one time to another; negative when the second is the earlier.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}
