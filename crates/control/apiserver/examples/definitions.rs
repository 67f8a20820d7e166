//! What definitions of custom resources cost in memory: `definitions [COUNT]` makes that many of a usual size in a
//! server of its own and prints what each took, before and after somebody read all OpenAPI documents.

use bytes::Bytes;
use http::{Method, Request};
use pintle_apiserver::{Config, Server, User};
use pintle_client::{Transport, collect};
use pintle_kinds::Table;
use pintle_pki::{CertificateAuthority, ClientCertificates, SigningKey, server_config};
use pintle_registry::{Options, Registry};
use pintle_store::EmbeddedStore;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Groups of definitions, as operators bring them.
const GROUPS: usize = 10;
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let count: usize = std::env::args().nth(1).map_or(Ok(125), |text| text.parse())?;
    let server = server().await?;
    let stop = CancellationToken::new();
    server.start(stop.clone()).await?;
    ask(&server, Method::GET, "/openapi/v3", Value::Null).await?;
    let before = resident_kib()?;
    let size = definition(0).to_string().len();
    let began = Instant::now();
    for number in 0..count {
        ask(&server, Method::POST, DEFINITIONS, definition(number)).await?;
    }
    // They are served a moment after they were stored, in order.
    let last = count.saturating_sub(1);
    let path = format!("/apis/group{}.example.com/v1/things{last}", last % GROUPS);
    while count > 0 && ask(&server, Method::GET, &path, Value::Null).await.is_err() {
        tokio::task::yield_now().await;
    }
    let took = began.elapsed();
    let after = resident_kib()?;
    say(&format!("definitions: {count} of {size} bytes of JSON, made in {took:?}"));
    print("after they were made", before, after, count);
    for group in 0..GROUPS {
        ask(&server, Method::GET, &format!("/openapi/v3/apis/group{group}.example.com/v1"), Value::Null).await?;
    }
    print("after OpenAPI v3 was read", before, resident_kib()?, count);
    ask(&server, Method::GET, "/openapi/v2", Value::Null).await?;
    print("after OpenAPI v2 was read", before, resident_kib()?, count);
    stop.cancel();
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the figures are what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn print(when: &str, before: u64, now: u64, count: usize) {
    let each = now.saturating_sub(before) as f64 / count.max(1) as f64;
    say(&format!("{when}: {before} KiB -> {now} KiB, {each:.0} KiB each"));
}

async fn server() -> Result<Arc<Server>, Failure> {
    let keys = tempfile::tempdir()?;
    let clock = pintle_clock::system();
    let ca = CertificateAuthority::load_or_create(keys.path(), "ca", clock.now())?;
    let identity = ca.issue_server("api", &["127.0.0.1".into()], clock.now())?;
    let tls = server_config(&identity, ClientCertificates::Ignored)?;
    let bind = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
    let authority = ca.certificate_pem().to_owned();
    let key = Arc::new(SigningKey::ephemeral()?);
    let config = Config::new(bind, [192, 0, 2, 1].into(), tls, authority, key);
    let store = Arc::new(EmbeddedStore::in_memory()?);
    let registry = Registry::open(store, Table::builtin(), clock.clone(), Options::default()).await?;
    Ok(Server::new(config, registry, clock))
}

async fn ask(server: &Arc<Server>, method: Method, path: &str, body: Value) -> Result<Bytes, Failure> {
    let transport = server.local_transport(User::new("admin", &["system:masters"]));
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body)?;
    let response = transport.call(request).await?;
    let (code, body) = (response.status(), response.into_body());
    let bytes = collect(body, 64 << 20).await?;
    if code.is_success() { Ok(bytes) } else { Err(String::from_utf8_lossy(&bytes).into_owned().into()) }
}

/// A definition as operators bring them: a spec and a status, some levels deep, every field described.
fn definition(number: usize) -> Value {
    let group = format!("group{}.example.com", number % GROUPS);
    let plural = format!("things{number}");
    let schema = json!({"type": "object", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
        "spec": level(number, 0), "status": level(number + 7, 1),
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": plural, "kind": format!("Thing{number}"), "shortNames": [format!("th{number}")]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Ready", "type": "string", "jsonPath": ".status.field1.text"}],
            }],
        },
    })
}

fn level(seed: usize, depth: usize) -> Value {
    let mut properties = Map::new();
    for index in 0..8 {
        let text = format!(
            "The part {index} of level {depth} says how thing {seed} is to be set up. It counts when the controller \
             next looks at the object; changes take effect at once, and what is left out is filled in with what is \
             usual. See the documentation of the operator for the values that go together."
        );
        let field = match (index, depth) {
            (0..=2, 0..=2) => {
                let mut inner = level(seed, depth + 1);
                inner["description"] = text.into();
                inner
            }
            (3, _) => json!({"type": "array", "items": {"type": "string"}, "description": text}),
            (4, _) => json!({"type": "integer", "format": "int32", "minimum": 0, "description": text}),
            (5, _) => json!({"type": "boolean", "default": false, "description": text}),
            _ => json!({"type": "string", "maxLength": 253, "pattern": "^[a-z0-9-]+$", "description": text}),
        };
        properties.insert(format!("field{index}"), field);
    }
    properties.insert("text".into(), json!({"type": "string"}));
    json!({"type": "object", "properties": properties, "required": ["text"]})
}

fn resident_kib() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find(|line| line.starts_with("Pss:")).ok_or("no Pss line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}
