//! Other API servers behind this one: APIServices, whether they are available, and the way to them.
//!
//! [`Aggregator`] keeps what is known of every APIService that another server answers; the API server asks it where a
//! group and version goes, and for what those servers say of themselves (discovery, OpenAPI). [`Remote`] is one such
//! server: TLS with the trust that was declared for it, connections that are shared. Local APIServices are objects
//! only: [`priority`] says which numbers they carry.

// Upgrades hand over a connection, and a status is as big as it is rare.
#![allow(clippy::result_large_err)]

mod availability;
mod discovery;
mod known;
mod place;
pub mod priority;
mod remote;
mod spec;

pub use availability::{Condition, judge};
pub use discovery::aggregated_resources;
pub use known::{Aggregator, Known};
pub use place::{Address, PlaceError, resolve};
pub use remote::{Remote, RemoteError, Trust};
pub use spec::{ServiceRef, Spec, local_condition};
