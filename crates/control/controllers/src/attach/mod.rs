//! Has volumes of CSI drivers attached to the nodes of the pods that use them, and detached when the last is gone.
//!
//! A `VolumeAttachment` for each volume and node is what the driver's external attacher acts on; what is attached is
//! told to kubelets in the status of their node. Watches nothing of its own before the first such volume is there.

mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;
