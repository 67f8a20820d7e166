//! Devices that pods claim: upstream's DynamicResources.
//!
//! [`Devices`] is what is known of claims, classes and slices, with the allocations under way; [`allocate`] finds devices
//! for claims on one node and is pure; [`Claims`] holds a pod's claims against nodes; the rest watches and writes. A
//! cluster whose pods claim nothing watches nothing of this.

mod allocator;
mod asked;
mod bind;
mod capacity;
mod claims;
mod conditions;
mod constraint;
mod devices;
mod extended;
mod follow;
mod result;
mod selector;
#[cfg(test)]
mod tests;

pub(crate) use bind::{Reservation, bind, deallocate, is_concerned, reserve, unreserve};
pub(crate) use claims::{Claims, UNAVAILABLE, claims_of, has_claims, names, wants_claims};
pub use devices::Devices;
pub(crate) use extended::{STALE, is_extended, may_want};
pub(crate) use follow::follow;
