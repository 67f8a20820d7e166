//! Definitions in the community's groups must say where they were approved (KEP-1111).

use crate::check::Errors;
use pintle_types::field::Path;
use serde_json::Value;

const ANNOTATION: &str = "api-approved.kubernetes.io";
const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// What the annotation of a definition in a protected group says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub approved: bool,
    /// As the condition `KubernetesAPIApprovalPolicyConformant` names it.
    pub reason: &'static str,
    pub message: String,
}

/// The approval of a definition; nothing for groups that are not protected.
pub fn approval_of(definition: &Value) -> Option<Approval> {
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let protected = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return None;
    }
    let text = definition["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default();
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    let must = format!("protected groups must have approval annotation {ANNOTATION:?}");
    let (approved, reason, message) = if text.is_empty() {
        (false, "MissingAnnotation", format!("{must}, {SEE}"))
    } else if text.starts_with("unapproved") {
        (false, "UnapprovedAnnotation", format!("not approved: {text:?}"))
    } else if is_url {
        (true, "ApprovedAnnotation", format!("approved in {text}"))
    } else {
        let either = "with either a URL or a reason starting with \"unapproved\"";
        (false, "InvalidAnnotation", format!("{must} {either}, {SEE}"))
    };
    Some(Approval { approved, reason, message })
}

/// What is wrong with the annotation of a new definition, or of one whose state changed.
pub(super) fn validate(errors: &mut Errors, new: &Value, old: Option<&Value>) {
    let Some(state) = approval_of(new) else { return };
    if old.and_then(approval_of).is_some_and(|before| before.reason == state.reason) {
        return;
    }
    let at = Path::new("metadata.annotations").key(ANNOTATION);
    match state.reason {
        "MissingAnnotation" => errors.required(&at, &state.message),
        "InvalidAnnotation" => {
            let text = new["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default();
            errors.invalid(&at, text, &state.message);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn protected_groups_need_approval() {
        let check = |group: &str, text: &str| {
            let annotations = if text.is_empty() { json!({}) } else { json!({ANNOTATION: text}) };
            let state = approval_of(&json!({"metadata": {"annotations": annotations}, "spec": {"group": group}}));
            state.map(|s| (s.approved, s.reason))
        };
        assert_eq!(check("example.com", ""), None);
        assert_eq!(check("a.k8s.io", ""), Some((false, "MissingAnnotation")));
        assert_eq!(check("a.k8s.io", "https://github.com/x/y/pull/1"), Some((true, "ApprovedAnnotation")));
        assert_eq!(check("k8s.io", "unapproved, experimental"), Some((false, "UnapprovedAnnotation")));
        assert_eq!(check("kubernetes.io", "yes"), Some((false, "InvalidAnnotation")));
    }
}
