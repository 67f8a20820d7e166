//! Authorities, what they issue, and handshakes over it.

use jiff::{SignedDuration, Timestamp};
use pintle_pki::{
    CertificateAuthority, ClientCertificates, Identity, LiveIdentity, Peer, SigningKey, client_config,
    client_config_live, client_config_unverified, peer, server_config, server_config_live,
};
use rustls::{ClientConnection, ServerConnection};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

fn now() -> Timestamp {
    Timestamp::now()
}

fn authority(dir: &Path) -> CertificateAuthority {
    CertificateAuthority::load_or_create(dir, "ca", now()).unwrap()
}

/// Moves bytes between both ends until the handshake is done or one of them refuses.
fn handshake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

fn connect(ca: &CertificateAuthority, server: &Identity, client: Option<&Identity>) -> Result<Option<Peer>, String> {
    let server = server_config(server, ClientCertificates::Optional(ca.certificate_pem())).unwrap();
    let client = client_config(ca.certificate_pem(), client).unwrap();
    let mut client = ClientConnection::new(client, "api.example".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    handshake(&mut client, &mut server).map_err(|e| e.to_string())?;
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    Ok(peer(server.peer_certificates()))
}

#[test]
fn a_reloaded_authority_issues_what_its_old_certificate_verifies() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let ca = authority(dir.path());
    let server = ca.issue_server("api", &["api.example".into(), "10.0.0.1".into()], now()).unwrap();
    let client = ca.issue_client("jane", &["dev", "ops"], now()).unwrap();
    let jane = Peer { common_name: "jane".into(), organizations: vec!["dev".into(), "ops".into()] };
    assert_eq!(connect(&ca, &server, Some(&client)), Ok(Some(jane)));
    assert_eq!(connect(&ca, &server, None), Ok(None));
    assert!(ca.issue_client("jane", &["a", "b", "c"], now()).is_err());
}

#[test]
fn strangers_certificates_end_the_handshake() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, other) = (authority(ours.path()), authority(theirs.path()));
    let server = ca.issue_server("api", &["api.example".into()], now()).unwrap();
    let stranger = other.issue_client("jane", &["system:masters"], now()).unwrap();
    assert!(connect(&ca, &server, Some(&stranger)).is_err());
    let impostor = other.issue_server("api", &["api.example".into()], now()).unwrap();
    assert!(connect(&ca, &impostor, None).is_err());
    let wrong_name = ca.issue_server("api", &["other.example".into()], now()).unwrap();
    assert!(connect(&ca, &wrong_name, None).is_err());
}

#[test]
fn kept_certificates_are_renewed_when_they_must_be() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let names = ["b.example".to_owned(), "10.0.0.1".to_owned()];
    let first = ca.server_in(dir.path(), "api", &names, now()).unwrap();
    let again = ca.server_in(dir.path(), "api", &names, now()).unwrap();
    assert_eq!(first.certificate_pem, again.certificate_pem);
    let more = [names[0].clone(), names[1].clone(), "10.0.0.2".to_owned()];
    let other_names = ca.server_in(dir.path(), "api", &more, now()).unwrap();
    assert_eq!(other_names.subject_alt_names().unwrap(), ["10.0.0.1", "10.0.0.2", "b.example"]);
    let late = now() + SignedDuration::from_hours(24 * 340);
    assert!(!other_names.needs_renewal(now()).unwrap());
    assert!(other_names.needs_renewal(late).unwrap());
    // Four fifths of a year, but for the minutes by which it is dated back.
    let left = other_names.time_to_renewal(now()).unwrap().as_secs() / 3600;
    assert!((291 * 24..=292 * 24).contains(&left), "{left} hours");
    assert!(other_names.time_to_renewal(late).unwrap().is_zero());
    let renewed = ca.server_in(dir.path(), "api", &more, late).unwrap();
    assert_ne!(renewed.certificate_pem, other_names.certificate_pem);
    let client = ca.client_in(dir.path(), "admin", "admin", &["system:masters"], now()).unwrap();
    let other = ca.client_in(dir.path(), "admin", "root", &["system:masters"], now()).unwrap();
    assert_ne!(client.certificate_pem, other.certificate_pem);
}

#[test]
fn an_identity_is_replaced_while_others_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let server = LiveIdentity::new(ca.issue_server("api", &["api.example".into()], now()).unwrap()).unwrap();
    let client = LiveIdentity::new(ca.issue_client("ann", &[], now()).unwrap()).unwrap();
    let trusting = server_config_live(&server, ClientCertificates::Required(ca.certificate_pem())).unwrap();
    let connect = |name: &'static str| {
        // New settings each time: a session that is resumed goes on with the certificates of its beginning.
        let settings = client_config_live(ca.certificate_pem(), &client).unwrap();
        let mut client = ClientConnection::new(settings, name.try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&trusting)).unwrap();
        handshake(&mut client, &mut server).map(|()| peer(server.peer_certificates()).unwrap().common_name)
    };
    assert_eq!(connect("api.example").unwrap(), "ann");
    client.replace(ca.issue_client("bob", &[], now()).unwrap()).unwrap();
    server.replace(ca.issue_server("api", &["other.example".into()], now()).unwrap()).unwrap();
    assert_eq!(connect("other.example").unwrap(), "bob");
    assert!(connect("api.example").is_err(), "the old certificate is not shown any more");
    // Who believes anybody still checks that the key belongs to the certificate.
    let anybody = client_config_unverified().unwrap();
    let mut client = ClientConnection::new(anybody, "api.example".try_into().unwrap()).unwrap();
    let config = server_config(&server.identity(), ClientCertificates::Ignored).unwrap();
    handshake(&mut client, &mut ServerConnection::new(config).unwrap()).unwrap();
}

#[test]
fn keys_are_readable_by_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    authority(&keys);
    SigningKey::load_or_create(&keys, "tokens").unwrap();
    for name in ["ca.key", "ca.crt", "tokens.key"] {
        let mode = std::fs::metadata(keys.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_reloaded_signing_key_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = SigningKey::load_or_create(dir.path(), "tokens").unwrap();
    let second = SigningKey::load_or_create(dir.path(), "tokens").unwrap();
    let signature = first.sign(b"message").unwrap();
    assert!(second.public().verify(b"message", &signature));
    assert!(!second.public().verify(b"another", &signature));
    assert_eq!(first.public().fingerprint(), second.public().fingerprint());
    std::fs::write(dir.path().join("tokens.key"), "nonsense").unwrap();
    assert!(SigningKey::load_or_create(dir.path(), "tokens").is_err());
}
