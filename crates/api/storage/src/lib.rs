//! Which volume suits which claim, and the marks that binder, scheduler, provisioner and kubelet leave on them.
//!
//! The binder, the scheduler and the provisioner must think alike of claims and volumes; they do it here. Pure.

mod matching;
mod pods;

pub use matching::{
    best, capacity, class_of_claim, class_of_volume, is_for, mismatch, modes_differ, requested, waits_for_consumer,
    wants_default_class,
};
pub use pods::{ClaimUse, claim_of, claims_of, is_pods_own};

/// On a claim whose binding is complete.
pub const BOUND: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume whose other half was chosen for it, so that the choice may be taken back.
pub const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it, and is to delete it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the node that its first pod was given, where its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume, under the name of now and the one of old.
pub const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// The provisioner that every cluster of ours has: directories of nodes.
pub const LOCAL_PATH: &str = "pintle/local-path";
