//! Ends pods in order when the machine is about to end: the node is not ready then and takes no pods, and those that
//! are here end by their priorities, each group within its time.
//!
//! systemd-logind tells of the end and waits with it for as long as an inhibitor is held (`pintle_logind`). Without
//! logind the machine ends as fast as ever, which is said in the log. Source: `pkg/kubelet/nodeshutdown`.

mod periods;

pub use periods::{ShutdownError, ShutdownOptions};

use crate::ending::{Ending, Order};
use crate::host::Host;
use crate::reference::{pod_text, spec};
use crate::status::{Ended, TERMINATED};
use periods::{Period, groups};
use pintle_informer::{EventType, Recorder};
use pintle_logind::{Logind, LogindError};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Pod;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What is shown of who holds up the end.
const WHO: &str = "kubelet";
const WHY: &str = "Kubelet needs time to handle node shutdown";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
const REASON: &str = "Shutdown";
/// After the connection to logind was lost; longer each time when there is none.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Whether the machine is about to end.
#[derive(Debug, Default)]
pub struct MachineEnd {
    is_set: AtomicBool,
    /// Told when that changes; for one who waits.
    pub(crate) changed: Notify,
}

impl MachineEnd {
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    fn set(&self, is_set: bool) {
        self.is_set.store(is_set, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// Where the end of the machine is heard of.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The socket of the system bus.
    pub bus: PathBuf,
    /// The folder of files that override what logind is set to.
    pub overrides: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { bus: pintle_logind::SYSTEM_BUS.into(), overrides: pintle_logind::OVERRIDES.into() }
    }
}

impl Paths {
    /// Takes back what a kubelet with this root directory changed of logind's settings.
    ///
    /// # Errors
    /// Its file is there and can't be removed.
    pub fn forget(&self, root_dir: &Path) -> std::io::Result<()> {
        Logind::forget_delay(&self.overrides, &root_dir.to_string_lossy())
    }
}

/// What waits for the end of the machine.
pub(crate) struct Shutdown {
    pub(crate) host: Arc<Host>,
    pub(crate) recorder: Recorder,
    pub(crate) periods: Vec<Period>,
    pub(crate) paths: Paths,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
}

impl Shutdown {
    /// Works until `stop`, which lets go of what holds up the end.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let work = async {
            let mut delay = FIRST_RETRY;
            let mut is_first = true;
            loop {
                let error = match self.connect().await {
                    Ok(logind) => {
                        (delay, is_first) = (FIRST_RETRY, true);
                        self.follow(logind).await
                    }
                    Err(error) => error,
                };
                if is_first {
                    tracing::warn!(%error, "pods get no time when this machine ends (--shutdown-grace-period)");
                }
                is_first = false;
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(LAST_RETRY);
            }
        };
        // Ends with `stop` only.
        let _ended = stop.run_until_cancelled(work).await;
    }

    async fn connect(&self) -> Result<Logind, LogindError> {
        let mut logind = Logind::connect(&self.paths.bus).await?;
        let wanted = self.periods.iter().map(|period| period.duration()).sum();
        let owner = self.host.settings.root_dir.to_string_lossy();
        logind.raise_delay(wanted, &self.paths.overrides, &owner).await?;
        Ok(logind)
    }

    /// Holds up the end, and goes by what logind tells; returns why that is over.
    async fn follow(&self, mut logind: Logind) -> LogindError {
        loop {
            if let Err(error) = self.until_told(&mut logind).await {
                return error;
            }
        }
    }

    /// From one word of logind to the next. The inhibitor is let go when the pods have ended.
    async fn until_told(&self, logind: &mut Logind) -> Result<(), LogindError> {
        let mut is_ending = logind.is_ending().await?;
        let mut inhibitor = None;
        if !is_ending {
            inhibitor = Some(logind.inhibit(WHO, WHY).await?);
            if self.host.ending.is_set() {
                // It was called off while nobody listened.
                self.tell(false);
            }
            is_ending = logind.next().await?;
        }
        if is_ending && !self.host.ending.is_set() {
            self.tell(true);
            self.end_pods().await;
        }
        drop(inhibitor);
        while is_ending {
            is_ending = logind.next().await?;
        }
        Ok(())
    }

    fn tell(&self, is_ending: bool) {
        let what = if is_ending { "event" } else { "cancellation" };
        tracing::info!("the end of this machine: {what}");
        let node = crate::node::reference(&self.host.settings.node_name);
        self.recorder.event_on(node, EventType::Normal, REASON, format!("Shutdown manager detected shutdown {what}"));
        self.host.ending.set(is_ending);
    }

    async fn end_pods(&self) {
        let (asked, told) = oneshot::channel();
        // Both fail only when the kubelet stops.
        let _ = self.orders.send(Order::Tell(asked));
        let Ok(pods) = told.await else { return };
        for (period, pods) in groups(&self.periods, pods) {
            let (held, mut all) = mpsc::channel(1);
            for pod in &pods {
                let ended = Ended { reason: TERMINATED.to_owned(), message: MESSAGE.to_owned() };
                let ending = Ending { ended, grace: grace(pod, period), hastens: true, held: Some(held.clone()) };
                tracing::info!(pod = pod_text(pod), grace = ending.grace, "ending a pod with the machine");
                // As above.
                let _ = self.orders.send(Order::End { uid: pod.uid().to_owned(), ending });
            }
            drop(held);
            if timeout(period.duration(), all.recv()).await.is_err() {
                tracing::warn!(?period, "pods have not ended in their time");
            }
        }
    }
}

/// Seconds: what the pod says, within what the machine gives it.
fn grace(pod: &Pod, period: Period) -> i64 {
    let most = i64::from(period.seconds);
    spec(pod).termination_grace_period_seconds.map_or(most, |own| own.min(most))
}
