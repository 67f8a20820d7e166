//! The file that says what is encrypted and with which keys: `apiserver.config.k8s.io/v1` `EncryptionConfiguration`.

use super::{Provider, Rule};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A configuration larger than this is none, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// All keys are below this.
const ROOT: &str = "/registry/";

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the encryption configuration is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the encryption configuration cannot be read: {0}")]
    Parse(#[from] serde_yaml_ng::Error),
    #[error("{0} is not kind EncryptionConfiguration of apiserver.config.k8s.io/v1")]
    Kind(String),
    #[error("resources[{at}]: {why}")]
    Entry { at: usize, why: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<BTreeMap<String, Option<Keys>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    keys: Vec<NamedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    name: String,
    secret: String,
}

/// What is encrypted, by the names of resources.
#[derive(Debug)]
pub struct Configuration {
    entries: Vec<(Vec<String>, Arc<Vec<Provider>>)>,
}

impl Configuration {
    /// Reads the file, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            return Err(ConfigError::TooLong);
        }
        let file: File = serde_yaml_ng::from_str(text)?;
        let version = file.api_version.as_str();
        if file.kind != "EncryptionConfiguration" || version != "apiserver.config.k8s.io/v1" {
            return Err(ConfigError::Kind(format!("{} of {version}", file.kind)));
        }
        let entry = |(at, entry): (usize, Entry)| {
            let resources = entry.resources.clone();
            let providers = providers(entry).map_err(|why| ConfigError::Entry { at, why })?;
            Ok((resources, Arc::new(providers)))
        };
        let entries: Result<Vec<_>, ConfigError> = file.resources.into_iter().enumerate().map(entry).collect();
        Ok(Self { entries: entries? })
    }

    /// The rules of these resources, given as `(group, resource, prefix of the keys)`; those that no entry names have
    /// none. Wildcards also take in what is not known yet: `*.group` the resources of a group that are stored below
    /// its name, `*.*` everything.
    pub fn rules<'a>(&self, known: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Vec<Rule> {
        let slashed = |prefix: &str| format!("{}/", prefix.trim_end_matches('/'));
        let mut rules: BTreeMap<String, Rule> = BTreeMap::new();
        let mut add = |prefix: String, providers: &Arc<Vec<Provider>>| {
            rules.entry(prefix.clone()).or_insert_with(|| Rule { prefix, providers: providers.clone() });
        };
        for (group, resource, prefix) in known {
            // The first entry that names a resource decides.
            let named = |(names, _): &&(Vec<String>, _)| names.iter().any(|name| names_resource(name, group, resource));
            if let Some((_, providers)) = self.entries.iter().find(named) {
                add(slashed(prefix), providers);
            }
        }
        for (names, providers) in &self.entries {
            for name in names {
                match name.split_once('.') {
                    Some(("*", "*")) => add(ROOT.to_owned(), providers),
                    Some(("*", group)) if !group.is_empty() => add(format!("{ROOT}{group}/"), providers),
                    Some((resource, group)) if resource != "*" => add(format!("{ROOT}{group}/{resource}/"), providers),
                    _ => {}
                }
            }
        }
        rules.into_values().collect()
    }
}

/// Whether `secrets`, `deployments.apps`, `*.apps`, `*.` or `*.*` names a resource.
fn names_resource(name: &str, group: &str, resource: &str) -> bool {
    match name.split_once('.') {
        None => group.is_empty() && name == resource,
        Some(("*", "*")) => true,
        Some(("*", wanted)) => wanted == group,
        Some((wanted, wanted_group)) => wanted == resource && wanted_group == group,
    }
}

fn providers(entry: Entry) -> Result<Vec<Provider>, String> {
    if entry.resources.is_empty() || entry.providers.is_empty() {
        return Err("resources and providers must both name something".into());
    }
    let mut out = Vec::new();
    for provider in entry.providers {
        let mut kinds = provider.into_iter();
        let (Some((kind, keys)), None) = (kinds.next(), kinds.next()) else {
            return Err("each provider is one of identity, aescbc, aesgcm and secretbox".into());
        };
        match kind.as_str() {
            "identity" => out.push(Provider::identity()),
            "aescbc" | "aesgcm" | "secretbox" => {
                let keys = keys.unwrap_or_default().keys;
                if keys.is_empty() {
                    return Err(format!("{kind} needs a key"));
                }
                for key in keys {
                    out.push(read_key(&kind, &key)?);
                }
            }
            "kms" => return Err("kms is not supported: use aescbc, aesgcm or secretbox".into()),
            other => return Err(format!("the provider {other:?} is not supported")),
        }
    }
    Ok(out)
}

fn read_key(kind: &str, key: &NamedKey) -> Result<Provider, String> {
    if key.name.is_empty() || key.name.contains(':') {
        return Err(format!("the name of a key must not be empty and has no colon: {:?}", key.name));
    }
    let secret = BASE64.decode(key.secret.trim());
    let secret = secret.map_err(|_| format!("the secret of key {:?} must be base64", key.name))?;
    Provider::new(kind, &key.name, &secret)
}
