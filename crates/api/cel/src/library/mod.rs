//! The libraries that Kubernetes v1.36 adds to the language.
//!
//! Each is a list of functions with their costs. Source: apiserver's `pkg/cel/environment` says which there are, and
//! `pkg/cel/library` and cel-go's `ext` what they do.

mod argument;
mod authorizer;
mod cidr;
mod double_text;
mod ext_lists;
mod ext_strings;
mod format;
mod format_text;
mod ip;
mod json_patch;
mod lists;
mod net_text;
mod order;
pub(crate) mod quantity;
mod regex;
pub(crate) mod semver;
mod semver_text;
mod sets;
mod two_variables;
mod url;
mod url_text;

pub use authorizer::{Authorize, AuthorizerValue, Decision, Query, ResourceCheck, Who};
pub use json_patch::{OBJECT_TYPE, PATCH_TYPE};

use crate::{Library, Type};
use std::sync::LazyLock;

/// All that every expression may use. Built at the first call.
pub fn kubernetes() -> &'static [Library] {
    static LIBRARIES: LazyLock<Vec<Library>> = LazyLock::new(|| {
        vec![
            url::library(),
            regex::library(),
            lists::library(),
            authorizer::library(),
            quantity::library(),
            ext_strings::library(),
            sets::library(),
            ip::library(),
            cidr::library(),
            format::library(),
            two_variables::library(),
            semver::library(),
            ext_lists::library(),
        ]
    });
    &LIBRARIES
}

/// What mutations may use besides: `jsonpatch.escapeKey`. The types `JSONPatch` and `Object` come from
/// [`mutation_types`].
pub fn mutations() -> &'static Library {
    static LIBRARY: LazyLock<Library> = LazyLock::new(json_patch::library);
    &LIBRARY
}

/// The types that mutations construct: `JSONPatch`, `Object` and `Object.spec.template`, by their names.
pub fn mutation_type(name: &str) -> Option<Type> {
    json_patch::type_named(name)
}

/// The type of the variable `authorizer`.
pub fn authorizer_type() -> Type {
    authorizer::authorizer_type()
}

/// The type of the variable `authorizer.requestResource`.
pub fn resource_check_type() -> Type {
    authorizer::resource_check_type()
}
