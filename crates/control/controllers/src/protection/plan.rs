//! What becomes of an object's finalizer.

use pintle_types::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The finalizers that an object should have, when it does not have them: with `finalizer` while it lives, without it
/// when it is being deleted and `used` says that nobody uses it.
pub fn finalizers(metadata: &ObjectMeta, finalizer: &str, used: impl FnOnce() -> bool) -> Option<Vec<String>> {
    let present = metadata.finalizers.clone().unwrap_or_default();
    let has = present.iter().any(|it| it == finalizer);
    match (metadata.deletion_timestamp.is_some(), has) {
        (false, false) => Some(present.into_iter().chain([finalizer.to_owned()]).collect()),
        (true, true) if !used() => Some(present.into_iter().filter(|it| it != finalizer).collect()),
        _ => None,
    }
}
