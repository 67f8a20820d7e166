//! How parts of the kubelet have pods end that nobody deleted: what they order, and where a pod's actor finds it.

use crate::status::Ended;
use parking_lot::Mutex;
use pintle_types::k8s::api::core::v1::Pod;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Why a pod is ended, and how fast.
#[derive(Clone, Debug)]
pub struct Ending {
    pub ended: Ended,
    /// The most seconds that it gets.
    pub grace: i64,
    /// Whether a pod that is ending already hastens.
    pub hastens: bool,
    /// Kept until the pod has ended and that was told: who orders it waits for all of them to be gone.
    pub held: Option<mpsc::Sender<Infallible>>,
}

/// Where a pod's actor finds its ending.
pub type Slot = Arc<Mutex<Option<Ending>>>;

/// What the loop over all pods is told to do.
pub enum Order {
    /// Ends the pod with this uid.
    End { uid: String, ending: Ending },
    /// Tells which pods are here and have not ended.
    Tell(oneshot::Sender<Vec<Arc<Pod>>>),
}
