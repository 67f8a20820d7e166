//! A registry behind TLS that asks for tokens, which a token server of the test hands out and signs.

use super::{Server, import, me, nobody, silent, store};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use pintle_distribution::{Credentials, Options, TrustRoots, pull, push};
use pintle_image::Reference;
use pintle_pki::{CertificateAuthority, Identity, SigningKey};
use rustls::ServerConfig;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SERVICE: &str = "a registry, with a comma";

/// What everything here is secured by.
struct Keys {
    directory: tempfile::TempDir,
    authority: CertificateAuthority,
}

impl Keys {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = pintle_clock::system().now();
        let authority = CertificateAuthority::create(directory.path(), "ca", now).unwrap();
        Self { directory, authority }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn identity(&self, name: &str) -> Identity {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let identity = self.authority.issue_server(name, &names, pintle_clock::system().now()).unwrap();
        identity.save(self.directory.path(), name).unwrap();
        identity
    }

    /// Nothing is insecure, and only this authority is trusted.
    fn options(&self) -> Options {
        let file = self.directory.path().join("authority.pem");
        fs::write(&file, self.authority.certificate_pem()).unwrap();
        let trust = TrustRoots { files: vec![file], per_registry: "/nonexistent".into() };
        Options { insecure: Vec::new(), trust, ..Options::default() }
    }
}

/// Hands out tokens for what is asked to whoever knows the password, and to nobody else.
struct TokenServer {
    port: u16,
    /// The first line and the authorization of every request.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl TokenServer {
    async fn start(keys: &Keys) -> Self {
        let identity = keys.identity("tokens");
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(identity.chain().unwrap(), identity.key().unwrap()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust us goes.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let (head, body) = read_request(&mut stream).await;
                let line = head.lines().next().unwrap_or_default().to_owned();
                let line = if body.is_empty() { line } else { format!("{line} {body}") };
                let header =
                    head.lines().find_map(|l| l.strip_prefix("authorization: ")).unwrap_or_default().to_owned();
                let known = header == format!("Basic {}", STANDARD.encode("me:secret")) || body.contains("=identity");
                let answer = if known { answer(200, &token(&identity, &line)) } else { answer(401, REFUSED) };
                seen.lock().unwrap().push((line, header));
                // It may have gone.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, asked }
    }

    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

const REFUSED: &str = r#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#;

fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// The head of a request and its body.
async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> (String, String) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return (head.to_owned(), body.to_owned());
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return Default::default(),
        }
    }
}

/// The values of a parameter in a request's line or body.
fn parameters(line: &str, name: &str) -> Vec<String> {
    let words = line.split([' ', '?', '&']);
    let values = words.filter_map(|word| word.strip_prefix(&format!("{name}=")));
    values.map(|v| v.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace("%20", " ")).collect()
}

/// A token for the scopes of a request, as the token specification has it.
fn token(identity: &Identity, line: &str) -> String {
    let access: Vec<serde_json::Value> = parameters(line, "scope")
        .iter()
        .flat_map(|scopes| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|scope| {
            let mut parts = scope.split(':').map(str::to_owned);
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
        })
        .collect();
    let now = pintle_clock::system().now().as_second();
    let chain: Vec<String> = identity.chain().unwrap().iter().take(1).map(|der| STANDARD.encode(der)).collect();
    let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": chain });
    let claims = json!({
        "iss": "tests", "sub": "me", "aud": SERVICE, "exp": now + 300, "nbf": now - 30, "iat": now, "jti": "1", "access": access,
    });
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let key = SigningKey::from_pem(&identity.key_pem).unwrap();
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).unwrap());
    json!({ "token": format!("{signed}.{signature}") }).to_string()
}

async fn secured() -> (Keys, TokenServer, Server) {
    let keys = Keys::new();
    let tokens = TokenServer::start(&keys).await;
    keys.identity("registry");
    fs::write(keys.path("roots.pem"), keys.authority.certificate_pem()).unwrap();
    let (certificate, key) = pair(keys.directory.path(), "registry");
    let tls = format!(", tls: {{certificate: {certificate}, key: {key}}}");
    let auth = format!(
        "auth: {{token: {{realm: 'https://localhost:{}/token', service: '{SERVICE}', issuer: tests, rootcertbundle: {}}}}}\n",
        tokens.port,
        keys.path("roots.pem")
    );
    let server = Server::start_with(&tls, &auth);
    (keys, tokens, server)
}

/// The files that an identity was saved as.
fn pair(directory: &Path, name: &str) -> (String, String) {
    let path = |ending: &str| directory.join(format!("{name}.{ending}")).display().to_string();
    (path("crt"), path("key"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_what_is_done_and_shown_over_tls() {
    let (keys, tokens, server) = secured().await;
    let options = keys.options();
    let (_directory, ours) = store();
    let reference = server.name("team/app:1");
    let id = import(&ours, &reference, 50_000);
    push(&ours, &reference, me("secret"), &options, &silent).await.unwrap();
    let asked = tokens.take();
    assert!(asked.iter().any(|(line, _)| parameters(line, "scope") == ["repository:team/app:pull,push"]), "{asked:?}");
    assert!(asked.iter().all(|(line, _)| parameters(line, "service") == [SERVICE]), "{asked:?}");
    let (_directory, theirs) = store();
    assert_eq!(pull(&theirs, &reference, me("secret"), &options, &silent).await.unwrap().image.id, id);
    let asked = tokens.take();
    assert!(asked.iter().all(|(line, _)| parameters(line, "scope") == ["repository:team/app:pull"]), "{asked:?}");
    // One token does for the manifest, the configuration and the layers.
    assert_eq!(asked.len(), 1, "{asked:?}");
    let (_directory, theirs) = store();
    let by_token = Credentials { identity_token: "identity".into(), ..Credentials::default() };
    assert_eq!(pull(&theirs, &reference, by_token, &options, &silent).await.unwrap().image.id, id);
    assert!(tokens.take().iter().all(|(line, header)| line.starts_with("POST") && header.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_password_or_trust_nothing_is_got() {
    let (keys, tokens, server) = secured().await;
    let options = keys.options();
    let (directory, ours) = store();
    let reference: Reference = server.name("team/app:1");
    for credentials in [nobody(), me("wrong")] {
        let error = pull(&ours, &reference, credentials, &options, &silent).await.unwrap_err();
        assert!(error.to_string().contains("unauthorized"), "{error}");
    }
    assert_eq!(tokens.take().len(), 2);
    // The password is not even offered to who cannot prove that it is the registry.
    let trust = TrustRoots { files: Vec::new(), per_registry: "/nonexistent".into() };
    let stranger = Options { trust, ..options };
    let error = pull(&ours, &reference, me("secret"), &stranger, &silent).await.unwrap_err();
    assert!(error.to_string().contains("x509") || error.to_string().contains("tls"), "{error}");
    assert!(tokens.take().is_empty() && ours.list().is_empty());
    assert_eq!(fs::read_dir(directory.path().join("layers")).unwrap().count(), 0);
}
