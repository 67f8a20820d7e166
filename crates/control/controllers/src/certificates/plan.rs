//! Which requests the built-in signers accept, and how long a request is kept.

use crate::context::seconds_between;
use pintle_clock::Timestamp;
use pintle_pki::CertificateRequest;
use pintle_types::k8s::api::certificates::v1::CertificateSigningRequest;
use std::time::Duration;

const HOUR: i64 = 60 * 60;
/// Requests that were answered, in whatever way, go after an hour; others may wait for a day.
const KEPT_ANSWERED: i64 = HOUR;
const KEPT_PENDING: i64 = 24 * HOUR;
/// What is signed when nobody asks for less: a year.
const LONGEST: u64 = 365 * 24 * 60 * 60;
/// Twice the time by which certificates are dated back.
const SHORTEST: u64 = 10 * 60;
const NODES: &str = "system:nodes";
pub(super) const NODE: &str = "system:node:";

/// The signers that every cluster has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Signer {
    Client,
    KubeletClient,
    KubeletServing,
    Unknown,
}

impl Signer {
    /// Nothing for signers that somebody else runs.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "kubernetes.io/kube-apiserver-client" => Self::Client,
            "kubernetes.io/kube-apiserver-client-kubelet" => Self::KubeletClient,
            "kubernetes.io/kubelet-serving" => Self::KubeletServing,
            "kubernetes.io/legacy-unknown" => Self::Unknown,
            _ => return None,
        })
    }

    /// Why the signer does not sign a request, if so.
    pub(super) fn check(self, request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
        match self {
            Self::Unknown => Ok(()),
            Self::Client => client_usages(usages),
            Self::KubeletClient => {
                of_node(request)?;
                no(&request.dns_names, "DNS")?;
                no(&request.emails, "Email")?;
                no(&request.addresses, "IP")?;
                no(&request.uris, "URI")?;
                exact_usages(usages, "client auth")
            }
            Self::KubeletServing => {
                of_node(request)?;
                if request.dns_names.is_empty() && request.addresses.is_empty() {
                    return Err("DNS or IP subjectAltName is required".into());
                }
                no(&request.emails, "Email")?;
                no(&request.uris, "URI")?;
                exact_usages(usages, "server auth")
            }
        }
    }
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let allowed = ["client auth", "digital signature", "key encipherment"];
    if let Some(usage) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if usages.iter().any(|usage| usage == "client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".into())
}

fn of_node(request: &CertificateRequest) -> Result<(), String> {
    if request.subject.organizations != [NODES] {
        return Err("subject organization is not system:nodes".into());
    }
    if !request.subject.common_name.starts_with(NODE) {
        return Err("subject common name does not begin with system:node:".into());
    }
    Ok(())
}

fn no<T>(names: &[T], what: &str) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(format!("{what} subjectAltNames are not allowed")) }
}

/// A signature and one purpose; keys that can encrypt may do that too.
fn exact_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut given: Vec<&str> = usages.iter().map(String::as_str).collect();
    given.sort_unstable();
    given.dedup();
    let mut needed = vec!["digital signature", purpose];
    needed.sort_unstable();
    given.retain(|usage| *usage != "key encipherment");
    if given == needed { Ok(()) } else { Err(format!("usages did not match [{}]", needed.join(" "))) }
}

/// How long the certificate is to be valid.
pub(super) fn lifetime(asked_seconds: Option<i32>) -> Duration {
    let seconds = asked_seconds.map_or(LONGEST, |seconds| u64::try_from(seconds).unwrap_or_default());
    Duration::from_secs(seconds.clamp(SHORTEST, LONGEST))
}

/// Whether a condition of that type holds.
pub(super) fn has(request: &CertificateSigningRequest, condition: &str) -> bool {
    conditions(request).any(|it| it.type_ == condition && it.status == "True")
}

fn conditions(
    request: &CertificateSigningRequest,
) -> impl Iterator<Item = &pintle_types::k8s::api::certificates::v1::CertificateSigningRequestCondition> {
    request.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

/// Whether a signature is what the request waits for.
pub(super) fn awaits_signature(request: &CertificateSigningRequest) -> bool {
    let signed = request.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some();
    has(request, "Approved") && !has(request, "Denied") && !has(request, "Failed") && !signed
}

/// The seconds for which the request is still kept; none or less when it is over.
pub(super) fn seconds_left(request: &CertificateSigningRequest, now: Timestamp) -> i64 {
    let answered = conditions(request).filter_map(|it| it.last_update_time.as_ref()).map(|time| time.0).min();
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    match answered {
        Some(time) => KEPT_ANSWERED - seconds_between(time, now),
        None => KEPT_PENDING - seconds_between(created, now),
    }
}
