//! What several servers of one cluster share: their authorities and the key of service account tokens.
//!
//! As kubeadm's `--upload-certs`: the Secret `kubeadm-certs` holds the files, sealed with a key that only the person has
//! who runs `join --control-plane`. It is bound to a token of its own, and goes with it after two hours.

use crate::cluster::Cluster;
use crate::token::{self, DEFAULT_GROUP};
use anyhow::{Context, Result, ensure};
use pintle_client::Client;
use pintle_pki::SEALING_KEY_BYTES;
use pintle_types::Kind;
use pintle_types::k8s::ByteString;
use pintle_types::k8s::api::core::v1::Secret;
use pintle_types::k8s::api::rbac::v1::{Role, RoleBinding};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const SECRET: &str = "kubeadm-certs";
const ROLE: &str = "kubeadm:kubeadm-certs";
const RBAC: &str = "rbac.authorization.k8s.io";
const LIFE: Duration = Duration::from_secs(2 * 60 * 60);
/// In `pki/` of the data directory; the Secret's keys have the same names.
const FILES: [&str; 5] = ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "service-account.key"];

/// Seals the files and uploads them; returns the key, in hexadecimal digits.
pub(crate) async fn upload(cluster: &Cluster, client: &Client) -> Result<String> {
    let key = pintle_pki::sealing_key()?;
    let mut data = BTreeMap::new();
    for name in FILES {
        let path = cluster.data("pki").join(name);
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        data.insert(name.to_owned(), ByteString(pintle_pki::seal(&key, &text)?));
    }
    let owner = short_token(client).await?;
    let metadata = json!({
        "name": SECRET,
        "namespace": NAMESPACE,
        "ownerReferences": [{
            "apiVersion": "v1", "kind": "Secret", "name": owner.name(), "uid": owner.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }],
    });
    let mut secret = Secret::from_value(json!({ "metadata": metadata }))?;
    secret.data = Some(data);
    client.create(&secret).await.context("upload the cluster's keys")?;
    let rule = json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get"] });
    let place = json!({ "name": ROLE, "namespace": NAMESPACE });
    let role = Role::from_value(json!({ "metadata": place, "rules": [rule] }))?;
    let reference = json!({ "apiGroup": RBAC, "kind": "Role", "name": ROLE });
    let group = json!({ "apiGroup": RBAC, "kind": "Group", "name": DEFAULT_GROUP });
    let binding = json!({ "metadata": place, "roleRef": reference, "subjects": [group] });
    crate::addons::make(client, &role).await?;
    crate::addons::make(client, &RoleBinding::from_value(binding)?).await?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A token that is good for nothing but to own the keys as long as it lasts.
async fn short_token(client: &Client) -> Result<Secret> {
    let token = token::generate();
    let wanted = token::Wanted {
        token: &token,
        ttl: LIFE,
        usages: &[],
        groups: &[],
        description: Some("Proxy for managing TTL for the kubeadm-certs secret"),
    };
    token::make(client, &wanted).await?;
    let (id, _) = token::parts(&token)?;
    Ok(client.get::<Secret>(NAMESPACE, &format!("bootstrap-token-{id}")).await?)
}

/// Reads and opens the files, and writes them down.
pub(super) async fn download(client: &Client, key: &str, directory: &Path) -> Result<()> {
    let key = parse_key(key)?;
    let secret = client.get::<Secret>(NAMESPACE, SECRET).await;
    let secret = secret.context("read the cluster's keys; they are kept for two hours after `init --upload-certs`")?;
    let data = secret.data.unwrap_or_default();
    for name in FILES {
        let sealed = data.get(name).with_context(|| format!("the Secret {SECRET} has no {name}"))?;
        let text = pintle_pki::unseal(&key, &sealed.0).with_context(|| format!("open {name} with the key"))?;
        write_private(&directory.join(name), &text)?;
    }
    Ok(())
}

fn parse_key(text: &str) -> Result<[u8; SEALING_KEY_BYTES]> {
    let wrong = || format!("--certificate-key: it has {} hexadecimal digits", 2 * SEALING_KEY_BYTES);
    ensure!(text.len() == 2 * SEALING_KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit()), wrong());
    let mut key = [0; SEALING_KEY_BYTES];
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).with_context(wrong)?;
    }
    Ok(key)
}

fn write_private(path: &Path, text: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let options = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).clone();
    let written = options.open(path).and_then(|mut file| file.write_all(text));
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hexadecimal() {
        assert_eq!(parse_key(&"0f".repeat(32)).unwrap(), [15; 32]);
        for bad in ["", "0f", &"0g".repeat(32), &"é0".repeat(22)] {
            assert!(parse_key(bad).unwrap_err().to_string().contains("--certificate-key"), "{bad:?}");
        }
    }
}
