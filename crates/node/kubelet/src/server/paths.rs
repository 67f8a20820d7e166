//! The paths of the kubelet's API.

use http::Method;
use percent_encoding::percent_decode_str;

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    pub pod: String,
    /// Empty is any.
    pub uid: String,
    pub container: String,
}

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Healthz,
    Pods,
    RunningPods,
    Summary,
    Metrics,
    ResourceMetrics,
    CadvisorMetrics,
    ProbeMetrics,
    Configz,
    Checkpoint(Place),
    Logs {
        namespace: String,
        pod: String,
        container: String,
    },
    Exec(Place),
    Attach(Place),
    PortForward {
        namespace: String,
        pod: String,
        uid: String,
    },
    /// The directory of a volume of the cluster's own provisioner.
    LocalVolume(String),
}

impl Route {
    pub fn of(path: &str) -> Option<Self> {
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|p| percent_decode_str(p).decode_utf8().map(std::borrow::Cow::into_owned).ok())
            .collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let own = |text: &str| text.to_owned();
        let place = |namespace, pod, uid, container| Place {
            namespace: own(namespace),
            pod: own(pod),
            uid: own(uid),
            container: own(container),
        };
        Some(match parts.as_slice() {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Self::Healthz,
            ["pods"] => Self::Pods,
            ["runningpods"] => Self::RunningPods,
            ["stats", "summary"] => Self::Summary,
            ["metrics"] => Self::Metrics,
            ["metrics", "resource"] => Self::ResourceMetrics,
            ["metrics", "cadvisor"] => Self::CadvisorMetrics,
            ["metrics", "probes"] => Self::ProbeMetrics,
            ["configz"] => Self::Configz,
            ["checkpoint", namespace, pod, container] => Self::Checkpoint(place(namespace, pod, "", container)),
            ["containerLogs", namespace, pod, container] => {
                Self::Logs { namespace: own(namespace), pod: own(pod), container: own(container) }
            }
            ["exec", namespace, pod, container] => Self::Exec(place(namespace, pod, "", container)),
            ["exec", namespace, pod, uid, container] => Self::Exec(place(namespace, pod, uid, container)),
            ["attach", namespace, pod, container] => Self::Attach(place(namespace, pod, "", container)),
            ["attach", namespace, pod, uid, container] => Self::Attach(place(namespace, pod, uid, container)),
            ["portForward", namespace, pod] => {
                Self::PortForward { namespace: own(namespace), pod: own(pod), uid: String::new() }
            }
            ["portForward", namespace, pod, uid] => {
                Self::PortForward { namespace: own(namespace), pod: own(pod), uid: own(uid) }
            }
            ["localVolumes", volume] => Self::LocalVolume(own(volume)),
            _ => return None,
        })
    }

    /// The beginning of the path, by which requests are counted.
    pub fn bucket(&self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Pods => "pods",
            Self::RunningPods => "runningpods",
            Self::Summary => "stats",
            Self::Metrics => "metrics",
            Self::ResourceMetrics => "metrics/resource",
            Self::CadvisorMetrics => "metrics/cadvisor",
            Self::ProbeMetrics => "metrics/probes",
            Self::Configz => "configz",
            Self::Checkpoint(_) => "checkpoint",
            Self::Logs { .. } => "containerLogs",
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward { .. } => "portForward",
            Self::LocalVolume(_) => "localVolumes",
        }
    }

    /// The subresource of `nodes` that one must be allowed to use.
    pub fn subresource(&self) -> &'static str {
        match self {
            Self::Summary => "stats",
            Self::Metrics | Self::ResourceMetrics | Self::CadvisorMetrics | Self::ProbeMetrics => "metrics",
            Self::Configz => "configz",
            Self::Checkpoint(_) => "checkpoint",
            Self::Healthz => "healthz",
            Self::Pods | Self::RunningPods => "pods",
            Self::Logs { .. } | Self::Exec(_) | Self::Attach(_) | Self::PortForward { .. } | Self::LocalVolume(_) => {
                "proxy"
            }
        }
    }

    pub fn allows(&self, method: &Method) -> bool {
        match self {
            Self::Exec(_) | Self::Attach(_) | Self::PortForward { .. } => matches!(*method, Method::GET | Method::POST),
            Self::Checkpoint(_) => *method == Method::POST,
            Self::LocalVolume(_) => matches!(*method, Method::PUT | Method::DELETE),
            _ => super::reads(method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_routes() {
        assert_eq!(Route::of("/healthz"), Some(Route::Healthz));
        assert_eq!(Route::of("/runningpods/"), Some(Route::RunningPods));
        assert_eq!(
            Route::of("/containerLogs/default/p%2Dq/c"),
            Some(Route::Logs { namespace: "default".into(), pod: "p-q".into(), container: "c".into() })
        );
        let place = Place { namespace: "n".into(), pod: "p".into(), uid: "u".into(), container: "c".into() };
        assert_eq!(Route::of("/exec/n/p/u/c"), Some(Route::Exec(place)));
        for unknown in ["/", "/exec", "/exec/a/b", "/containerLogs/a/b/c/d", "/logs/", "/run/a/b/c"] {
            assert_eq!(Route::of(unknown), None, "{unknown}");
        }
    }
}
