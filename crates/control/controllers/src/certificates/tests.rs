//! Approved requests get certificates, or the reason why not; old ones go.

use super::plan::lifetime;
use super::run;
use crate::testing::Cluster;
use pintle_fake_api::FakeApi;
use pintle_pki::{CertificateAuthority, CertificateRequest};
use pintle_types::k8s::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestStatus};
use serde_json::{Value, json};
use std::sync::Arc;

/// Made with `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /O=devs/CN=ann`.
const REQUEST: &str = include_str!("ann.csr");

fn start() -> (Cluster, tempfile::TempDir) {
    let cluster = Cluster::new();
    let dir = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::create(dir.path(), "ca", cluster.context().now()).unwrap();
    tokio::spawn(run(cluster.context(), Arc::new(authority)));
    (cluster, dir)
}

fn request(name: &str, signer: &str, usages: &[&str], conditions: Value) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "request": base64(REQUEST), "signerName": signer, "usages": usages, "username": "ann" },
        "status": { "conditions": conditions },
    })
}

/// Bytes as JSON has them.
fn base64(text: &str) -> Value {
    serde_json::to_value(pintle_types::k8s::ByteString(text.as_bytes().to_vec())).unwrap()
}

fn approved() -> Value {
    // 1_700_000_000 is when the test's cluster begins.
    json!([{ "type": "Approved", "status": "True", "lastUpdateTime": "2023-11-14T22:13:20Z" }])
}

fn status(api: &FakeApi, name: &str) -> Option<CertificateSigningRequestStatus> {
    api.get::<CertificateSigningRequest>("", name).map(|request| request.status.unwrap_or_default())
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

#[tokio::test(start_paused = true)]
async fn an_approved_request_gets_its_certificate_and_goes_after_an_hour() {
    let (cluster, _dir) = start();
    let create = async |object| cluster.create::<CertificateSigningRequest>(object).await;
    create(request("a", CLIENT, &["client auth"], approved())).await;
    create(request("pending", CLIENT, &["client auth"], json!([]))).await;
    create(request("foreign", "example.com/signer", &["client auth"], approved())).await;
    let signed = |api: &FakeApi| status(api, "a").and_then(|status| status.certificate);
    cluster.until("it is signed", |api| signed(api).is_some()).await;
    let pem = String::from_utf8(signed(&cluster.api).unwrap().0).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    for other in ["pending", "foreign"] {
        assert!(status(&cluster.api, other).unwrap().certificate.is_none(), "{other}");
    }
    cluster.pass(3700.0).await;
    assert!(status(&cluster.api, "a").is_none() && status(&cluster.api, "foreign").is_none());
    assert!(status(&cluster.api, "pending").is_some(), "a day, for those");
}

#[tokio::test(start_paused = true)]
async fn what_a_signer_does_not_sign_fails() {
    let (cluster, _dir) = start();
    let cases = [
        (CLIENT, "server auth", "invalid usage for client certificate: server auth"),
        (CLIENT, "digital signature", "missing required usage for client certificate: client auth"),
        ("kubernetes.io/kubelet-serving", "server auth", "subject organization is not system:nodes"),
        ("kubernetes.io/kube-apiserver-client-kubelet", "client auth", "subject organization is not system:nodes"),
    ];
    for (index, (signer, usage, expected)) in cases.into_iter().enumerate() {
        let name = format!("r{index}");
        cluster.create::<CertificateSigningRequest>(request(&name, signer, &[usage], approved())).await;
        let failed = |api: &FakeApi| {
            let conditions = status(api, &name)?.conditions?;
            conditions.into_iter().find(|it| it.type_ == "Failed")?.message
        };
        cluster.until("it fails", |api| failed(api).is_some()).await;
        assert_eq!(failed(&cluster.api).as_deref(), Some(expected));
    }
}

#[test]
fn lifetimes_are_between_ten_minutes_and_a_year() {
    for (asked, seconds) in [(None, 31_536_000), (Some(60), 600), (Some(3600), 3600), (Some(i32::MAX), 31_536_000)] {
        assert_eq!(lifetime(asked).as_secs(), seconds);
    }
    assert!(CertificateRequest::from_pem(REQUEST).is_ok());
}
