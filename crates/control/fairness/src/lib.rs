//! Priority and fairness: which request is answered next when there are more than can be.
//!
//! A request is classified by the first flow schema that matches it ([`Digest`], `schema.rs`), belongs to that
//! schema's priority level, and takes seats there while it is answered. A level without a free seat queues or
//! rejects (`level.rs`, which knows no clock and no tasks); levels lend seats that they don't need (`seats.rs`).
//! [`Fairness`] is the whole for callers. It has no task and no timer of its own: an idle server does nothing.
//!
//! Source: KEP-1040, `flowcontrol.apiserver.k8s.io/v1`.

mod defaults;
mod dump;
mod fairness;
mod level;
mod metrics;
mod schema;
mod seats;

pub use defaults::{levels as default_levels, mandatory, schemas as default_schemas};
pub use fairness::{Fairness, Rejected, Seat};
pub use schema::{Digest, Target};

#[cfg(test)]
mod tests;
