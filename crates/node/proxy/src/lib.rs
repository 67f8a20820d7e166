//! Programs the kernel to carry service addresses to their endpoints.
//!
//! [`run`] hears of Services and EndpointSlices, [`plan`] says what the kernel should have for one service, the
//! `ledger` finds what that changes, and `apply` makes the changes of any number of services in one nf_tables
//! transaction. A change costs what it changes. Connections that exist keep their endpoint: their translation is the
//! kernel's connection tracking, which no rule is asked about again.
//!
//! The table is `ip pintle_proxy`; `rules` describes its layout. IPv4 only so far: addresses of the other family are
//! left out where services are read, and nothing behind it knows of families.

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
