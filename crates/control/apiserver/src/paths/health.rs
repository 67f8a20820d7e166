//! `/healthz`, `/livez` and `/readyz`, with `?verbose`, `?exclude=` and a path for each check.

use crate::pipeline::Call;
use crate::response::{page_not_found, text};
use http::{Response, StatusCode};
use pintle_client::Body;

/// The checks of each endpoint. The process answers, so those that only say so hold.
const CHECKS: [&str; 4] = ["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles"];
/// Not ready any more, while requests in flight are still answered.
const SHUTDOWN: &str = "shutdown";

pub(crate) fn answer(call: &Call, endpoint: &str, rest: &[&str]) -> Response<Body> {
    let checks = checks_of(endpoint);
    if !rest.is_empty() {
        let wanted = rest.join("/");
        return match checks.iter().find(|c| **c == wanted) {
            None => page_not_found(),
            Some(check) if holds(call, check) => text(StatusCode::OK, "ok"),
            Some(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: not yet\n"),
        };
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut lines = String::new();
    let mut well = true;
    for check in checks {
        let (ok, line) = if excluded.contains(&check) {
            (true, format!("[+]{check} excluded: ok\n"))
        } else if holds(call, check) {
            (true, format!("[+]{check} ok\n"))
        } else {
            (false, format!("[-]{check} failed: reason withheld\n"))
        };
        well &= ok;
        lines.push_str(&line);
    }
    if !well {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n"));
    }
    if call.query.has("verbose") {
        return text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"));
    }
    text(StatusCode::OK, "ok")
}

fn checks_of(endpoint: &str) -> Vec<&'static str> {
    let mut checks = CHECKS.to_vec();
    if endpoint == "readyz" {
        checks.push(SHUTDOWN);
    }
    checks
}

fn holds(call: &Call, check: &str) -> bool {
    match check {
        SHUTDOWN => !call.server.stopping().is_cancelled(),
        "poststarthook/rbac/bootstrap-roles" => call.server.is_started(),
        _ => true,
    }
}
