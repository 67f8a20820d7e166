//! Between the messages of the wire and the words of [`pintle_cri`], in both directions.
//!
//! Into messages everything fits (`From`); out of them a number may be out of range, or ask for what is not known here
//! (`TryFrom`).

mod containers;
mod errors;
mod images;
mod sandboxes;
mod security;
mod signals;
mod stats;

pub(crate) use containers::container_state;
pub(crate) use errors::{Subject, failure, of_cri};
pub(crate) use sandboxes::sandbox_state;
pub(crate) use security::with_user_namespace;
pub(crate) use stats::{fs_usage, number, of_usage};

use pintle_grpc::Status;

/// Something on the wire that has no counterpart here.
pub(crate) type Converted<T> = Result<T, Status>;

fn port(number: i32) -> Converted<u16> {
    u16::try_from(number).map_err(|_| Status::invalid(format!("port {number} is not between 0 and 65535")))
}

fn unknown(what: &str, number: i32) -> Status {
    Status::invalid(format!("{what} {number} is not known"))
}

fn all<A, B: TryFrom<A, Error = Status>>(items: Vec<A>) -> Converted<Vec<B>> {
    items.into_iter().map(B::try_from).collect()
}
