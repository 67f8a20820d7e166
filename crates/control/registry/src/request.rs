//! What callers say beside the object: who asks, how, and the options of each verb.

use crate::admission::{Admission, AuditAnnotations};
use parking_lot::Mutex;
use pintle_types::selector::{FieldSelector, LabelSelector};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Who asks, as the authenticators found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What is done about fields that the kind does not have, in bodies that the registry makes itself (patches).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    #[default]
    Strict,
}

/// What every write brings along, whatever its verb.
pub struct Request<'a> {
    pub user: &'a UserInfo,
    pub admission: &'a dyn Admission,
    /// The name under which managed fields are kept: `fieldManager`, or the user agent up to its first slash.
    pub field_manager: &'a str,
    pub field_validation: FieldValidation,
    /// Everything is done but the storing.
    pub dry_run: bool,
    /// Where admission notes what the audit log is to say; nothing while requests are not audited.
    pub audit: Option<&'a AuditAnnotations>,
    /// How the client wrote [`Strategy::verbatim_field`](pintle_kinds::Strategy::verbatim_field) of a whole object.
    pub verbatim: Option<&'a RawValue>,
    warnings: Mutex<Vec<String>>,
}

impl<'a> Request<'a> {
    pub fn new(user: &'a UserInfo, admission: &'a dyn Admission, field_manager: &'a str) -> Self {
        let field_validation = FieldValidation::default();
        Self {
            user,
            admission,
            field_manager,
            field_validation,
            dry_run: false,
            audit: None,
            verbatim: None,
            warnings: Mutex::default(),
        }
    }

    /// Adds a warning for the caller; equal ones are told once.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// What to send in `Warning` headers, in the order in which it came up.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }
}

/// How a given resourceVersion is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// As the client gave it; empty is the newest state.
    pub resource_version: String,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// 0 is no limit.
    pub limit: usize,
    pub continue_token: String,
    /// As the client gave it; empty is the newest state, "0" any.
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// As the client gave it; empty and "0" begin with the present state.
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    /// The stream ends after this time; nothing is a random time between 30 and 60 minutes, as upstream has it.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub enum Patch {
    /// A list of operations (RFC 6902).
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    Strategic(Value),
    /// Server-side apply.
    Apply {
        configuration: Value,
        force: bool,
    },
}

/// What must hold of an object that is deleted (or bound, or evicted).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// `metav1.DeleteOptions`, as the body of a DELETE has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub preconditions: Option<Preconditions>,
    pub orphan_dependents: Option<bool>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<String>,
}
