//! `/healthz`, `/livez` and `/readyz`, with `?verbose`, `?exclude=` and a path for each check.
//!
//! Source: apiserver's `pkg/server/healthz`.

use crate::pipeline::Call;
use crate::response::{page_not_found, text};
use http::{Response, StatusCode};
use pintle_client::Body;
use std::time::Duration;

/// The checks, in upstream's order. What they name at upstream is a part of this server's start.
const CHECKS: [&str; 35] = [
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/aggregator-reload-proxy-client-cert",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
    SHUTDOWN,
];
/// Not ready any more, while requests in flight are still answered.
const SHUTDOWN: &str = "shutdown";
/// What only the readiness of the server depends on.
const ONLY_READY: [&str; 3] = ["etcd-readiness", "informer-sync", SHUTDOWN];
/// A store that takes longer to answer is not well.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn answer(call: &Call, endpoint: &str, rest: &[&str]) -> Response<Body> {
    if !rest.is_empty() {
        let wanted = rest.join("/");
        return match checks_of(endpoint).find(|check| *check == wanted) {
            None => page_not_found(),
            Some(check) => match failure(call, check).await {
                None => text(StatusCode::OK, "ok"),
                Some(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
            },
        };
    }
    let mut excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut lines = String::new();
    let mut well = true;
    for check in checks_of(endpoint) {
        if excluded.contains(&check) {
            excluded.retain(|name| *name != check);
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if let Some(why) = failure(call, check).await {
            tracing::info!(endpoint, check, why, "a health check failed");
            lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
            well = false;
        } else {
            lines.push_str(&format!("[+]{check} ok\n"));
        }
    }
    if !excluded.is_empty() {
        lines.push_str(&unknown(excluded));
    }
    if !well {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n"));
    }
    if call.query.has("verbose") {
        return text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"));
    }
    text(StatusCode::OK, "ok")
}

fn unknown(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    names.dedup();
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("warn: some health checks cannot be excluded: no matches for {}\n", quoted.join(","))
}

fn checks_of(endpoint: &str) -> impl Iterator<Item = &'static str> {
    let ready = endpoint == "readyz";
    CHECKS.into_iter().filter(move |check| ready || !ONLY_READY.contains(check))
}

/// The paths of all checks, for the list of paths.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    ["healthz", "livez", "readyz"]
        .into_iter()
        .flat_map(|endpoint| checks_of(endpoint).map(move |check| format!("/{endpoint}/{check}")))
}

/// Why a check does not hold.
async fn failure(call: &Call, check: &str) -> Option<String> {
    let server = &call.server;
    match check {
        "etcd" | "etcd-readiness" => match tokio::time::timeout(STORE_PATIENCE, server.registry.check_store()).await {
            Ok(answer) => answer.err().map(|status| status.message),
            Err(_) => Some("the store does not answer".into()),
        },
        SHUTDOWN => server.stopping().is_cancelled().then(|| "process is shutting down".into()),
        "ping" | "log" => None,
        _ => (!server.is_started()).then(|| "not finished".into()),
    }
}
