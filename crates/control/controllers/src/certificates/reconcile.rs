//! Watches requests for certificates.

use super::approve::{Recognized, awaits_approval, recognized, review};
use super::plan::{Signer, awaits_signature, lifetime, seconds_left};
use crate::context::Context;
use pintle_client::{ClientError, DeleteOptions, unless_missing};
use pintle_informer::{Informer, Outcome, Queue, run_reconciler};
use pintle_pki::{CertificateAuthority, CertificateRequest};
use pintle_types::k8s::ByteString;
use pintle_types::k8s::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use pintle_types::k8s::api::core::v1::{Node, Service};
use pintle_types::{Kind, ObjectKey};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Runs the controller until the context's stop.
pub async fn run(context: Context, authority: Arc<CertificateAuthority>) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue: Queue<ObjectKey> = Queue::new();
    let changed = queue.clone();
    requests.on_change(move |change| changed.add(change.object().key()));
    requests.synced().await;
    let addresses = Addresses { nodes: context.informers.of(), services: context.informers.of() };
    addresses.nodes.synced().await;
    addresses.services.synced().await;
    let reconcile = |key| reconcile(&context, &requests, &authority, &addresses, key);
    run_reconciler("certificate-controller", queue, 1, reconcile, context.stop.clone()).await;
}

async fn reconcile(
    context: &Context,
    requests: &Informer<CertificateSigningRequest>,
    authority: &CertificateAuthority,
    addresses: &Addresses,
    key: ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(request) = requests.get(&key) else { return Ok(Outcome::Done) };
    if request.is_deleting() {
        return Ok(Outcome::Done);
    }
    let left = seconds_left(&request, context.now());
    if left <= 0 {
        let options = DeleteOptions::of_uid(request.uid());
        unless_missing(context.client.delete::<CertificateSigningRequest>("", &key.name, &options).await)?;
        return Ok(Outcome::Done);
    }
    if let Some(signer) = Signer::named(&request.spec.signer_name) {
        if awaits_approval(&request) {
            approve(context, &request, signer, addresses).await?;
        } else if awaits_signature(&request) {
            context.client.update_status(&answer(context, &request, signer, authority)).await?;
        }
    }
    Ok(Outcome::After(Duration::from_secs(left.unsigned_abs())))
}

/// Who has which address.
struct Addresses {
    nodes: Informer<Node>,
    services: Informer<Service>,
}

impl Addresses {
    /// Whether an address is a service's or another node's.
    fn are_taken(&self, node: &str, address: IpAddr) -> bool {
        let text = address.to_string();
        let of_node = |other: &Node| {
            let addresses = other.status.iter().flat_map(|status| status.addresses.iter().flatten());
            other.name() != node && addresses.into_iter().any(|found| found.address == text)
        };
        let of_service = |service: &Service| {
            let spec = service.spec.as_ref();
            spec.is_some_and(|s| s.cluster_ips.iter().flatten().chain(&s.cluster_ip).any(|found| *found == text))
        };
        self.nodes.list().iter().any(|other| of_node(other)) || self.services.list().iter().any(|s| of_service(s))
    }
}

/// Approves what nodes need, if who asks may have it. The approval comes back as a change, and is signed then.
async fn approve(
    context: &Context,
    request: &CertificateSigningRequest,
    signer: Signer,
    addresses: &Addresses,
) -> Result<(), ClientError> {
    let pem = std::str::from_utf8(&request.spec.request.0).unwrap_or_default();
    let Ok(asked) = CertificateRequest::from_pem(pem) else { return Ok(()) };
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    let asking = request.spec.username.as_deref().unwrap_or_default();
    for Recognized { subresource, message } in
        recognized(signer, asking, &asked, usages, |node, address| addresses.are_taken(node, address))
    {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let reviewed = context.client.json(http::Method::POST, path, Some(&review(request, subresource))).await?;
        if reviewed["status"]["allowed"] != true {
            continue;
        }
        let mut approved = request.clone();
        let status = approved.status.get_or_insert_with(CertificateSigningRequestStatus::default);
        status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            reason: Some("AutoApproved".into()),
            message: Some(message.into()),
            ..CertificateSigningRequestCondition::default()
        });
        return context.client.update_sub(&approved, "approval").await.map(drop);
    }
    Ok(())
}

/// The request with its certificate, or with the reason why it gets none.
fn answer(
    context: &Context,
    request: &CertificateSigningRequest,
    signer: Signer,
    authority: &CertificateAuthority,
) -> CertificateSigningRequest {
    let mut answered = request.clone();
    let status = answered.status.get_or_insert_with(CertificateSigningRequestStatus::default);
    match sign(context, request, signer, authority) {
        Ok(certificate) => status.certificate = Some(ByteString(certificate.into_bytes())),
        Err(why) => status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
            type_: "Failed".into(),
            status: "True".into(),
            reason: Some("SignerValidationFailure".into()),
            message: Some(why),
            last_update_time: Some(context.time()),
            ..CertificateSigningRequestCondition::default()
        }),
    }
    answered
}

fn sign(
    context: &Context,
    request: &CertificateSigningRequest,
    signer: Signer,
    authority: &CertificateAuthority,
) -> Result<String, String> {
    let pem = std::str::from_utf8(&request.spec.request.0).map_err(|error| error.to_string())?;
    let asked = CertificateRequest::from_pem(pem).map_err(|error| error.to_string())?;
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    signer.check(&asked, usages)?;
    let lifetime = lifetime(request.spec.expiration_seconds);
    authority.sign(&asked, usages, lifetime, context.now()).map_err(|error| error.to_string())
}
