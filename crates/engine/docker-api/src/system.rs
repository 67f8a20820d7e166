//! The Engine's calls on itself.

use crate::answer::{Result, bytes, value};
use crate::call::Call;
use crate::route::not_found;
use crate::{API_VERSION, MIN_API_VERSION, State};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn route(_state: &Arc<State>, call: Call, parts: &[&str]) -> Result {
    match (&call.method, parts) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => Ok(ping(&call.method)),
        (&Method::GET, ["version"]) => version(),
        _ => Err(not_found()),
    }
}

fn ping(method: &Method) -> crate::answer::Answer {
    let body = if method == Method::HEAD { "" } else { "OK" };
    let mut answer = bytes(StatusCode::OK, "text/plain; charset=utf-8", body);
    let headers = answer.headers_mut();
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(http::header::PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}

fn version() -> Result {
    let own = env!("CARGO_PKG_VERSION");
    let machine = rustix::system::uname();
    let details = json!({
        "ApiVersion": API_VERSION,
        "Arch": architecture(),
        "Experimental": "false",
        "KernelVersion": machine.release().to_string_lossy(),
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    });
    value(&json!({
        "Platform": { "Name": "pintle" },
        "Version": own,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": machine.release().to_string_lossy(),
        "Components": [{ "Name": "Engine", "Version": own, "Details": details }],
    }))
}

/// In the words of images.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
