//! `/metrics` and `/metrics/slis`.

use crate::pipeline::Call;
use crate::response::with_type;
use http::{Response, StatusCode};
use pintle_client::Body;
use pintle_metrics::CONTENT_TYPE;

/// Everything that the server counts.
pub(crate) fn all(call: &Call) -> Response<Body> {
    with_type(StatusCode::OK, CONTENT_TYPE, call.server.metrics.registry.render())
}

/// Whether the server is well, as service level indicators.
pub(crate) fn slis(call: &Call) -> Response<Body> {
    let registry = pintle_metrics::Registry::default();
    let (started, stopping) = (call.server.is_started(), call.server.stopping().is_cancelled());
    registry.on_scrape(move |text| {
        text.family(
            "kubernetes_healthcheck",
            "gauge",
            "[STABLE] This metric records the result of a single healthcheck.",
        );
        let checks = [
            ("ping", "healthz", true),
            ("poststarthook/rbac/bootstrap-roles", "readyz", started),
            ("shutdown", "readyz", !stopping),
        ];
        for (name, kind, well) in checks {
            text.labelled("kubernetes_healthcheck", &[("name", name), ("type", kind)], f64::from(u8::from(well)));
        }
    });
    with_type(StatusCode::OK, CONTENT_TYPE, registry.render())
}
