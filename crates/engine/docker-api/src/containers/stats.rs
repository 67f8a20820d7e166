//! What containers use, once or every second.

use crate::State;
use crate::answer::{Result, stream, value};
use crate::call::Call;
use bytes::Bytes;
use pintle_docker::containers::Sample;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(1);

pub(crate) async fn stats(state: &Arc<State>, call: &Call, id: &str) -> Result {
    let container = state.daemon.container(id)?;
    let running = container.look(|r| r.state.status.is_running());
    measured(state, call, container.id.clone(), container.name(), running).await
}

/// The same of a container by its whole id, which may be one of a pod.
pub(crate) async fn measured(state: &Arc<State>, call: &Call, id: String, name: String, running: bool) -> Result {
    let (streamed, one_shot) = (call.query.flag_or_true("stream"), call.query.flag("one-shot"));
    if !streamed {
        let mut before = None;
        if !one_shot && running {
            before = state.daemon.sample(&id).await.ok();
            tokio::time::sleep(PERIOD).await;
        }
        let now = state.daemon.sample(&id).await.ok();
        return value(&shown(&id, &name, now.as_ref(), before.as_ref()));
    }
    let begin = (Arc::clone(&state.daemon), id, name, None::<Sample>, true);
    let pieces = futures::stream::unfold(begin, |(daemon, id, name, before, first)| async move {
        if !first {
            tokio::time::sleep(PERIOD).await;
        }
        // One that is gone ends the stream; one that does not run uses nothing.
        if daemon.container(&id).is_err() && daemon.engine.view(&id).is_err() {
            return None;
        }
        let now = daemon.sample(&id).await.ok();
        let line = format!("{}\n", shown(&id, &name, now.as_ref(), before.as_ref()));
        Some((Ok(Bytes::from(line)), (daemon, id, name, now, false)))
    });
    Ok(stream("application/json", pieces))
}

fn shown(id: &str, name: &str, now: Option<&Sample>, before: Option<&Sample>) -> Value {
    let zero = Sample::default();
    let (sample, previous) = (now.unwrap_or(&zero), before.unwrap_or(&zero));
    let mut body = json!({
        "name": format!("/{name}"),
        "id": id,
        "read": pintle_docker::containers::rfc3339(sample.read_at),
        "preread": pintle_docker::containers::rfc3339(previous.read_at),
        "pids_stats": if sample.usage.pids == 0 { json!({}) } else { json!({ "current": sample.usage.pids }) },
        "blkio_stats": {
            "io_service_bytes_recursive": null,
            "io_serviced_recursive": null,
            "io_queue_recursive": null,
            "io_service_time_recursive": null,
            "io_wait_time_recursive": null,
            "io_merged_recursive": null,
            "io_time_recursive": null,
            "sectors_recursive": null,
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": processors(sample),
        "precpu_stats": processors(previous),
        "memory_stats": memory(sample),
    });
    if !sample.networks.is_empty() {
        let networks = sample.networks.iter().map(|(name, traffic)| {
            let [rx_bytes, rx_packets, rx_errors, rx_dropped] = traffic.received;
            let [tx_bytes, tx_packets, tx_errors, tx_dropped] = traffic.sent;
            let value = json!({
                "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
                "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
            });
            (name.clone(), value)
        });
        body["networks"] = Value::Object(networks.collect());
    }
    body
}

fn processors(sample: &Sample) -> Value {
    let mut body = json!({
        "cpu_usage": {
            "total_usage": sample.usage.cpu_usage_nanos,
            "usage_in_kernelmode": 0,
            "usage_in_usermode": 0,
        },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    });
    if sample.system_cpu_nanos > 0 {
        body["system_cpu_usage"] = json!(sample.system_cpu_nanos);
        body["online_cpus"] = json!(sample.processors);
    }
    body
}

fn memory(sample: &Sample) -> Value {
    if sample.read_at == 0 {
        return json!({});
    }
    let usage = &sample.usage;
    let inactive = usage.memory_usage_bytes.saturating_sub(usage.memory_working_set_bytes);
    json!({
        "usage": usage.memory_usage_bytes,
        "stats": {
            "inactive_file": inactive,
            "total_inactive_file": inactive,
            "pgfault": usage.page_faults,
            "pgmajfault": usage.major_page_faults,
            "rss": usage.memory_rss_bytes,
        },
        "limit": sample.memory_limit,
    })
}
