//! What administrators look at: `/debug/…`, `/configz`, `/statusz`, `/flagz`.

use super::GIT_VERSION;
use crate::pipeline::Call;
use crate::response::{page_not_found, text};
use http::{Method, Response, StatusCode};
use pintle_client::Body;
use serde_json::json;

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
                       guarantees and is for debugging purposes only.";

/// Paths under `/debug/`.
pub(crate) async fn answer(call: &Call, rest: &[&str]) -> Response<Body> {
    let fairness = &call.server.fairness;
    match rest {
        ["api_priority_and_fairness", "dump_priority_levels"] => text(StatusCode::OK, fairness.dump_levels()),
        ["api_priority_and_fairness", "dump_queues"] => text(StatusCode::OK, fairness.dump_queues()),
        ["api_priority_and_fairness", "dump_requests"] => text(StatusCode::OK, fairness.dump_requests()),
        ["flags", "v"] if call.method == Method::PUT => not_supported("changing what is logged while the server runs"),
        ["flags"] => text(StatusCode::OK, "[\"/debug/flags/v\"]\n"),
        ["pprof", ..] if !call.server.config.profiling => page_not_found(),
        ["pprof"] => {
            let profiles = "\tallocs?seconds=30\n\tcmdline\n\theap?seconds=30\n\tprofile?seconds=30\n";
            text(StatusCode::OK, format!("/debug/pprof/\n\nProfiles of this server:\n{profiles}"))
        }
        ["pprof", "cmdline"] => {
            let arguments: Vec<String> = std::env::args().collect();
            text(StatusCode::OK, arguments.join("\0"))
        }
        ["pprof", "profile"] => super::profile::answer(call).await,
        ["pprof", "heap"] => super::profile::heap(call, "heap").await,
        ["pprof", "allocs"] => super::profile::heap(call, "allocs").await,
        ["pprof", "trace" | "symbol" | "goroutine" | "block" | "mutex" | "threadcreate"] => {
            not_supported("this profile; there are those of processor time and of the heap, `profile` and `heap`")
        }
        _ => page_not_found(),
    }
}

fn not_supported(what: &str) -> Response<Body> {
    text(StatusCode::NOT_IMPLEMENTED, format!("not supported: {what}\n"))
}

/// The settings that components publish, by component.
pub(crate) fn configz(call: &Call) -> Response<Body> {
    let config = &call.server.config;
    super::json(&json!({"apiserver.pintle": {
        "anonymous": config.anonymous,
        "advertiseAddress": config.advertise_address.to_string(),
        "serviceClusterIPRange": config.service_cidr,
        "maxRequestsInflight": config.max_in_flight,
        "maxMutatingRequestsInflight": config.max_mutating_in_flight,
    }}))
}

/// Since when the server runs, and what it is.
pub(crate) fn statusz(call: &Call) -> Response<Body> {
    let server = &call.server;
    let up = server.clock.now().duration_since(server.began).as_secs().max(0);
    let started = server.began.strftime("%a %b %e %H:%M:%S UTC %Y");
    let mut paths: Vec<String> =
        super::root_paths(call).iter().filter_map(|path| Some(format!("/{}", path.split('/').nth(1)?))).collect();
    paths.sort();
    paths.dedup();
    let body = format!(
        "\nkube-apiserver statusz\n{WARNING}\n\nStarted: {started}\nUp: {} hr {:02} min {:02} sec\nGo version: none\n\
         Binary version: {}\nEmulation version: 1.36\nPaths: {}\n",
        up / 3600,
        up / 60 % 60,
        up % 60,
        GIT_VERSION.trim_start_matches('v'),
        paths.join(" "),
    );
    text(StatusCode::OK, body)
}

/// The settings by the names of upstream's flags.
pub(crate) fn flagz(call: &Call) -> Response<Body> {
    let config = &call.server.config;
    let mut flags = vec![
        ("advertise-address", config.advertise_address.to_string()),
        ("anonymous-auth", config.anonymous.to_string()),
        ("bind-address", config.bind.ip().to_string()),
        ("max-mutating-requests-inflight", config.max_mutating_in_flight.to_string()),
        ("max-requests-inflight", config.max_in_flight.to_string()),
        ("profiling", config.profiling.to_string()),
        ("secure-port", call.server.port().to_string()),
        ("service-account-issuer", config.issuer.clone()),
        ("service-cluster-ip-range", config.service_cidr.clone()),
    ];
    if let Some(audit) = &config.audit {
        flags.insert(2, ("audit-policy-file", audit.policy_file.display().to_string()));
    }
    let lines: String = flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    text(StatusCode::OK, format!("\nkube-apiserver flags\n{WARNING}\n\n{lines}"))
}
