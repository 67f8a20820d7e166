//! Deletes pods whose devices have `NoExecute` taints that their claims do not bear, and tells rules that taint devices
//! what they came to.
//!
//! Taints are a driver's, in its slices, or an administrator's, in `DeviceTaintRule`s where these are served (they are
//! off by default). Slices and rules are watched from the first allocated claim on; a rule is looked at before, if any
//! can be there.

mod plan;
mod reconcile;
mod rules;
#[cfg(test)]
mod tests;

pub use reconcile::run;
