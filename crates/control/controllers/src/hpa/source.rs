//! Asks the metrics APIs: `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`.
//!
//! Source: `k8s.io/metrics/pkg/client`; upstream's `podautoscaler/metrics/client.go`.

use super::plan::{Reading, Readings};
use http::Method;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pintle_client::{Client, ClientError};
use pintle_types::quantity::Quantity;
use serde_json::Value;

/// What a reading is measured over when nothing is said of it, in milliseconds.
const USUAL_WINDOW: i64 = 60_000;
const NO_SUCH: &str = "the server could not find the requested resource";

/// What all containers of each pod (or the one of that name) use of a resource.
pub async fn of_resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Readings, String> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}", encoded(selector));
    let why = |e: ClientError| {
        format!("unable to fetch metrics from resource metrics API: {}", words(&e, "pods.metrics.k8s.io"))
    };
    let list = client.json(Method::GET, &path, None).await.map_err(why)?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Err("no metrics returned from resource metrics API".into());
    }
    let mut readings = Readings::new();
    for item in items {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let containers = item["containers"].as_array().into_iter().flatten();
        let wanted: Vec<&Value> = containers.filter(|c| container.is_none_or(|name| c["name"] == name)).collect();
        if let (Some(container), true) = (container, wanted.is_empty()) {
            return Err(format!("container {container} not present in metrics for pod {namespace}/{name}"));
        }
        let used: Option<i64> = wanted.iter().map(|c| milli(&c["usage"][resource])).sum();
        // A container that says nothing of the resource makes the whole pod unknown.
        let Some(value) = used else { continue };
        let window = item["window"].as_str().and_then(window_ms).unwrap_or(USUAL_WINDOW);
        readings.insert(name.to_owned(), Reading { value, at: time_ms(&item["timestamp"]), window });
    }
    Ok(readings)
}

/// A custom metric of each pod.
pub async fn of_pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &str,
    metric_selector: &str,
) -> Result<Readings, String> {
    let what = format!("namespaces/{namespace}/pods/*/{}", encoded(metric));
    let items = custom(client, &what, &[("labelSelector", selector), ("metricLabelSelector", metric_selector)]).await?;
    if items.is_empty() {
        return Err("no metrics returned from custom metrics API".into());
    }
    let read = |item: &Value| {
        let seconds = item["windowSeconds"].as_i64().or_else(|| item["window"].as_i64());
        let window = seconds.map_or(USUAL_WINDOW, |s| s.saturating_mul(1000));
        let value = milli(&item["value"]).unwrap_or_default();
        let name = item["describedObject"]["name"].as_str().unwrap_or_default().to_owned();
        (name, Reading { value, at: time_ms(&item["timestamp"]), window })
    };
    Ok(items.iter().map(read).collect())
}

/// A custom metric of one object, in thousandths; `resource` is `PLURAL` or `PLURAL.GROUP`.
pub async fn of_object(
    client: &Client,
    namespace: &str,
    resource: &str,
    name: &str,
    metric: &str,
    metric_selector: &str,
) -> Result<i64, String> {
    let what = match resource {
        "namespaces" => format!("namespaces/{namespace}/metrics/{}", encoded(metric)),
        _ => format!("namespaces/{namespace}/{resource}/{}/{}", encoded(name), encoded(metric)),
    };
    let items = custom(client, &what, &[("metricLabelSelector", metric_selector)]).await?;
    let first = items.first().ok_or("no metrics returned from custom metrics API")?;
    Ok(milli(&first["value"]).unwrap_or_default())
}

/// The values of an external metric together, in thousandths.
pub async fn external(client: &Client, namespace: &str, metric: &str, selector: &str) -> Result<i64, String> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}?{}",
        encoded(metric),
        query(&[("labelSelector", selector)])
    );
    let why = |e: ClientError| {
        let resource = format!("{metric}.external.metrics.k8s.io");
        format!("unable to fetch metrics from external metrics API: {}", words(&e, &resource))
    };
    let list = client.json(Method::GET, &path, None).await.map_err(why)?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Err("no metrics returned from external metrics API".into());
    }
    Ok(items.iter().filter_map(|item| milli(&item["value"])).sum())
}

/// The items of a `MetricValueList`, in the newest version that is served.
async fn custom(client: &Client, what: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>, String> {
    const PREFIX: &str = "unable to fetch metrics from custom metrics API";
    let group = client.json(Method::GET, "/apis/custom.metrics.k8s.io", None).await;
    let versions = group.map_err(|e| match e.is_not_found() {
        true => format!("{PREFIX}: no custom metrics API (custom.metrics.k8s.io) registered"),
        false => format!("{PREFIX}: {e}"),
    })?;
    let served =
        |version: &str| versions["versions"].as_array().into_iter().flatten().any(|known| known["version"] == version);
    let Some(version) = ["v1beta2", "v1beta1"].into_iter().find(|version| served(version)) else {
        return Err(format!("{PREFIX}: no known available metric versions found"));
    };
    let path = format!("/apis/custom.metrics.k8s.io/{version}/{what}?{}", query(parameters));
    let list = client.json(Method::GET, &path, None).await.map_err(|e| format!("{PREFIX}: {e}"))?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn query(parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// What went wrong; as upstream's client adds it, what was asked for.
fn words(error: &ClientError, resource: &str) -> String {
    let text = error.to_string();
    if text == NO_SUCH { format!("{text} (get {resource})") } else { text }
}

fn milli(value: &Value) -> Option<i64> {
    Some(value.as_str()?.parse::<Quantity>().ok()?.milli())
}

fn time_ms(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_millisecond)
}

/// A duration as Go writes it (`1m15.5s`), in milliseconds.
fn window_ms(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let factor = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            "us" | "µs" => 1e-3,
            "ns" => 1e-6,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    Some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read() {
        for (text, expected) in [
            ("15s", Some(15_000)),
            ("1m0.5s", Some(60_500)),
            ("200ms", Some(200)),
            ("1h", Some(3_600_000)),
            ("5", None),
        ] {
            assert_eq!(window_ms(text), expected, "{text}");
        }
    }
}
