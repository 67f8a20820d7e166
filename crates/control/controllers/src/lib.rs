//! The loops that drive the cluster to what its objects ask for.
//!
//! A folder per controller: `plan.rs` decides and is pure, `reconcile.rs` watches and acts, `tests.rs` shows what
//! comes of it. Every reconcile takes a key and nothing else, reads from shared informers, and may run any number
//! of times. Controllers are clients like any other, each with the identity of its own service account; they know
//! nothing of how the API server stores or checks what they write.

mod attach;
mod batches;
mod bootstrap;
mod certificates;
mod claim;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod devicetaint;
mod discovery;
mod disruption;
mod endpoints;
mod ephemeral;
mod expansion;
mod expectations;
mod garbage;
mod hash;
mod hpa;
mod job;
mod loadbalancer;
mod metadata;
mod migration;
mod namespace;
mod node;
mod nodeipam;
mod nodettl;
mod owners;
mod ownership;
mod podgc;
mod pods;
mod protection;
mod provisioner;
mod replicaset;
mod resourceclaim;
mod resourcequota;
mod revisions;
mod run;
mod serviceaccount;
mod servicecidr;
mod statefulset;
#[cfg(test)]
mod testing;
mod ttl;
mod volume;

pub use bootstrap::signature as bootstrap_signature;
pub use hpa::{Settings as AutoscalerSettings, Youth as AutoscalerYouth};
pub use node::Settings as NodeSettings;
pub use run::{Config, run};
pub use serviceaccount::Issue;
