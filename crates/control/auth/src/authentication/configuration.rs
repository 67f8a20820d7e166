//! Issuers of tokens and anonymous access from an `AuthenticationConfiguration` file or from the flags `--oidc-*`.
//!
//! Source: apiserver's `pkg/apis/apiserver` (v1, v1beta1) and its validation.

use super::anonymous::Anonymous;
use super::oidc::{ALGORITHMS, Issuer, IssuerSettings, Mapping, Rule};
use crate::cel::Expression;
use crate::configuration::{ConfigurationError, parse, read_file};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the flags `--oidc-*` say.
#[derive(Clone, Debug, Default)]
pub struct OidcSettings {
    pub issuer_url: String,
    pub client_id: String,
    /// Empty is `sub`.
    pub username_claim: String,
    /// Empty is the issuer's address and `#`, but nothing for mail addresses; `-` is nothing.
    pub username_prefix: String,
    pub groups_claim: String,
    pub groups_prefix: String,
    /// Empty is `RS256`.
    pub signing_algorithms: Vec<String>,
    pub required_claims: BTreeMap<String, String>,
    pub ca_file: Option<PathBuf>,
}

impl OidcSettings {
    /// The one issuer that the flags name.
    pub fn issuer(&self) -> Result<Issuer, ConfigurationError> {
        let invalid = |what: &str, why: String| ConfigurationError::Invalid { what: what.to_owned(), why };
        if self.client_id.is_empty() {
            let why = "oidc-issuer-url and oidc-client-id must be specified together".to_owned();
            return Err(invalid("--oidc-client-id", why));
        }
        if !self.issuer_url.starts_with("https://") {
            return Err(invalid("--oidc-issuer-url", format!("{:?}: URL scheme must be https", self.issuer_url)));
        }
        let algorithms = match self.signing_algorithms.as_slice() {
            [] => vec!["RS256".to_owned()],
            list => list.to_vec(),
        };
        if let Some(other) = algorithms.iter().find(|a| !ALGORITHMS.contains(&a.as_str())) {
            return Err(invalid("--oidc-signing-algs", format!("unsupported signing algorithm {other:?}")));
        }
        let username = if self.username_claim.is_empty() { "sub" } else { &self.username_claim };
        let prefix = match self.username_prefix.as_str() {
            "-" => String::new(),
            "" if username != "email" => format!("{}#", self.issuer_url),
            given => given.to_owned(),
        };
        let claim = |name: &str, prefix: String| Mapping::Claim { name: name.to_owned(), prefix };
        let required = self.required_claims.iter();
        let settings = IssuerSettings {
            url: self.issuer_url.clone(),
            discovery_url: None,
            authority_pem: self.ca_file.as_deref().map(read_file).transpose()?,
            audiences: vec![self.client_id.clone()],
            algorithms,
            username: claim(username, prefix),
            groups: (!self.groups_claim.is_empty()).then(|| claim(&self.groups_claim, self.groups_prefix.clone())),
            uid: None,
            extra: Vec::new(),
            claim_rules: required
                .map(|(name, value)| Rule::Claim { name: name.clone(), required: value.clone() })
                .collect(),
            user_rules: Vec::new(),
        };
        Ok(Issuer::new(settings)?)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    jwt: Vec<Entry>,
    anonymous: Option<AnonymousEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousEntry {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    issuer: IssuerEntry,
    #[serde(default)]
    claim_validation_rules: Vec<RuleEntry>,
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerEntry {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    audience_match_policy: Option<String>,
    egress_selector_type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RuleEntry {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mappings {
    username: MappingEntry,
    #[serde(default)]
    groups: MappingEntry,
    #[serde(default)]
    uid: MappingEntry,
    #[serde(default)]
    extra: Vec<ExtraEntry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MappingEntry {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExtraEntry {
    key: String,
    value_expression: String,
}

/// What a file says.
#[derive(Debug)]
pub struct Loaded {
    pub issuers: Vec<Arc<Issuer>>,
    /// Nothing when the file does not speak of it: the flag `--anonymous-auth` counts then.
    pub anonymous: Option<Anonymous>,
}

const MAX_ISSUERS: usize = 64;

/// A field and what is wrong with it.
type At<T> = Result<T, (String, String)>;

/// Reads a file. `own_issuers` are those of service account tokens, which nobody else may be.
pub fn load(path: &Path, own_issuers: &[String]) -> Result<Loaded, ConfigurationError> {
    let versions = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
    let file: File = parse(path, &read_file(path)?, "AuthenticationConfiguration", &versions)?;
    let invalid =
        |(at, why): (String, String)| ConfigurationError::Invalid { what: format!("{}: {at}", path.display()), why };
    if file.jwt.len() > MAX_ISSUERS {
        let why = format!("Too many: {}: must have at most {MAX_ISSUERS} items", file.jwt.len());
        return Err(invalid(("jwt".into(), why)));
    }
    let (mut urls, mut issuers) = (HashSet::new(), Vec::new());
    for (at, entry) in file.jwt.iter().enumerate() {
        let field = format!("jwt[{at}]");
        let url = &entry.issuer.url;
        if !urls.insert(url.clone()) {
            return Err(invalid((format!("{field}.issuer.url"), format!("Duplicate value: {url:?}"))));
        }
        if own_issuers.contains(url) {
            let why = format!("Invalid value: {url:?}: URL must not overlap with disallowed issuers: {own_issuers:?}");
            return Err(invalid((format!("{field}.issuer.url"), why)));
        }
        let settings = issuer(entry).map_err(|(at, why)| invalid((format!("{field}.{at}"), why)))?;
        issuers.push(Arc::new(Issuer::new(settings)?));
    }
    let anonymous = file.anonymous.map(anonymous).transpose().map_err(invalid)?;
    Ok(Loaded { issuers, anonymous })
}

fn anonymous(entry: AnonymousEntry) -> At<Anonymous> {
    if !entry.enabled && !entry.conditions.is_empty() {
        let why = "Invalid value: enabled should be set to true when conditions are defined".to_owned();
        return Err(("anonymous.conditions".into(), why));
    }
    Ok(Anonymous { enabled: entry.enabled, paths: entry.conditions.into_iter().map(|c| c.path).collect() })
}

fn wrong<T>(at: &str, why: impl Into<String>) -> At<T> {
    Err((at.to_owned(), why.into()))
}

fn https(at: &str, url: &str) -> At<()> {
    if url.is_empty() {
        return wrong(at, "Required value: URL is required");
    }
    let parsed = url.parse::<http::Uri>();
    if !parsed.is_ok_and(|u| u.scheme_str() == Some("https") && u.host().is_some_and(|h| !h.is_empty())) {
        return wrong(at, format!("Invalid value: {url:?}: URL scheme must be https"));
    }
    if url.contains(['?', '#']) || url.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) {
        return wrong(at, format!("Invalid value: {url:?}: URL must not contain a username, query or fragment"));
    }
    Ok(())
}

fn issuer(entry: &Entry) -> At<IssuerSettings> {
    let from = &entry.issuer;
    https("issuer.url", &from.url)?;
    if let Some(url) = &from.discovery_url {
        https("issuer.discoveryURL", url)?;
        if url.trim_end_matches('/') == from.url.trim_end_matches('/') {
            return wrong(
                "issuer.discoveryURL",
                format!("Invalid value: {url:?}: discoveryURL must be different from URL"),
            );
        }
    }
    if from.audiences.is_empty() {
        return wrong("issuer.audiences", "Required value: at least one issuer.audiences is required");
    }
    if from.audiences.iter().any(String::is_empty) {
        return wrong("issuer.audiences", "Required value: audience can't be empty");
    }
    match from.audience_match_policy.as_deref().unwrap_or_default() {
        "" if from.audiences.len() < 2 => {}
        "MatchAny" => {}
        other => {
            let why = format!("Invalid value: {other:?}: audienceMatchPolicy must be MatchAny for multiple audiences");
            return wrong("issuer.audienceMatchPolicy", why);
        }
    }
    if from.egress_selector_type.as_deref().is_some_and(|t| !t.is_empty()) {
        return wrong("issuer.egressSelectorType", "Invalid value: egress selectors are not supported");
    }
    check_mail(entry)?;
    let mappings = &entry.claim_mappings;
    let username = mapping("claimMappings.username", &mappings.username, true)?;
    let Some(username) = username else {
        return wrong("claimMappings.username", "Required value: claim or expression is required");
    };
    Ok(IssuerSettings {
        url: from.url.clone(),
        discovery_url: from.discovery_url.clone(),
        authority_pem: from.certificate_authority.clone().filter(|pem| !pem.is_empty()),
        audiences: from.audiences.clone(),
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        username,
        groups: mapping("claimMappings.groups", &mappings.groups, true)?,
        uid: mapping("claimMappings.uid", &mappings.uid, false)?,
        extra: extra(&mappings.extra)?,
        claim_rules: rules("claimValidationRules", &entry.claim_validation_rules, "claims")?,
        user_rules: rules("userValidationRules", &entry.user_validation_rules, "user")?,
    })
}

/// Whoever takes names from mail addresses must look whether they are verified.
fn check_mail(entry: &Entry) -> At<()> {
    let mappings = &entry.claim_mappings;
    if !mappings.username.expression.contains("claims.email") {
        return Ok(());
    }
    let mut all = vec![&mappings.username.expression];
    all.extend(entry.claim_validation_rules.iter().map(|rule| &rule.expression));
    all.extend(mappings.extra.iter().map(|extra| &extra.value_expression));
    if all.iter().any(|text| text.contains("claims.email_verified")) {
        return Ok(());
    }
    let why = format!(
        "Invalid value: {:?}: claims.email_verified must be used in claimMappings.username.expression or \
         claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
         claimMappings.username.expression",
        mappings.username.expression
    );
    wrong("claimMappings.username.expression", why)
}

fn compile(at: &str, text: &str, variable: &str) -> At<Expression> {
    Expression::compile(text, variable).map_err(|why| (at.to_owned(), format!("Invalid value: {text:?}: {why}")))
}

fn mapping(at: &str, entry: &MappingEntry, prefixed: bool) -> At<Option<Mapping>> {
    match (entry.claim.is_empty(), entry.expression.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => wrong(at, "Invalid value: \"\": claim and expression can't both be set"),
        (true, false) if entry.prefix.is_some() => {
            wrong(&format!("{at}.prefix"), "Invalid value: prefix can't be set when expression is set")
        }
        (true, false) => {
            compile(&format!("{at}.expression"), &entry.expression, "claims").map(|e| Some(Mapping::Expression(e)))
        }
        (false, true) => match &entry.prefix {
            None if prefixed => wrong(
                &format!("{at}.prefix"),
                "Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
            prefix => {
                Ok(Some(Mapping::Claim { name: entry.claim.clone(), prefix: prefix.clone().unwrap_or_default() }))
            }
        },
    }
}

fn rules(at: &str, entries: &[RuleEntry], variable: &str) -> At<Vec<Rule>> {
    let mut out = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let field = format!("{at}[{index}]");
        out.push(match (entry.claim.is_empty(), entry.expression.is_empty()) {
            (true, true) => return wrong(&field, "Required value: claim or expression is required"),
            (false, false) => return wrong(&field, "Invalid value: claim and expression can't both be set"),
            (false, true) => Rule::Claim { name: entry.claim.clone(), required: entry.required_value.clone() },
            (true, false) => Rule::Expression {
                expression: compile(&format!("{field}.expression"), &entry.expression, variable)?,
                message: entry.message.clone(),
            },
        });
    }
    Ok(out)
}

fn extra(entries: &[ExtraEntry]) -> At<Vec<(String, Expression)>> {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let field = format!("claimMappings.extra[{index}]");
        let key = &entry.key;
        let domain = key.split_once('/').map(|(domain, path)| (domain, !path.is_empty()));
        if key.to_lowercase() != *key {
            return wrong(&format!("{field}.key"), format!("Invalid value: {key:?}: key must be lowercase"));
        }
        match domain {
            Some((domain, true)) if !domain.is_empty() => {
                let reserved = |d: &str| domain == d || domain.ends_with(&format!(".{d}"));
                if reserved("k8s.io") || reserved("kubernetes.io") {
                    let why = format!(
                        "Invalid value: {key:?}: k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
                    );
                    return wrong(&format!("{field}.key"), why);
                }
            }
            _ => {
                return wrong(
                    &format!("{field}.key"),
                    format!("Invalid value: {key:?}: must be a domain-prefixed path (such as \"acme.io/foo\")"),
                );
            }
        }
        if !seen.insert(key) {
            return wrong(&format!("{field}.key"), format!("Duplicate value: {key:?}"));
        }
        out.push((key.clone(), compile(&format!("{field}.valueExpression"), &entry.value_expression, "claims")?));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authentication.yaml");
        let head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n";
        std::fs::write(&path, format!("{head}{body}")).unwrap();
        match load(&path, &["https://own".to_owned()]) {
            Ok(loaded) => assert_eq!(format!("{} {:?}", loaded.issuers.len(), loaded.anonymous), expected, "{body}"),
            Err(error) => assert!(error.to_string().contains(expected), "{body}: {error}"),
        }
    }

    #[test]
    fn files_are_read_and_judged() {
        check("", "0 None");
        check(
            "anonymous: {enabled: true, conditions: [{path: /livez}]}",
            "0 Some(Anonymous { enabled: true, paths: [\"/livez\"] })",
        );
        check("anonymous: {enabled: false, conditions: [{path: /livez}]}", "anonymous.conditions");
        let mapped = "claimMappings: {username: {claim: sub, prefix: 'x:'}}";
        let jwt = |issuer: &str, rest: &str| format!("jwt:\n- {{issuer: {{{issuer}}}, {rest}}}\n");
        check(&jwt("url: 'https://a', audiences: [b]", mapped), "1 None");
        check(
            &jwt("url: 'http://a', audiences: [b]", mapped),
            "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https",
        );
        check(&jwt("url: 'https://own', audiences: [b]", mapped), "disallowed issuers");
        check(&jwt("url: 'https://a', audiences: [b, c]", mapped), "audienceMatchPolicy");
        check(&jwt("url: 'https://a', audiences: []", mapped), "at least one issuer.audiences is required");
        check(
            &jwt("url: 'https://a', audiences: [b]", "claimMappings: {username: {claim: sub}}"),
            "username.prefix: Required value",
        );
        check(
            &jwt("url: 'https://a', audiences: [b]", "claimMappings: {username: {expression: claims.email}}"),
            "claims.email_verified must be used",
        );
        check("unknown: 1", "unknown field");
    }
}
