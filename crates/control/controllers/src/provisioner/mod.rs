//! Makes volumes for claims of the cluster's own provisioner: a directory of the node that the claim's first pod was
//! given. Enlarges them on paper, and has the directory removed when the claim is gone.
//!
//! The node's kubelet makes and removes the directories when it is asked to; nothing is watched for it there. A node
//! that can't be reached keeps its directories until it is back.

mod directory;
mod plan;
mod reconcile;
#[cfg(test)]
mod tests;

pub use reconcile::run;
