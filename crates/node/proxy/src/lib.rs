//! Programs the kernel to carry service addresses to their endpoints.
//!
//! [`run`] hears of Services and EndpointSlices, [`plan`] says what the kernel should have for one service, the
//! `ledger` finds what that changes, and `apply` makes the changes of any number of services in one nf_tables
//! transaction. A change costs what it changes. Connections that exist keep their endpoint: their translation is the
//! kernel's connection tracking, which no rule is asked about again.
//!
//! Each family has a table of its own, `ip pintle_proxy` and `ip6 pintle_proxy`, made by the same code; `rules`
//! describes its layout. A cluster whose pods have one family has one table.

mod apply;
mod collect;
mod health;
mod ledger;
mod plan;
mod rules;
mod run;
#[cfg(test)]
mod tests;

pub use apply::{Error, Kernel};
pub use run::{Config, Objects, Proxy, run};
