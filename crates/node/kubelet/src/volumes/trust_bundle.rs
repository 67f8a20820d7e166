//! Chooses the authorities that a volume asks for, and writes them as one file.
//!
//! Source: `pkg/kubelet/clustertrustbundle`; messages are upstream's.

use super::Why;
use base64::Engine;
use pintle_types::k8s::api::certificates::v1beta1::ClusterTrustBundle;
use pintle_types::k8s::api::core::v1::ClusterTrustBundleProjection;
use pintle_types::selector::LabelSelector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::{BTreeMap, BTreeSet};

/// Letters in a line of PEM (RFC 7468, section 2).
const LINE: usize = 64;

/// The certificates that a projection asks for, each once.
pub fn anchors(
    source: &ClusterTrustBundleProjection,
    all: &BTreeMap<String, ClusterTrustBundle>,
) -> Result<Vec<u8>, Why> {
    let optional = source.optional == Some(true);
    let chosen: Vec<&ClusterTrustBundle> = match (&source.name, &source.signer_name) {
        (Some(name), _) => match all.get(name) {
            Some(bundle) => vec![bundle],
            None if optional => vec![],
            None => {
                let missing = format!("clustertrustbundle.certificates.k8s.io {name:?} not found");
                return Err(Why::Invalid(format!("while getting ClusterTrustBundle: {missing}")));
            }
        },
        (None, Some(signer)) => of_signer(signer, source, all, optional)?,
        (None, None) => return Err(Why::Invalid("either name or signerName must be given".to_owned())),
    };
    let mut certificates = BTreeSet::new();
    for certificate in chosen.iter().flat_map(|b| CertificateDer::pem_slice_iter(b.spec.trust_bundle.as_bytes())) {
        let wrong = |error| Why::Invalid(format!("while normalizing trust anchors: {error}"));
        certificates.insert(certificate.map_err(wrong)?.to_vec());
    }
    Ok(certificates.iter().map(|certificate| pem(certificate)).collect::<String>().into_bytes())
}

/// Without a selector none is meant, with an empty one all of the signer's are.
fn of_signer<'a>(
    signer: &str,
    source: &ClusterTrustBundleProjection,
    all: &'a BTreeMap<String, ClusterTrustBundle>,
    optional: bool,
) -> Result<Vec<&'a ClusterTrustBundle>, Why> {
    let selector = LabelSelector::from_typed(source.label_selector.as_ref());
    let none = BTreeMap::new();
    let is_meant = |bundle: &&ClusterTrustBundle| {
        let labels = bundle.metadata.labels.as_ref().unwrap_or(&none);
        bundle.spec.signer_name.as_deref() == Some(signer) && selector.matches(labels)
    };
    let chosen: Vec<_> = all.values().filter(is_meant).collect();
    if chosen.is_empty() && !optional {
        let why = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        return Err(Why::Invalid(why.to_owned()));
    }
    Ok(chosen)
}

fn pem(certificate: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    // Base64 is ASCII, so that no letter is cut in two.
    let lines = text.as_bytes().chunks(LINE).map(|line| String::from_utf8_lossy(line));
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A bundle of certificates that are these texts.
    fn bundle(name: &str, signer: Option<&str>, label: &str, certificates: &[&str]) -> (String, ClusterTrustBundle) {
        let text: String = certificates.iter().map(|text| pem(text.as_bytes())).collect();
        let object = json!({
            "metadata": {"name": name, "labels": {"of": label}},
            "spec": {"signerName": signer, "trustBundle": format!("a word\n{text}")},
        });
        (name.to_owned(), serde_json::from_value(object).unwrap())
    }

    fn check(source: Value, expected: Result<&[&str], &str>) {
        let all = BTreeMap::from([
            bundle("plain", None, "x", &["b", "a", "b"]),
            bundle("s:one", Some("example.com/s"), "x", &["c"]),
            bundle("s:two", Some("example.com/s"), "y", &["d", "c"]),
        ]);
        let mut whole = json!({"path": "p"});
        source.as_object().unwrap().iter().for_each(|(key, value)| whole[key] = value.clone());
        let got = anchors(&serde_json::from_value(whole).unwrap(), &all);
        let got = got.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|why| why.to_string());
        let expected = expected.map(|texts| texts.iter().map(|t| pem(t.as_bytes())).collect::<String>());
        assert_eq!(got, expected.map_err(str::to_owned), "{source}");
    }

    #[test]
    fn bundles_are_chosen_by_name_or_by_signer_and_labels() {
        let none = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        let missing = "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"no\" not found";
        let of_signer = |selector: Value, optional: bool| json!({"signerName": "example.com/s", "labelSelector": selector, "optional": optional});
        check(json!({"name": "plain"}), Ok(&["a", "b"]));
        check(json!({"name": "no"}), Err(missing));
        check(json!({"name": "no", "optional": true}), Ok(&[]));
        check(of_signer(json!({}), false), Ok(&["c", "d"]));
        check(of_signer(json!({"matchLabels": {"of": "y"}}), false), Ok(&["c", "d"]));
        check(of_signer(json!({"matchLabels": {"of": "x"}}), false), Ok(&["c"]));
        check(of_signer(json!({"matchLabels": {"of": "z"}}), false), Err(none));
        check(of_signer(json!(null), false), Err(none));
        check(of_signer(json!(null), true), Ok(&[]));
        check(json!({"signerName": "example.com/other", "labelSelector": {}}), Err(none));
    }

    #[test]
    fn long_certificates_have_lines_of_the_usual_length() {
        let text = pem(&[7; 100]);
        let lines: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lines, [27, 64, 64, 8, 25]);
        let (_, bundle) = bundle("b", None, "x", &["x"]);
        assert_eq!(CertificateDer::pem_slice_iter(bundle.spec.trust_bundle.as_bytes()).count(), 1);
    }
}
