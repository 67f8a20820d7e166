//! Keeps packets from pods, and of pods, that NetworkPolicies do not allow.
//!
//! [`run`] hears of NetworkPolicies, and while there is one, of pods and namespaces; `facts` reads of them what counts,
//! `plan` and `wanted` say which chains, sets and elements the kernel should have and what a change changes about them, and
//! `kernel` makes the changes in one nf_tables transaction. A cluster without policies has one watch of nothing and no
//! table. Only policies that select a pod of this node are in the kernel.
//!
//! Each family has a table of its own, `ip pintle_policy` and `ip6 pintle_policy`, made by the same code; it sees packets that are forwarded, after the translation of services, so that both
//! ends are pods' own addresses. What the node itself sends or receives is not looked at: probes always arrive, and a
//! pod always reaches its node. Answers pass because connection tracking knows what they answer.

mod facts;
mod feed;
mod kernel;
mod plan;
mod rules;
mod run;
#[cfg(test)]
mod tests;
mod wanted;

pub use kernel::{Error, remove};
pub use run::{Config, Guard, NewPod, Policies};
