//! An APIService as it is used: what it names, how far its server is trusted, whether it is available.

use base64::Engine;
use serde_json::{Value, json};

/// The service of the cluster that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRef {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

impl ServiceRef {
    /// The name in the server's certificate: `NAME.NAMESPACE.svc`.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// What an APIService says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// `VERSION.GROUP`
    pub name: String,
    pub group: String,
    pub version: String,
    /// None: this server answers itself.
    pub service: Option<ServiceRef>,
    /// PEM; empty: what the machine trusts.
    pub ca_bundle: Vec<u8>,
    pub insecure: bool,
    pub group_priority: i32,
    pub version_priority: i32,
}

impl Spec {
    /// Reads an APIService (`apiregistration.k8s.io/v1`).
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |field: &str| spec[field].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
        let service = &spec["service"];
        let bundle = spec["caBundle"].as_str().unwrap_or_default();
        Self {
            name: text(&object["metadata"]["name"]),
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            service: service.is_object().then(|| ServiceRef {
                namespace: text(&service["namespace"]),
                name: text(&service["name"]),
                port: service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            }),
            // Validation has seen that it is base64.
            ca_bundle: base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default(),
            insecure: spec["insecureSkipTLSVerify"] == true,
            group_priority: number("groupPriorityMinimum"),
            version_priority: number("versionPriority"),
        }
    }

    /// The path of the discovery of its version, which its server must answer.
    pub fn discovery_path(&self) -> String {
        match self.group.is_empty() {
            true => format!("/api/{}", self.version),
            false => format!("/apis/{}/{}", self.group, self.version),
        }
    }
}

/// The condition of an APIService that this server answers itself; the caller adds the time.
pub fn local_condition() -> Value {
    json!({
        "type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read() {
        let spec = Spec::read(&json!({"metadata": {"name": "v1.a.io"}, "spec": {
            "group": "a.io", "version": "v1", "caBundle": "YWI=", "groupPriorityMinimum": 100, "versionPriority": 7,
            "service": {"namespace": "n", "name": "s"},
        }}));
        assert_eq!((spec.ca_bundle.as_slice(), spec.group_priority, spec.version_priority), (b"ab".as_slice(), 100, 7));
        let service = spec.service.as_ref().unwrap();
        assert_eq!((service.port, service.host().as_str()), (443, "s.n.svc"));
        assert_eq!(spec.discovery_path(), "/apis/a.io/v1");
        assert!(Spec::read(&json!({})).service.is_none());
    }
}
