//! Who asks, as servers outside, files, secrets and proxies tell it.

mod support;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use pintle_apiserver::User;
use pintle_auth::AuthSettings;
use pintle_auth::authentication::front_proxy::FrontProxySettings;
use pintle_auth::authentication::jwt;
use pintle_auth::authentication::keys::{KeyRing, Signer};
use pintle_client::{HttpConfig, HttpTransport, Transport, collect};
use pintle_pki::{CertificateAuthority, ClientCertificates, Identity, SigningKey, client_config, server_config};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use support::outside::Outside;
use support::{Cluster, request};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A cluster with these settings of authentication.
async fn cluster(settings: AuthSettings) -> Cluster {
    Cluster::with(|config, _| config.auth = Some(Arc::new(settings.build(config.basics()).unwrap()))).await
}

/// What a review says of a token.
async fn review(cluster: &Cluster, token: &str) -> Value {
    cluster.create(REVIEWS, json!({"spec": {"token": token}})).await["status"].clone()
}

fn ring() -> KeyRing {
    KeyRing::new(Signer::from(Arc::new(SigningKey::ephemeral().unwrap())), Vec::new())
}

/// An issuer whose keys can be exchanged.
struct Issuer {
    server: Outside,
    keys: Arc<Mutex<KeyRing>>,
}

impl Issuer {
    async fn new() -> Self {
        let keys = Arc::new(Mutex::new(ring()));
        let published = keys.clone();
        let own_url = Arc::new(Mutex::new(String::new()));
        let told = own_url.clone();
        let server = Outside::serve(move |path, _| match path {
            "/.well-known/openid-configuration" => {
                let url = told.lock();
                (200, json!({"issuer": *url, "jwks_uri": format!("{url}/keys")}))
            }
            "/keys" => (200, published.lock().key_set()),
            _ => (404, json!({})),
        })
        .await;
        own_url.lock().clone_from(&server.url);
        Self { server, keys }
    }

    /// A cluster that takes the issuer's tokens under rules.
    async fn cluster(&self) -> Cluster {
        let ca = self.server.ca.lines().map(|line| format!("\n        {line}")).collect::<String>();
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    \
             url: {}\n    audiences: [cluster, other]\n    audienceMatchPolicy: MatchAny\n    \
             certificateAuthority: |{ca}\n{RULES}",
            self.server.url
        );
        let file = self.server.write("authentication.yaml", &text);
        cluster(AuthSettings { authentication_file: Some(file), ..AuthSettings::default() }).await
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let soon = pintle_clock::system().now().as_second() + 600;
        let mut claims = json!({"iss": self.server.url, "aud": "cluster", "sub": "jane", "exp": soon,
            "hd": "example.com", "teams": "a,b", "jti": "7"});
        change(&mut claims);
        jwt::sign(self.keys.lock().signer(), &claims).unwrap()
    }
}

const RULES: &str = "
  claimMappings:
    username: {expression: '\"oidc:\" + claims.sub'}
    groups: {expression: 'claims.teams.split(\",\")'}
    uid: {claim: sub}
    extra: [{key: example.com/domain, valueExpression: claims.hd}]
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.sub != \"eve\"', message: eve may not}
  userValidationRules:
  - {expression: \"!user.username.startsWith('oidc:system')\", message: reserved name}
";

#[tokio::test]
async fn tokens_of_an_issuer_are_checked_and_their_claims_mapped() {
    let issuer = Issuer::new().await;
    let cluster = issuer.cluster().await;
    let good = review(&cluster, &issuer.token(|_| {})).await;
    assert_eq!(
        good["user"],
        json!({"username": "oidc:jane", "uid": "jane", "groups": ["a", "b", "system:authenticated"], "extra": {
            "authentication.kubernetes.io/credential-id": ["JTI=7"], "example.com/domain": ["example.com"]}}),
        "{good}"
    );
    let cases: [(fn(&mut Value), &str); 8] = [
        (|claims| claims["exp"] = 1.into(), "oidc: verify token: oidc: token is expired"),
        (|claims| claims["aud"] = "elsewhere".into(), "oidc: verify token: oidc: expected audience in"),
        (|claims| claims["hd"] = "evil.com".into(), "required claim hd value does not match. Got = evil.com"),
        (|claims| drop(claims.as_object_mut().unwrap().remove("hd")), "required claim hd not present in ID token"),
        (|claims| claims["sub"] = "eve".into(), "eve may not"),
        (|claims| claims["sub"] = "system:node".into(), "reserved name"),
        (|claims| claims["teams"] = 1.into(), "oidc: "),
        (|claims| claims["iss"] = "https://elsewhere".into(), "invalid bearer token"),
    ];
    for (change, expected) in cases {
        let refused = review(&cluster, &issuer.token(change)).await;
        let error = refused["error"].as_str().unwrap_or_default();
        assert!(refused["authenticated"].is_null() && error.contains(expected), "{expected}: {refused}");
    }
    let other = issuer.token(|claims| claims["aud"] = json!(["x", "other"]));
    assert_eq!(review(&cluster, &other).await["authenticated"], true);
    assert_eq!(issuer.server.asked.lock().len(), 2, "the document and the keys are fetched once");
}

#[tokio::test]
async fn an_issuer_may_change_its_keys() {
    let issuer = Issuer::new().await;
    let cluster = issuer.cluster().await;
    let old = issuer.token(|_| {});
    assert_eq!(review(&cluster, &old).await["authenticated"], true);
    *issuer.keys.lock() = ring();
    let new = issuer.token(|_| {});
    let early = review(&cluster, &new).await;
    assert!(early["error"].as_str().unwrap().contains("failed to verify id token signature"), "{early}");
    // Unknown keys make the server ask again, but only so often.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    assert_eq!(review(&cluster, &new).await["authenticated"], true);
    let gone = review(&cluster, &old).await;
    assert!(gone["authenticated"].is_null(), "{gone}");
    assert_eq!(issuer.server.asked.lock().len(), 4);
}

#[tokio::test]
async fn a_webhook_is_asked_once_for_a_token() {
    let webhook = Outside::serve(|path, review| {
        assert_eq!((path, &review["kind"]), ("/review", &json!("TokenReview")));
        let user = json!({"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"k": ["v"]}});
        match review["spec"]["token"].as_str().unwrap() {
            "good" => (200, json!({"status": {"authenticated": true, "user": user}})),
            "foreign" => (200, json!({"status": {"authenticated": true, "user": user, "audiences": ["elsewhere"]}})),
            "broken" => (403, json!({})),
            _ => (200, json!({"status": {"authenticated": false, "error": "no such token"}})),
        }
    })
    .await;
    let settings = AuthSettings {
        token_webhook: Some(webhook.kubeconfig()),
        token_webhook_version: "v1".into(),
        ..AuthSettings::default()
    };
    let cluster = cluster(settings).await;
    for _ in 0..2 {
        let known = review(&cluster, "good").await;
        let user =
            json!({"username": "jane", "uid": "7", "groups": ["dev", "system:authenticated"], "extra": {"k": ["v"]}});
        assert_eq!(known["user"], user, "{known}");
    }
    let asked = webhook.asked.lock().clone();
    assert_eq!(asked.len(), 1, "the answer is kept");
    assert_eq!(asked[0]["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(asked[0]["spec"]["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    assert_eq!(review(&cluster, "foreign").await["error"], "invalid bearer token");
    let bad = review(&cluster, "bad").await;
    assert!(bad["error"].as_str().unwrap().contains("no such token"), "{bad}");
    let broken = review(&cluster, "broken").await;
    assert!(broken["error"].as_str().unwrap().contains("answered 403"), "{broken}");
}

/// Asks over TLS who one is.
async fn whoami(
    cluster: &Cluster,
    address: &str,
    identity: Option<&Identity>,
    headers: &[(&str, &str)],
) -> (u16, Value) {
    let config = HttpConfig {
        server: address.parse().unwrap(),
        tls: Some(client_config(cluster.authority.certificate_pem(), identity).unwrap()),
        server_name: None,
        token: None,
    };
    let mut asked = request(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}));
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        asked.headers_mut().append(name, value.parse().unwrap());
    }
    let response = HttpTransport::new(config).unwrap().call(asked).await.unwrap();
    let code = response.status().as_u16();
    let body = collect(response.into_body(), 1 << 20).await.unwrap();
    (code, serde_json::from_slice::<Value>(&body).unwrap())
}

#[tokio::test]
async fn proxies_are_believed_by_their_certificates_only() {
    let folder = tempfile::tempdir().unwrap();
    let now = pintle_clock::system().now();
    let proxies = CertificateAuthority::load_or_create(folder.path(), "proxies", now).unwrap();
    let pem = proxies.certificate_pem().to_owned();
    let cluster = Cluster::with(|config, authority| {
        let both = format!("{}\n{pem}", authority.certificate_pem());
        let identity = authority.issue_server("api", &["127.0.0.1".into()], now).unwrap();
        config.tls = server_config(&identity, ClientCertificates::Optional(&both)).unwrap();
        let mut proxy = FrontProxySettings::new(pem.clone());
        proxy.allowed_names = vec!["front".into()];
        let settings = AuthSettings { front_proxy: Some(proxy), ..AuthSettings::default() };
        config.auth = Some(Arc::new(settings.build(config.basics()).unwrap()));
    })
    .await;
    let bound = cluster.server.bind().await.unwrap();
    let address = format!("https://{}", bound.address());
    tokio::spawn(bound.serve(cluster.stop.clone()));
    let headers = [
        ("x-remote-user", "jane"),
        ("x-remote-group", "dev"),
        ("x-remote-group", "ops"),
        ("x-remote-uid", "7"),
        ("x-remote-extra-example.com%2fk", "v"),
    ];
    let front = proxies.issue_client("front", &[], now).unwrap();
    let (code, known) = whoami(&cluster, &address, Some(&front), &headers).await;
    assert_eq!(code, 201, "{known}");
    assert_eq!(
        known["status"]["userInfo"],
        json!({"username": "jane", "uid": "7", "groups": ["dev", "ops", "system:authenticated"],
            "extra": {"example.com/k": ["v"]}})
    );
    // A proxy that names nobody is nobody itself; others of its authority are nobody in any case.
    let nobody = |refused: &Value| refused["message"].as_str().unwrap().contains("User \"system:anonymous\" cannot");
    let (code, refused) = whoami(&cluster, &address, Some(&front), &[]).await;
    assert!(code == 403 && nobody(&refused), "{refused}");
    let back = proxies.issue_client("back", &["system:masters"], now).unwrap();
    let (code, refused) = whoami(&cluster, &address, Some(&back), &headers).await;
    assert!(code == 403 && nobody(&refused), "{refused}");
    // Clients of the cluster's own authority are who they are, whatever they say.
    let named_alike = cluster.authority.issue_client("front", &[], now).unwrap();
    let (_, known) = whoami(&cluster, &address, Some(&named_alike), &headers).await;
    assert_eq!(known["status"]["userInfo"]["username"], "front");
    let (code, refused) = whoami(&cluster, &address, None, &headers).await;
    assert!(code == 403 && nobody(&refused), "{refused}");
    let published = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = cluster.get(published).await.json()["data"].clone();
    assert_eq!(data["requestheader-client-ca-file"], pem.as_str());
    assert_eq!(data["requestheader-allowed-names"], "[\"front\"]");
    assert_eq!(data["client-ca-file"], cluster.authority.certificate_pem());
}

#[tokio::test]
async fn files_and_secrets_know_tokens() {
    use base64::Engine;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.csv");
    std::fs::write(&file, "t1,joe,8,\"dev,ops\"\n").unwrap();
    let settings = AuthSettings { token_file: Some(file), bootstrap_tokens: true, ..AuthSettings::default() };
    let cluster = cluster(settings).await;
    let joe = review(&cluster, "t1").await;
    assert_eq!(joe["user"], json!({"username": "joe", "uid": "8", "groups": ["dev", "ops", "system:authenticated"]}));
    let token = "abcdef.0123456789abcdef";
    assert_eq!(review(&cluster, token).await["error"], "invalid bearer token");
    let data = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": {
        "token-id": data("abcdef"), "token-secret": data("0123456789abcdef"),
        "usage-bootstrap-authentication": data("true"), "auth-extra-groups": data("system:bootstrappers:workers")}});
    cluster.create("/api/v1/namespaces/kube-system/secrets", secret).await;
    let known = review(&cluster, token).await;
    assert_eq!(
        known["user"],
        json!({"username": "system:bootstrap:abcdef",
            "groups": ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"]})
    );
    assert_eq!(review(&cluster, "abcdef.0123456789abcdee").await["error"], "invalid bearer token");
    let empty = cluster.admin(Method::POST, REVIEWS, json!({"spec": {}})).await;
    assert_eq!(empty.message(), "token is required for TokenReview in authentication");
}

#[tokio::test]
async fn nobody_is_let_in_for_the_paths_that_a_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authentication.yaml");
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
                anonymous: {enabled: true, conditions: [{path: /livez}]}\n";
    std::fs::write(&file, text).unwrap();
    let cluster = cluster(AuthSettings { authentication_file: Some(file), ..AuthSettings::default() }).await;
    let bound = cluster.server.bind().await.unwrap();
    let config = HttpConfig {
        server: format!("https://{}", bound.address()).parse().unwrap(),
        tls: Some(client_config(cluster.authority.certificate_pem(), None).unwrap()),
        server_name: None,
        token: None,
    };
    tokio::spawn(bound.serve(cluster.stop.clone()));
    let transport = HttpTransport::new(config).unwrap();
    for (path, expected) in [("/livez", 200), ("/readyz", 401), ("/version", 401), ("/livez/ping", 401)] {
        let response = transport.call(request(Method::GET, path, Value::Null)).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{path}");
    }
}

#[tokio::test]
async fn tokens_are_asked_for_within_bounds() {
    let settings = AuthSettings { max_token_expiration: Some(Duration::from_secs(7200)), ..AuthSettings::default() };
    let cluster = cluster(settings).await;
    cluster.default_account("default").await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let long = cluster.admin(Method::POST, path, json!({"spec": {"expirationSeconds": 9000}})).await;
    assert_eq!(long.json()["spec"]["expirationSeconds"], 7200);
    let warning = long.headers["warning"].to_str().unwrap();
    assert!(warning.contains("requested expiration of 9000 seconds shortened to 7200 seconds"), "{warning}");
    let ask = async |spec: Value| cluster.admin(Method::POST, path, json!({"spec": spec})).await.message();
    let bound = |api: &str, kind: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": api, "kind": kind, "name": "x", "uid": uid}});
    assert_eq!(
        ask(json!({"expirationSeconds": 60})).await,
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a \
         duration less than 10 minutes"
    );
    assert_eq!(
        ask(bound("apps/v1", "Deployment", "")).await,
        "cannot bind token to object of type apps/v1, Kind=Deployment"
    );
    assert_eq!(ask(bound("v1", "Service", "")).await, "cannot bind token to object of type /v1, Kind=Service");
    assert_eq!(ask(bound("v1", "Secret", "")).await, "secrets \"x\" not found");
    cluster.create("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "x"}})).await;
    let conflict = ask(bound("v1", "Secret", "other")).await;
    assert!(
        conflict.starts_with("Operation cannot be fulfilled on Secret \"x\": the UID in the bound object"),
        "{conflict}"
    );
    let node = User::new("system:node:n1", &["system:nodes"]);
    let refused = cluster.send(node, request(Method::POST, path, json!({"spec": {}}))).await;
    assert!(refused.code == StatusCode::FORBIDDEN, "{refused:?}");
}
