//! The Engine API over TCP: both sides show certificates, or nothing is said.

use anyhow::{Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Subject};

/// An authority, and what it signed for the engine and for a client; another authority with a client of its own.
const CERTIFICATES: &str = r#"
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" -keyout "$1/ca-key.pem" -out "$1/ca.pem"
}
sign() { # sign AUTHORITY NAME USAGE NAMES
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$1/$2key.pem" -out "$1/$2.csr"
    printf 'extendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4" > "$1/ext"
    openssl x509 -req -days 2 -in "$1/$2.csr" -CA "$1/ca.pem" -CAkey "$1/ca-key.pem" -CAcreateserial -extfile "$1/ext" -out "$1/$2cert.pem"
    mv "$1/$2key.pem" "$1/$2-key.pem"; mv "$1/$2cert.pem" "$1/$2-cert.pem"
}
mkdir -p own other
authority own; authority other
sign own server serverAuth IP:127.0.0.1
sign own client clientAuth DNS:client
sign other client clientAuth DNS:client
for who in own other; do
    mkdir -p $who/docker
    cp own/ca.pem $who/docker/ca.pem; cp $who/client-cert.pem $who/docker/cert.pem; cp $who/client-key.pem $who/docker/key.pem
done
"#;

pub fn mutual_tls(_: &Engine) -> Result<()> {
    let engine = Engine::start()?;
    engine.shell(CERTIFICATES)?;
    let path = |name: &str| engine.path(name).display().to_string();
    let address = "tcp://127.0.0.1:2376";
    let flags = [
        "--docker-host".to_owned(),
        address.to_owned(),
        "--tlsverify".to_owned(),
        "--tlscacert".to_owned(),
        path("own/ca.pem"),
        "--tlscert".to_owned(),
        path("own/server-cert.pem"),
        "--tlskey".to_owned(),
        path("own/server-key.pem"),
    ];
    engine.stop_daemon(rustix::process::Signal::TERM)?;
    engine.start_daemon_with(&flags)?;
    let remote = |certificates: &str, words: &str| {
        engine.shell(&format!(
            "DOCKER_HOST={address} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$PWD/{certificates}/docker docker {words}"
        ))
    };
    ensure!(remote("own", &format!("run --rm {BUSYBOX} echo far"))? == "far");
    ensure!(remote("own", &format!("run --rm -i {BUSYBOX} cat < own/ca.pem"))?.contains("BEGIN CERTIFICATE"));
    remote("own", &format!("run -d --name tls {BUSYBOX} sleep 3600"))?;
    ensure!(remote("own", "exec tls echo in")? == "in");
    // What one sees over TCP the other sees on the socket.
    ensure!(engine.ok(&["ps", "-q", "-f", "name=tls"])?.len() == 12);
    engine.ok(&["rm", "-f", "tls"])?;
    let stranger = remote("other", "version 2>&1").err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(stranger.contains("tls: ") || stranger.contains("certificate"), "{stranger}");
    for curl in
        ["curl -s --noproxy '*' http://127.0.0.1:2376/_ping", "curl -sk --noproxy '*' https://127.0.0.1:2376/_ping"]
    {
        let answer = engine.shell(&format!("{curl} || echo refused"))?;
        ensure!(answer.ends_with("refused") && !answer.contains("OK"), "{curl}: {answer}");
    }
    // Without certificates there is no such address.
    engine.stop_daemon(rustix::process::Signal::TERM)?;
    for flags in [&flags[..2], &flags[..5], &[&flags[..2], &["--tlsverify=false".to_owned()]].concat()] {
        let told = engine.refused_start(flags)?;
        ensure!(told.contains("tls"), "started with {flags:?}: {told}");
    }
    engine.start_daemon()?;
    engine.finish()
}
