//! Which cluster is at an address: what it says of itself, proved by the token and by the hash of its authority.
//!
//! The ConfigMap `cluster-info` is read from a server that is not known yet. It is believed when it carries a signature
//! with the token (RFC 7515, detached), and its authority has one of the hashes; then it is read once more from a
//! server that the authority has certified. So a stranger in between learns nothing of the token and can prove nothing.
//! Source: `cmd/kubeadm/app/discovery/token` of Kubernetes.

use crate::{identity, token};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pintle_client::Client;
use pintle_types::k8s::api::core::v1::ConfigMap;
use serde_json::Value;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const CONTENT: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";
/// A token that was just made may take a moment to sign.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
const HASH: &str = "sha256:";

/// A cluster that is believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `https://ADDRESS:PORT`
    pub(crate) server: String,
    pub(crate) authority_pem: String,
}

/// Finds the cluster that the arguments speak of.
pub(super) async fn discover(arguments: &pintle_cli::Join) -> Result<Found> {
    let token = &arguments.token;
    token::parts(token)?;
    let hashes = &arguments.discovery_token_ca_cert_hash;
    ensure!(
        !hashes.is_empty() || arguments.discovery_token_unsafe_skip_ca_verification,
        "one of --discovery-token-ca-cert-hash or --discovery-token-unsafe-skip-ca-verification is needed"
    );
    check_hashes(hashes)?;
    let url = format!("https://{}", arguments.endpoint.trim_start_matches("https://").trim_end_matches('/'));
    let stranger = identity::remote(&url, pintle_pki::client_config_unverified()?, None)?;
    let claimed = signed_info(&stranger, token).await?;
    let found = cluster_of(&claimed)?;
    if !hashes.is_empty() {
        let own = pintle_pki::public_key_hashes(&found.authority_pem)?;
        let pinned = own.iter().any(|own| hashes.iter().any(|hash| hash.strip_prefix(HASH) == Some(own)));
        ensure!(
            pinned,
            "cluster CA found in {NAME} ConfigMap is invalid: none of the public keys \"{HASH}{}\" are pinned",
            own.join(" ")
        );
    }
    let proved = identity::remote(&url, pintle_pki::client_config(&found.authority_pem, None)?, None)?;
    let again = proved.get::<ConfigMap>(NAMESPACE, NAME).await;
    let again = cluster_of(&again.with_context(|| format!("read {NAME} from the server that was found"))?)?;
    ensure!(again == found, "the second kubeconfig from the {NAME} ConfigMap is not the first one");
    Ok(found)
}

fn check_hashes(hashes: &[String]) -> Result<()> {
    for hash in hashes {
        let digits = hash.strip_prefix(HASH).with_context(|| {
            format!("invalid public key hash {hash:?}: it must have the form {HASH} and 64 hexadecimal digits")
        })?;
        let good = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(good, "invalid public key hash {hash:?}: {HASH} must be followed by 64 hexadecimal digits");
    }
    Ok(())
}

/// The ConfigMap, when it is signed with the token.
async fn signed_info(client: &Client, token: &str) -> Result<ConfigMap> {
    let (id, secret) = token::parts(token)?;
    let start = Instant::now();
    loop {
        let missing = match client.get::<ConfigMap>(NAMESPACE, NAME).await {
            Ok(map) if is_signed(&map, id, secret)? => return Ok(map),
            Ok(_) => anyhow::anyhow!("there is no JWS signed with token ID {id:?}: is it over, or of another cluster?"),
            Err(error) => anyhow::Error::from(error).context(format!("read the {NAME} ConfigMap")),
        };
        if start.elapsed() > PATIENCE {
            return Err(missing.context(format!("could not find a valid {NAME} within {} s", PATIENCE.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether it carries a signature of this token; a wrong one is an error.
fn is_signed(map: &ConfigMap, id: &str, secret: &str) -> Result<bool> {
    let data = map.data.as_ref().context("the cluster-info ConfigMap is empty")?;
    let Some(signature) = data.get(&format!("{SIGNATURE}{id}")) else { return Ok(false) };
    let content = data.get(CONTENT).with_context(|| format!("there is no {CONTENT} key in the {NAME} ConfigMap"))?;
    if *signature != pintle_controllers::bootstrap_signature(content, id, secret) {
        bail!("failed to verify JWS signature of received cluster info object, can't trust this API Server");
    }
    Ok(true)
}

/// The server and the authority that the ConfigMap names.
pub(crate) fn cluster_of(map: &ConfigMap) -> Result<Found> {
    let text = map.data.as_ref().and_then(|data| data.get(CONTENT));
    let text = text.with_context(|| format!("there is no {CONTENT} key in the {NAME} ConfigMap"))?;
    let kubeconfig: Value = serde_yaml_ng::from_str(text).context("the kubeconfig of cluster-info")?;
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    let field = |name: &str| cluster[name].as_str().with_context(|| format!("cluster-info names no {name}"));
    let authority = BASE64.decode(field("certificate-authority-data")?).context("the authority in cluster-info")?;
    Ok(Found { server: field("server")?.to_owned(), authority_pem: String::from_utf8(authority)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_types::Kind;
    use serde_json::json;

    fn info(change: impl FnOnce(&mut Value)) -> ConfigMap {
        let kubeconfig = format!(
            "apiVersion: v1\nclusters:\n- name: ''\n  cluster:\n    server: https://10.0.0.1:6443\n    certificate-authority-data: {}\n",
            BASE64.encode("pem")
        );
        let signature = pintle_controllers::bootstrap_signature(&kubeconfig, "abcdef", "0123456789abcdef");
        let mut data = json!({ CONTENT: kubeconfig, "jws-kubeconfig-abcdef": signature });
        change(&mut data);
        ConfigMap::from_value(json!({ "metadata": { "name": NAME }, "data": data })).unwrap()
    }

    #[test]
    fn what_is_signed_is_believed() {
        let map = info(|_| {});
        assert!(is_signed(&map, "abcdef", "0123456789abcdef").unwrap());
        assert!(!is_signed(&map, "123456", "0123456789abcdef").unwrap(), "not with that one");
        let error = is_signed(&map, "abcdef", "0123456789abcdeX").unwrap_err().to_string();
        assert!(error.contains("failed to verify JWS signature"), "{error}");
        let forged = info(|data| data[CONTENT] = format!("{} ", data[CONTENT].as_str().unwrap()).into());
        assert!(is_signed(&forged, "abcdef", "0123456789abcdef").is_err());
        let found = Found { server: "https://10.0.0.1:6443".into(), authority_pem: "pem".into() };
        assert_eq!(cluster_of(&map).unwrap(), found);
    }

    #[test]
    fn hashes_have_a_form() {
        check_hashes(&[format!("{HASH}{}", "0a".repeat(32))]).unwrap();
        for bad in ["", "sha256:", "sha256:0A", &"0a".repeat(32), &format!("{HASH}{}", "0g".repeat(32))] {
            assert!(check_hashes(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
