//! The table of every built-in kind, and what is particular to each: defaults, validation, columns.
//!
//! Everything here is pure: functions from JSON trees to JSON trees, errors or cells. Objects come in the form of
//! their own version to [`ResourceDef::default_object`], and in the storage version's form to everything else.

mod check;
pub mod column;
pub mod def;
pub mod kinds;
mod metadata;
mod rows;
pub mod strategy;
pub mod table;
pub mod tree;

pub use column::Column;
pub use def::{ResourceDef, ScalePaths, SelectableField, StorageDef, Subresource};
pub use kinds::crd::{Approval, approval_of};
pub use kinds::service::address_errors as service_address_errors;
pub use metadata::validate_metadata_update;
pub use strategy::{Converter, NameRule, Strategy, StrategyRef};
pub use table::{GroupVersions, Table};
