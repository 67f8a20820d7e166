//! The schema of every kind, and all that is derived from it: field checks, patches, apply, OpenAPI.
//!
//! Objects are `serde_json::Value` trees here; nothing in this crate knows a kind by name. Built-in kinds and custom
//! resources go through the same code: [`Schema::builtin`] is read from tables in `data/`, [`Schema::from_crd`] is made
//! from an `openAPIV3Schema` at run time.

pub mod apply;
pub mod cbor;
pub mod check;
mod crd;
pub mod custom;
pub mod decode;
mod lazy;
mod load;
mod model;
pub mod normalize;
pub mod openapi;
pub mod patch;
pub mod protobuf;
mod time;

pub use model::{FieldRef, ListType, PatchStrategy, Print, Schema, SchemaError, Shape, TypeHandle, TypeRef};
