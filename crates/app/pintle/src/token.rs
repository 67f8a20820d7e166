//! `pintle token`: the tokens by which nodes join, as kubeadm has them.
//!
//! A token is a Secret of type `bootstrap.kubernetes.io/token` in kube-system.

use crate::say;
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use pintle_cli::output::{Format, table};
use pintle_cli::{TokenCommand, TokenCreate};
use pintle_client::{Client, ClientError, DeleteOptions, Kubeconfig, ListOptions};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{ConfigMap, Secret};
use rand::Rng;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const KIND: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const EXTRA: &str = "system:bootstrappers:";
pub(crate) const DEFAULT_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

pub(crate) async fn run(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create(create) => print_new(create).await,
        TokenCommand::List { output, administrator } => list(&client(&administrator.kubeconfig)?, output).await,
        TokenCommand::Delete { tokens, administrator } => delete(&client(&administrator.kubeconfig)?, &tokens).await,
        TokenCommand::Generate => {
            say(generate());
            Ok(())
        }
    }
}

fn client(kubeconfig: &Path) -> Result<Client> {
    let transport = Kubeconfig::load(kubeconfig)?.transport()?;
    Ok(Client::new(Arc::new(transport)).with_user_agent("pintle"))
}

/// A new token: letters and digits.
pub(crate) fn generate() -> String {
    let mut random = rand::rng();
    let mut text = |length: usize| -> String {
        let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
        (0..length).map(|_| char::from(digits[random.random_range(0..digits.len())])).collect()
    };
    format!("{}.{}", text(ID_LENGTH), text(SECRET_LENGTH))
}

/// The id and the secret part of a token.
///
/// # Errors
/// When it does not look like one.
pub(crate) fn parts(token: &str) -> Result<(&str, &str)> {
    let good = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let found = token.split_once('.').filter(|(id, secret)| good(id, ID_LENGTH) && good(secret, SECRET_LENGTH));
    found.with_context(|| {
        r#"the bootstrap token is invalid: it must be of the form "\A([a-z0-9]{6})\.([a-z0-9]{16})\z""#.to_owned()
    })
}

/// What a token is made with.
pub(crate) struct Wanted<'a> {
    pub(crate) token: &'a str,
    /// Zero is for ever.
    pub(crate) ttl: Duration,
    pub(crate) usages: &'a [String],
    pub(crate) groups: &'a [String],
    pub(crate) description: Option<&'a str>,
}

/// Makes the Secret of a token.
pub(crate) async fn make(client: &Client, wanted: &Wanted<'_>) -> Result<()> {
    let (id, secret) = parts(wanted.token)?;
    let mut data = json!({
        "token-id": BASE64.encode(id),
        "token-secret": BASE64.encode(secret),
    });
    for usage in wanted.usages {
        ensure!(["signing", "authentication"].contains(&usage.as_str()), "invalid usages: {usage}");
        data[format!("usage-bootstrap-{usage}")] = BASE64.encode("true").into();
    }
    for group in wanted.groups {
        ensure!(
            group.starts_with(EXTRA) && group.len() > EXTRA.len(),
            "invalid groups: {group} must begin with {EXTRA}"
        );
    }
    if !wanted.groups.is_empty() {
        data["auth-extra-groups"] = BASE64.encode(wanted.groups.join(",")).into();
    }
    if let Some(description) = wanted.description {
        data["description"] = BASE64.encode(description).into();
    }
    if !wanted.ttl.is_zero() {
        let end = pintle_clock::system().now_seconds() + wanted.ttl;
        data["expiration"] = BASE64.encode(end.to_string()).into();
    }
    let name = format!("{PREFIX}{id}");
    let secret = json!({ "metadata": { "name": name, "namespace": NAMESPACE }, "type": KIND, "data": data });
    match client.create(&Secret::from_value(secret)?).await {
        Err(error) if error.is_already_exists() => bail!("a token with id {id:?} already exists"),
        result => result.map(drop).context("create the token"),
    }
}

async fn print_new(create: TokenCreate) -> Result<()> {
    let client = client(&create.administrator.kubeconfig)?;
    let token = create.token.clone().unwrap_or_else(generate);
    let wanted = Wanted {
        token: &token,
        ttl: crate::cluster::duration("ttl", &create.ttl)?,
        usages: &create.usages,
        groups: &create.groups,
        description: create.description.as_deref(),
    };
    make(&client, &wanted).await?;
    if create.print_join_command {
        say(join_command(&client, &token).await?);
    } else {
        say(token);
    }
    Ok(())
}

/// The command by which a node joins. Where the cluster is, it says itself.
pub(crate) async fn join_command(client: &Client, token: &str) -> Result<String> {
    let info = client.get::<ConfigMap>("kube-public", "cluster-info").await.context("read where the cluster is")?;
    let found = crate::join::cluster_of(&info)?;
    let endpoint = found.server.trim_start_matches("https://").to_owned();
    let hashes = pintle_pki::public_key_hashes(&found.authority_pem)?;
    let flags: String = hashes.iter().map(|hash| format!(" --discovery-token-ca-cert-hash sha256:{hash}")).collect();
    Ok(format!("pintle join {endpoint} --token {token}{flags}"))
}

fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

struct Listed {
    token: String,
    ttl: String,
    expires: Option<String>,
    usages: Vec<String>,
    description: String,
    groups: Vec<String>,
}

fn listed(secret: &Secret) -> Option<Listed> {
    let id = text(secret, "token-id");
    if secret.name().strip_prefix(PREFIX) != Some(id.as_str()) {
        return None;
    }
    let expiration = text(secret, "expiration");
    let expires = (!expiration.is_empty()).then_some(expiration);
    let ttl = match expires.as_deref().map(str::parse::<pintle_clock::Timestamp>) {
        None => "<forever>".to_owned(),
        Some(Err(_)) => "<invalid>".to_owned(),
        Some(Ok(end)) => age(end.as_second() - pintle_clock::system().now_seconds().as_second()),
    };
    let usages = ["authentication", "signing"];
    let usages = usages.iter().filter(|usage| text(secret, &format!("usage-bootstrap-{usage}")) == "true");
    let groups = text(secret, "auth-extra-groups");
    Some(Listed {
        token: format!("{id}.{}", text(secret, "token-secret")),
        ttl,
        expires,
        usages: usages.map(|usage| (*usage).to_owned()).collect(),
        description: text(secret, "description"),
        groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
    })
}

/// The time that is left, as kubectl prints ages.
fn age(seconds: i64) -> String {
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..120 => format!("{seconds}s"),
        120..10_800 => format!("{}m", seconds / 60),
        10_800..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

async fn list(client: &Client, format: Format) -> Result<()> {
    let secrets = client.list::<Secret>(NAMESPACE, &ListOptions::fields(format!("type={KIND}"))).await?;
    let tokens: Vec<Listed> = secrets.items.iter().filter_map(listed).collect();
    match format {
        Format::Json => {
            for token in tokens {
                let value: Value = json!({
                    "kind": "BootstrapToken",
                    "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
                    "token": token.token,
                    "description": token.description,
                    "expires": token.expires,
                    "usages": token.usages,
                    "groups": token.groups,
                });
                say(serde_json::to_string_pretty(&value)?);
            }
        }
        Format::Table => {
            let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
            let rows: Vec<Vec<String>> = tokens
                .into_iter()
                .map(|token| {
                    vec![
                        token.token,
                        token.ttl,
                        token.expires.unwrap_or_else(|| "<never>".to_owned()),
                        or(token.usages.join(","), "<none>"),
                        or(token.description, "<none>"),
                        or(token.groups.join(","), "<none>"),
                    ]
                })
                .collect();
            say(table(&["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"], &rows).trim_end());
        }
    }
    Ok(())
}

async fn delete(client: &Client, tokens: &[String]) -> Result<()> {
    for token in tokens {
        let id = match token.len() {
            ID_LENGTH => token.as_str(),
            _ => parts(token)?.0,
        };
        let name = format!("{PREFIX}{id}");
        match client.delete::<Secret>(NAMESPACE, &name, &DeleteOptions::default()).await {
            Err(ClientError::Status(status)) => bail!("failed to delete bootstrap token {id:?}: {status}"),
            result => result.map(drop)?,
        }
        say(format_args!("bootstrap token {id:?} deleted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_two_parts() {
        let token = generate();
        assert!(parts(&token).is_ok(), "{token}");
        assert_ne!(token, generate());
        assert_eq!(parts("abcdef.0123456789abcdef").unwrap(), ("abcdef", "0123456789abcdef"));
        for bad in ["", "abcdef", "abcdef.0123456789ABCDEF", "abcde.0123456789abcdef", "abcdef.0123456789abcde\n"] {
            assert!(parts(bad).unwrap_err().to_string().contains("invalid"), "{bad:?}");
        }
    }

    #[test]
    fn what_is_left_is_told_in_one_unit() {
        for (seconds, expected) in [(-1, "<invalid>"), (90, "90s"), (3600, "60m"), (86_399, "23h"), (259_200, "3d")] {
            assert_eq!(age(seconds), expected);
        }
    }
}
