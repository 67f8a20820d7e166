//! Paths that name no resource: health, version, discovery, OpenAPI, keys of tokens.

mod debug;
pub(crate) mod discovery;
mod health;
mod metrics;
pub(crate) mod openapi;
mod profile;

use crate::pipeline::Call;
use crate::response::{self, Answer, JSON, with_type};
use http::{Method, StatusCode};
use pintle_types::Status;
use serde::Serialize;
use serde_json::json;

/// The version of Kubernetes that is served, as `/version` tells it.
pub const GIT_VERSION: &str = "v1.36.2+pintle";

pub(crate) async fn answer(call: &Call) -> Answer {
    let read = matches!(call.method, Method::GET | Method::HEAD);
    let level = call.method == Method::PUT && call.info.path == "/debug/flags/v";
    if !read && !level {
        return Ok(response::page_not_found());
    }
    let path = call.info.path.trim_end_matches('/');
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        [""] => Ok(json(&json!({"paths": root_paths(call)}))),
        ["healthz" | "livez" | "readyz", ..] => Ok(health::answer(call, segments[0], &segments[1..]).await),
        ["version"] => Ok(version()),
        ["metrics"] => Ok(metrics::all(call)),
        ["metrics", "slis"] => Ok(metrics::slis(call)),
        ["debug", rest @ ..] => Ok(debug::answer(call, rest).await),
        ["configz"] => Ok(debug::configz(call)),
        ["statusz"] => Ok(debug::statusz(call)),
        ["flagz"] => Ok(debug::flagz(call)),
        ["api"] => discovery::legacy(call),
        ["apis"] => discovery::groups(call),
        ["api", version] => discovery::version(call, "", version),
        ["apis", group] => discovery::group(call, group),
        ["apis", group, version] => discovery::version(call, group, version),
        ["openapi", rest @ ..] => openapi::answer(call, rest).await,
        [".well-known", "openid-configuration"] => Ok(json(&openid_configuration(call))),
        ["openid", "v1", "jwks"] => {
            let keys = call.server.auth.tokens.accounts.keys.key_set().to_string();
            Ok(with_type(StatusCode::OK, "application/jwk-set+json", keys))
        }
        ["api", ..] => Err(Box::new(Status::no_such_resource())),
        _ => Ok(response::page_not_found()),
    }
}

pub(crate) fn json(value: &serde_json::Value) -> http::Response<pintle_client::Body> {
    with_type(StatusCode::OK, JSON, value.to_string())
}

fn root_paths(call: &Call) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/flagz",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/statusz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in call.server.served_groups().iter().filter(|g| !g.group.is_empty()) {
        paths.push(format!("/apis/{}", group.group));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{v}", group.group)));
    }
    paths.extend(health::paths());
    paths.sort();
    paths
}

/// What `/version` tells, in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    major: &'static str,
    minor: &'static str,
    emulation_major: &'static str,
    emulation_minor: &'static str,
    min_compatibility_major: &'static str,
    min_compatibility_minor: &'static str,
    git_version: &'static str,
    git_commit: &'static str,
    git_tree_state: &'static str,
    build_date: &'static str,
    go_version: &'static str,
    compiler: &'static str,
    platform: String,
}

/// People read it: it is indented.
fn version() -> http::Response<pintle_client::Body> {
    let version = Version {
        major: "1",
        minor: "36",
        emulation_major: "1",
        emulation_minor: "36",
        min_compatibility_major: "1",
        min_compatibility_minor: "35",
        git_version: GIT_VERSION,
        git_commit: "",
        git_tree_state: "clean",
        build_date: "1970-01-01T00:00:00Z",
        go_version: "",
        compiler: "rustc",
        platform: format!("{}/{}", std::env::consts::OS, architecture()),
    };
    // Texts in a struct: writing them cannot fail.
    with_type(StatusCode::OK, JSON, serde_json::to_string_pretty(&version).unwrap_or_default())
}

/// The processor as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn openid_configuration(call: &Call) -> serde_json::Value {
    let accounts = &call.server.auth.tokens.accounts;
    let issuer = accounts.issuer();
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": accounts.keys.algorithms(),
    })
}
