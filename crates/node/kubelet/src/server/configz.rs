//! `/configz`: the settings the kubelet runs with, as upstream's `KubeletConfiguration` names them.

use super::{Body, State, respond};
use crate::config::Config;
use crate::duration::go;
use http::Response;
use serde_json::{Value, json};

pub fn answer(state: &State) -> Response<Body> {
    respond::json(json!({"kubeletconfig": state.configz}).to_string())
}

/// What is set, and what is built in.
pub fn of(config: &Config) -> Value {
    let port = config.server.as_ref().map(|s| s.bind.port());
    let dns: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
    let periods = config.options.shutdown.by_priority.iter();
    let by_priority: Vec<Value> =
        periods.map(|p| json!({"priority": p.priority, "shutdownGracePeriodSeconds": p.seconds})).collect();
    json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": port.is_some(),
        "address": config.server.as_ref().map(|s| s.bind.ip().to_string()),
        "port": port,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
        "authorization": {"mode": "Webhook"},
        "cgroupRoot": config.cgroup_root,
        "cgroupsPerQOS": config.manage_cgroups,
        "cgroupDriver": "cgroupfs",
        "clusterDNS": dns,
        "clusterDomain": config.cluster_domain,
        "resolvConf": config.resolv_conf,
        "maxPods": config.max_pods,
        "nodeLeaseDurationSeconds": config.lease_seconds,
        "cpuCFSQuota": true,
        "failSwapOn": false,
        "memorySwap": {},
        "podLogsDir": config.log_dir,
        "crashLoopBackOff": {"maxContainerRestartPeriod": go(config.options.max_restart_period.get())},
        "shutdownGracePeriod": go(config.options.shutdown.grace),
        "shutdownGracePeriodCriticalPods": go(config.options.shutdown.critical),
        "shutdownGracePeriodByPodPriority": by_priority,
    })
}
