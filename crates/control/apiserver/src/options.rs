//! The options of a request's query, read and checked with upstream's messages.
//!
//! Source: apimachinery's `pkg/apis/meta/v1/validation` and `pkg/apis/meta/internalversion/validation`.

use crate::query::Query;
use pintle_registry::{FieldValidation, ListOptions, VersionMatch, WatchOptions};
use pintle_types::Status;
use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names::GroupKind;
use pintle_types::selector::{FieldSelector, LabelSelector};
use std::time::Duration;

/// The options that all writes have.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    /// Empty when not given.
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: bool,
}

const MAX_MANAGER_BYTES: usize = 128;

fn invalid(kind: &str, errors: &ErrorList) -> Box<Status> {
    let kind = GroupKind { group: "meta.k8s.io".into(), kind: kind.into() };
    Box::new(Status::invalid(&kind, "", errors))
}

impl WriteOptions {
    /// `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`; `apply` is a patch by server-side apply.
    pub fn read(query: &Query, kind: &str, apply: bool) -> Result<Self, Box<Status>> {
        let mut errors = ErrorList::new();
        let force = query.optional_flag("force");
        let manager = query.text("fieldManager").to_owned();
        if kind == "PatchOptions" {
            check_patch(&manager, force, apply, &mut errors);
        }
        check_manager(&manager, &mut errors);
        let dry_run = dry_run(query, &mut errors);
        let field_validation = field_validation(query, &mut errors);
        if errors.is_empty() {
            Ok(Self { dry_run, field_manager: manager, field_validation, force: force.unwrap_or(false) })
        } else {
            Err(invalid(kind, &errors))
        }
    }
}

fn check_patch(manager: &str, force: Option<bool>, apply: bool, errors: &mut ErrorList) {
    if apply && manager.is_empty() {
        errors.push(FieldError::required(&Path::new("fieldManager"), "is required for apply patch"));
    }
    if !apply && force.is_some() {
        errors.push(FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
    }
}

fn check_manager(manager: &str, errors: &mut ErrorList) {
    let path = Path::new("fieldManager");
    if manager.len() > MAX_MANAGER_BYTES {
        errors.push(FieldError::too_long(&path, MAX_MANAGER_BYTES));
    }
    if let Some((at, c)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let detail = format!("should only contain printable characters, but contains {c:?} at position {at}");
        errors.push(FieldError::invalid(&path, manager, &detail));
    }
}

/// Reads `dryRun`; anything but `All` is an error.
pub(crate) fn dry_run(query: &Query, errors: &mut ErrorList) -> bool {
    let values: Vec<&str> = query.all("dryRun").filter(|v| !v.is_empty()).collect();
    if values.iter().any(|v| *v != "All") {
        errors.push(FieldError::not_supported(&Path::new("dryRun"), values.clone(), &["All"]));
    }
    !values.is_empty()
}

fn field_validation(query: &Query, errors: &mut ErrorList) -> FieldValidation {
    match query.text("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errors.push(FieldError::not_supported(&Path::new("fieldValidation"), other, &supported));
            FieldValidation::Warn
        }
    }
}

struct Selectors {
    labels: LabelSelector,
    fields: FieldSelector,
}

fn selectors(query: &Query) -> Result<Selectors, Box<Status>> {
    let bad = |e: pintle_types::selector::ParseSelectorError| Box::new(Status::bad_request(e.to_string()));
    Ok(Selectors {
        labels: LabelSelector::parse(query.text("labelSelector")).map_err(bad)?,
        fields: FieldSelector::parse(query.text("fieldSelector")).map_err(bad)?,
    })
}

fn version_match(query: &Query) -> Option<VersionMatch> {
    match query.text("resourceVersionMatch") {
        "Exact" => Some(VersionMatch::Exact),
        "NotOlderThan" => Some(VersionMatch::NotOlderThan),
        _ => None,
    }
}

/// Reads the options of a list. The name of the path, for `get`-like lists, is not among them.
pub(crate) fn list_options(query: &Query) -> Result<ListOptions, Box<Status>> {
    let Selectors { labels, fields } = selectors(query)?;
    let limit = query.number("limit")?.unwrap_or_default();
    check_list(query)?;
    Ok(ListOptions {
        labels,
        fields,
        limit: usize::try_from(limit).unwrap_or_default(),
        continue_token: query.text("continue").to_owned(),
        resource_version: query.text("resourceVersion").to_owned(),
        version_match: version_match(query),
    })
}

fn check_list(query: &Query) -> Result<(), Box<Status>> {
    let mut errors = ErrorList::new();
    let path = Path::new("resourceVersionMatch");
    let (wanted, version) = (query.text("resourceVersionMatch"), query.text("resourceVersion"));
    let mut forbid = |on: &Path, why: &str| errors.push(FieldError::forbidden(on, why));
    if !wanted.is_empty() {
        if version.is_empty() {
            forbid(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !query.text("continue").is_empty() {
            forbid(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if wanted == "Exact" && version == "0" {
            forbid(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if query.has("sendInitialEvents") {
        forbid(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    if !matches!(wanted, "" | "Exact" | "NotOlderThan") {
        errors.push(FieldError::not_supported(&path, wanted, &["Exact", "NotOlderThan", ""]));
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid("ListOptions", &errors)) }
}

/// Reads the options of a watch.
pub(crate) fn watch_options(query: &Query) -> Result<WatchOptions, Box<Status>> {
    let Selectors { labels, fields } = selectors(query)?;
    check_watch(query)?;
    let timeout = query.number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    Ok(WatchOptions {
        labels,
        fields,
        resource_version: query.text("resourceVersion").to_owned(),
        version_match: version_match(query),
        allow_bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: query.optional_flag("sendInitialEvents"),
        timeout: timeout.map(Duration::from_secs),
    })
}

fn check_watch(query: &Query) -> Result<(), Box<Status>> {
    let mut errors = ErrorList::new();
    let path = Path::new("resourceVersionMatch");
    let wanted = query.text("resourceVersionMatch");
    let initial = query.has("sendInitialEvents");
    if initial && wanted != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, why));
    }
    if !wanted.is_empty() {
        if !initial {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if wanted != "NotOlderThan" {
            errors.push(FieldError::not_supported(&path, wanted, &["NotOlderThan"]));
        }
        if !query.text("continue").is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid("ListOptions", &errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_told_as_upstream_tells_them() {
        let message = |query: &str, kind: &str, apply: bool| {
            WriteOptions::read(&Query::parse(query), kind, apply).map(|_| ()).unwrap_err().message.clone()
        };
        assert_eq!(
            message("dryRun=Some", "CreateOptions", false),
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
        );
        assert_eq!(
            message("", "PatchOptions", true),
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        );
        let list = |query: &str| list_options(&Query::parse(query)).map(|_| ()).unwrap_err().message.clone();
        assert_eq!(
            list("resourceVersionMatch=Exact"),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
             unless resourceVersion is provided"
        );
        assert!(watch_options(&Query::parse("watch=1&sendInitialEvents=true")).is_err());
    }
}
