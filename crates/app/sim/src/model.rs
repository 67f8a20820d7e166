//! The objects that simulated users make.

use serde_json::{Value, json};

/// The namespace whose pods are limited by a quota, and by how many.
pub(crate) const LIMITED: &str = "limited";
pub(crate) const QUOTA_PODS: usize = 6;
/// The namespaces that users work in.
pub(crate) const NAMESPACES: [&str; 3] = ["alpha", "beta", LIMITED];

/// Where a kind's objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) api: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) kind: &'static str,
}

pub(crate) const DEPLOYMENTS: Place = Place { api: "apis/apps/v1", resource: "deployments", kind: "Deployment" };
pub(crate) const STATEFUL_SETS: Place = Place { api: "apis/apps/v1", resource: "statefulsets", kind: "StatefulSet" };
pub(crate) const DAEMON_SETS: Place = Place { api: "apis/apps/v1", resource: "daemonsets", kind: "DaemonSet" };
pub(crate) const JOBS: Place = Place { api: "apis/batch/v1", resource: "jobs", kind: "Job" };
pub(crate) const CRON_JOBS: Place = Place { api: "apis/batch/v1", resource: "cronjobs", kind: "CronJob" };
pub(crate) const CONFIG_MAPS: Place = Place { api: "api/v1", resource: "configmaps", kind: "ConfigMap" };
pub(crate) const SERVICES: Place = Place { api: "api/v1", resource: "services", kind: "Service" };
pub(crate) const QUOTAS: Place = Place { api: "api/v1", resource: "resourcequotas", kind: "ResourceQuota" };
pub(crate) const PODS: Place = Place { api: "api/v1", resource: "pods", kind: "Pod" };
pub(crate) const BUDGETS: Place =
    Place { api: "apis/policy/v1", resource: "poddisruptionbudgets", kind: "PodDisruptionBudget" };

impl Place {
    /// The path of the objects in a namespace, or of all.
    pub(crate) fn path(&self, namespace: &str) -> String {
        let Self { api, resource, .. } = self;
        if namespace.is_empty() {
            format!("/{api}/{resource}")
        } else {
            format!("/{api}/namespaces/{namespace}/{resource}")
        }
    }

    pub(crate) fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.path(namespace))
    }

    fn object(&self, name: &str, rest: Value) -> Value {
        let version = self.api.trim_start_matches("apis/").trim_start_matches("api/");
        let mut object = json!({"apiVersion": version, "kind": self.kind, "metadata": {"name": name}});
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(rest);
        }
        object
    }
}

fn template(app: &str, container: &str, image: u64, policy: &str) -> Value {
    let requests = json!({"cpu": "100m", "memory": "64Mi"});
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": container, "image": format!("app:{image}"), "resources": {"requests": requests}}],
        },
    })
}

fn selector(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

pub(crate) fn deployment(name: &str, replicas: u64, recreate: bool) -> Value {
    let strategy = if recreate { "Recreate" } else { "RollingUpdate" };
    let template = template(name, "main", 1, "Always");
    let spec = json!({
        "replicas": replicas, "selector": selector(name), "template": template, "strategy": {"type": strategy},
    });
    DEPLOYMENTS.object(name, json!({ "spec": spec }))
}

pub(crate) fn stateful_set(name: &str, replicas: u64, parallel: bool) -> Value {
    let policy = if parallel { "Parallel" } else { "OrderedReady" };
    let template = template(name, "main", 1, "Always");
    let spec = json!({
        "replicas": replicas, "selector": selector(name), "template": template, "serviceName": name,
        "podManagementPolicy": policy,
    });
    STATEFUL_SETS.object(name, json!({ "spec": spec }))
}

pub(crate) fn daemon_set(name: &str) -> Value {
    let spec = json!({"selector": selector(name), "template": template(name, "main", 1, "Always")});
    DAEMON_SETS.object(name, json!({ "spec": spec }))
}

pub(crate) fn job(name: &str, completions: u64, parallelism: u64, container: &str, indexed: bool) -> Value {
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    let spec = json!({
        "completions": completions, "parallelism": parallelism, "backoffLimit": 2, "completionMode": mode,
        "template": template(name, container, 1, "Never"),
    });
    JOBS.object(name, json!({ "spec": spec }))
}

pub(crate) fn cron_job(name: &str) -> Value {
    let job = json!({"spec": {"template": template(name, "task", 1, "OnFailure")}});
    let spec = json!({"schedule": "*/2 * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": job});
    CRON_JOBS.object(name, json!({ "spec": spec }))
}

pub(crate) fn config_map(name: &str, value: u64) -> Value {
    CONFIG_MAPS.object(name, json!({"data": {"value": value.to_string()}}))
}

pub(crate) fn service(app: &str) -> Value {
    SERVICES.object(app, json!({"spec": {"selector": {"app": app}, "ports": [{"port": 80}]}}))
}

pub(crate) fn budget(app: &str) -> Value {
    BUDGETS.object(app, json!({"spec": {"selector": selector(app), "maxUnavailable": 1}}))
}

pub(crate) fn quota() -> Value {
    QUOTAS.object("pods", json!({"spec": {"hard": {"pods": QUOTA_PODS.to_string()}}}))
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}
