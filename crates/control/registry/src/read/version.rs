//! Resource versions as clients give them, and what is said about those that cannot be served.

use pintle_store::Revision;
use pintle_types::status::{Cause, Details};
use pintle_types::{Reason, Status};

/// Parses a given resourceVersion; an empty one is none. The error is upstream's text.
pub(crate) fn parse(text: &str) -> Result<Option<Revision>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let why = match text.parse() {
        Ok(revision) if digits => return Ok(Some(revision)),
        Err(_) if digits => "value out of range",
        _ => "invalid syntax",
    };
    Err(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"))
}

/// The revision is still to come, and did not within the time that a reader waits.
pub(super) fn too_large(asked: Revision, current: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        ..Cause::default()
    };
    let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
    Status::failure(504, Reason::Timeout, message).with_details(details)
}

/// The revision is no longer kept.
pub(super) fn too_old(asked: Revision, oldest: Revision) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}
