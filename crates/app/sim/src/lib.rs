//! A whole cluster in one process on virtual time: the real store, API server, scheduler, controllers and kubelets over
//! a runtime that only pretends.
//!
//! ```text
//! users ──┐            ┌── faults: crashes, restarts, cut links, refused requests, late watches
//!         ▼            ▼
//!        Link ─▶ API server ─▶ store ─▶ observer: invariants at every revision
//!         ▲            ▲
//! kubelets┘            └── scheduler, controllers
//! ```
//!
//! Everything runs in one thread whose clock moves when nobody has anything to do. All choices come from the seed: the
//! same seed replays the same way, where the process also takes its entropy from it (`pintle-sim`, the binary). After a
//! time with faults everything is mended, and the cluster has to come to rest as its objects ask.

mod budgets;
mod capacity;
mod chance;
mod faults;
mod link;
mod model;
mod node;
mod observer;
mod plane;
mod rest;
mod users;
mod world;

pub use capacity::{Capacity, Report, Shape, measure};
pub use world::{Options, Outcome, run};
