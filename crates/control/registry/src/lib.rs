//! The generic verbs over any kind, and the cache that answers reads and watches.
//!
//! [`Registry`] is the whole interface: `get`, `list` and `watch` answer from the cache, `create`, `update`, `patch`
//! and `delete` write to the store. What is particular to a kind comes in its `ResourceDef`; who may do what, and
//! HTTP, are the caller's matter.

// A status is the answer to a request: errors are as big as they are rare.
#![allow(clippy::result_large_err)]

pub mod admission;
mod cache;
mod codec;
mod convert;
mod count;
mod leases;
pub mod object;
pub mod presence;
mod read;
mod registry;
pub mod request;
mod services;
mod write;

pub use admission::{Admission, AdmitAll, Attributes, AuditAnnotations, Operation};
pub use count::StoreRequest;
pub use object::{BinaryFrame, Deletion, EventKind, List, Object, Watch, WatchEvent, Written, frames_made};
pub use registry::{OpenError, Options, Registry};
pub use request::{
    DeleteOptions, FieldValidation, GetOptions, ListOptions, Patch, Preconditions, Request, UserInfo, VersionMatch,
    WatchOptions,
};
