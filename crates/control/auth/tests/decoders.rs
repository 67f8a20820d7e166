//! Broken tokens, token files, kubeconfigs and configuration files: refused or read, never a panic.

use pintle_auth::authentication::configuration::load;
use pintle_auth::authentication::jwt::{Parsed, seconds};
use pintle_auth::authentication::keys::{PublicKey, Signer};
use pintle_auth::authentication::static_token::StaticTokens;
use pintle_auth::authentication::webhook::TokenWebhook;
use pintle_auth::authorization::configuration::AuthorizationSettings;
use pintle_auth::configuration::duration;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ROUNDS: usize = 300;

/// Gives `read` files with broken forms of a text.
fn feed_files(samples: &[&str], mut read: impl FnMut(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let bytes: Vec<&[u8]> = samples.iter().map(|sample| sample.as_bytes()).collect();
    pintle_noise::feed(&bytes, ROUNDS, |broken| {
        std::fs::write(&path, broken).unwrap();
        read(&path);
    });
}

#[test]
fn token_files() {
    feed_files(&["t1,jane,7,\"dev, ops\"\nt2,joe,8\n", "t,\"a\"\"b\",c,\n\n,x,y"], |path| {
        if let Ok(tokens) = StaticTokens::load(path) {
            assert!(tokens.user_of("").is_none(), "an empty token is nobody's");
        }
    });
}

#[test]
fn authentication_files() {
    let text = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
jwt:
- issuer: {url: 'https://a', discoveryURL: 'https://b/c', audiences: [x, y], audienceMatchPolicy: MatchAny}
  claimMappings:
    username: {expression: '\"x:\" + claims.sub'}
    groups: {claim: groups, prefix: 'g:'}
    uid: {claim: sub}
    extra: [{key: example.com/k, valueExpression: claims.k}]
  claimValidationRules: [{claim: hd, requiredValue: x}, {expression: 'claims.a == 1', message: m}]
  userValidationRules: [{expression: \"!user.username.startsWith('system:')\"}]
";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good");
    std::fs::write(&path, text).unwrap();
    assert_eq!(load(&path, &[]).unwrap().issuers.len(), 1);
    feed_files(&[text], |path| drop(load(path, &["https://own".to_owned()])));
}

#[test]
fn authorization_files() {
    let text = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: Node, name: n}
- type: Webhook
  name: w
  webhook:
    timeout: 3s
    authorizedTTL: 5m
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: /nowhere}
    matchConditions: [{expression: 'has(request.resourceAttributes)'}]
- {type: RBAC, name: r}
";
    feed_files(&[text], |path| {
        let settings = AuthorizationSettings { file: Some(path.to_owned()), ..AuthorizationSettings::default() };
        drop(settings.modes());
    });
}

#[test]
fn kubeconfigs_of_webhooks() {
    let text = "apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: 'https://localhost:1/x?y', tls-server-name: z, insecure-skip-tls-verify: true}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
";
    feed_files(&[text], |path| drop(TokenWebhook::new(path, "v1", Duration::ZERO)));
}

#[test]
fn tokens_keys_and_durations() {
    let signer = Signer::from(Arc::new(pintle_pki::SigningKey::ephemeral().unwrap()));
    let jwk = signer.public().to_jwk();
    pintle_noise::feed_text(&[&jwk.to_string()], ROUNDS, |text| {
        let Ok(value) = serde_json::from_str(text) else { return };
        if let Some(key) = PublicKey::from_jwk(&value) {
            assert!(!key.verify("ES256", b"x", b"y"));
        }
    });
    let token = pintle_auth::authentication::jwt::sign(&signer, &json!({"exp": 1.5, "iss": "x"})).unwrap();
    pintle_noise::feed_text(&[&token], ROUNDS, |text| {
        let claims = Parsed::new(text).and_then(|parsed| parsed.verified(&[signer.public().clone()], &["ES256"]));
        assert!(claims.is_none_or(|claims| seconds(&claims["exp"]) == Some(1)));
    });
    pintle_noise::feed_text(&["1h30m", "250ms", "1.5s"], ROUNDS, |text| drop(duration(text)));
}
