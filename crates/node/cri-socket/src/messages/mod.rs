//! The messages of `runtime.v1`, with the field numbers of kubernetes/cri-api 1.36; those of Windows are left out.
//!
//! Enumerations are numbers here: [`crate::convert`] knows what they mean.

mod containers;
mod images;
mod runtime;
mod sandboxes;
mod stats;

pub use containers::*;
pub use images::*;
pub use runtime::*;
pub use sandboxes::*;
pub use stats::*;
