//! Who is let in and who decides what they may: the flags, put as the API server's settings.

use crate::credentials::PROXY_NAME;
use anyhow::{Context, Result, anyhow};
use pintle_auth::AuthSettings;
use pintle_auth::authentication::configuration::OidcSettings;
use pintle_auth::authentication::front_proxy::FrontProxySettings;
use pintle_auth::authorization::configuration::AuthorizationSettings;
use pintle_auth::configuration::duration;
use pintle_cli::Settings;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

fn list(text: &Option<String>) -> Vec<String> {
    let items = text.as_deref().unwrap_or_default().split(',').map(str::trim);
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn time(flag: &str, text: &Option<String>) -> Result<Option<Duration>> {
    let parsed = text.as_deref().map(duration).transpose();
    parsed.map_err(|why| anyhow!("--{flag}: {why}"))
}

/// What the flags say of authentication and authorization. Files are read later, but for the authority of proxies;
/// `own_proxy_authority` is that of this server's own certificate as a proxy of other servers (PEM).
pub(crate) fn settings(flags: &Settings, own_proxy_authority: &str) -> Result<AuthSettings> {
    let version = |text: &Option<String>| text.clone().unwrap_or_default();
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let other_proxies = flags.requestheader_client_ca_file.as_ref().map(read).transpose()?;
    Ok(AuthSettings {
        authorization: AuthorizationSettings {
            file: flags.authorization_config.clone(),
            modes: list(&flags.authorization_mode),
            webhook_kubeconfig: flags.authorization_webhook_config_file.clone(),
            webhook_version: version(&flags.authorization_webhook_version),
            webhook_authorized_ttl: time(
                "authorization-webhook-cache-authorized-ttl",
                &flags.authorization_webhook_cache_authorized_ttl,
            )?,
            webhook_unauthorized_ttl: time(
                "authorization-webhook-cache-unauthorized-ttl",
                &flags.authorization_webhook_cache_unauthorized_ttl,
            )?,
        },
        authentication_file: flags.authentication_config.clone(),
        oidc: oidc(flags)?,
        token_file: flags.token_auth_file.clone(),
        token_webhook: flags.authentication_token_webhook_config_file.clone(),
        token_webhook_version: version(&flags.authentication_token_webhook_version),
        token_webhook_ttl: time(
            "authentication-token-webhook-cache-ttl",
            &flags.authentication_token_webhook_cache_ttl,
        )?,
        bootstrap_tokens: flags.enable_bootstrap_token_auth.unwrap_or(true),
        signing_key_file: flags.service_account_signing_key_file.clone(),
        key_files: list(&flags.service_account_key_file).into_iter().map(Into::into).collect(),
        issuers: list(&flags.service_account_issuer),
        audiences: list(&flags.api_audiences),
        max_token_expiration: time(
            "service-account-max-token-expiration",
            &flags.service_account_max_token_expiration,
        )?,
        keep_expiration: flags.service_account_extend_token_expiration == Some(false),
        front_proxy: Some(front_proxy(flags, other_proxies.as_deref(), own_proxy_authority)),
    })
}

fn oidc(flags: &Settings) -> Result<Option<OidcSettings>> {
    let Some(issuer_url) = flags.oidc_issuer_url.clone() else { return Ok(None) };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut required_claims = BTreeMap::new();
    for claim in list(&flags.oidc_required_claim) {
        let (key, value) =
            claim.split_once('=').ok_or_else(|| anyhow!("--oidc-required-claim: {claim:?} is not key=value"))?;
        required_claims.insert(key.to_owned(), value.to_owned());
    }
    Ok(Some(OidcSettings {
        issuer_url,
        client_id: text(&flags.oidc_client_id),
        username_claim: text(&flags.oidc_username_claim),
        username_prefix: text(&flags.oidc_username_prefix),
        groups_claim: text(&flags.oidc_groups_claim),
        groups_prefix: text(&flags.oidc_groups_prefix),
        signing_algorithms: list(&flags.oidc_signing_algs),
        required_claims,
        ca_file: flags.oidc_ca_file.clone(),
    }))
}

/// Other servers learn from these settings whom to believe: besides the proxies that the flags name, this server.
fn front_proxy(flags: &Settings, others: Option<&str>, own_authority: &str) -> FrontProxySettings {
    let authorities = others.map_or_else(String::new, |pem| format!("{}\n", pem.trim_end())) + own_authority;
    let mut settings = FrontProxySettings::new(authorities);
    settings.allowed_names = list(&flags.requestheader_allowed_names);
    // Without names, those whom the flags speak of may have any.
    if others.is_none() || !settings.allowed_names.is_empty() {
        settings.allowed_names.push(PROXY_NAME.to_owned());
    }
    for (flag, names) in [
        (&flags.requestheader_username_headers, &mut settings.username_headers),
        (&flags.requestheader_uid_headers, &mut settings.uid_headers),
        (&flags.requestheader_group_headers, &mut settings.group_headers),
        (&flags.requestheader_extra_headers_prefix, &mut settings.extra_prefixes),
    ] {
        if flag.is_some() {
            *names = list(flag);
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_server_is_always_among_the_proxies() {
        let mut flags = Settings::default();
        let none = front_proxy(&flags, None, "own");
        assert_eq!((none.authority_pem.as_str(), none.allowed_names), ("own", vec![PROXY_NAME.to_owned()]));
        let any = front_proxy(&flags, Some("theirs\n"), "own");
        assert_eq!((any.authority_pem.as_str(), any.allowed_names.len()), ("theirs\nown", 0));
        flags.requestheader_allowed_names = Some("a, b".into());
        assert_eq!(front_proxy(&flags, Some("theirs"), "own").allowed_names, ["a", "b", PROXY_NAME]);
    }
}
