//! One file for each kind (or a tight family of kinds): its defaults, validation and columns.

pub mod claim;
pub mod config;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod endpoints;
pub mod event;
pub mod job;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod rbac;
pub mod replicaset;
pub mod service;
pub mod statefulset;
mod workload;
