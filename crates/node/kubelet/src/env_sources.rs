//! Collects a container's environment from everywhere that its spec names.
//!
//! Source: `makeEnvironmentVariables` of `pkg/kubelet`: services first, over them `envFrom`, over them `env`, each
//! value expanded with what was defined before it.

use crate::api::{Api, ApiError};
use crate::env::expand;
use crate::field_ref::{FieldError, field, resource};
use crate::host::Settings;
use crate::reference::spec;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An environment that can't be made; the container waits with `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { kind: &'static str, namespace: String, name: String, key: String },
    #[error("{0}")]
    Field(#[from] FieldError),
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

/// Where an environment is made from.
pub struct Sources<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub api: &'a dyn Api,
    pub ips: &'a [String],
    pub settings: &'a Settings,
}

type Env = Vec<(String, String)>;

impl Sources<'_> {
    /// The whole environment, each name once.
    pub async fn environment(&self) -> Result<Env, EnvError> {
        let mut services = self.services();
        let mut from = BTreeMap::new();
        for source in self.container.env_from.iter().flatten() {
            self.add_all(source, &mut from).await?;
        }
        let mut known = from.clone();
        let mut env: Env = Vec::new();
        for variable in self.container.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) if !value.is_empty() => {
                    expand(value, |n| known.get(n).or_else(|| services.get(n)).map(String::as_str))
                }
                (_, Some(source)) => match self.value_from(source).await? {
                    Some(value) => value,
                    None => continue,
                },
                _ => String::new(),
            };
            known.insert(variable.name.clone(), value.clone());
            env.retain(|(name, _)| *name != variable.name);
            env.push((variable.name.clone(), value));
        }
        for (name, _) in &env {
            from.remove(name);
            services.remove(name);
        }
        services.retain(|name, _| !from.contains_key(name));
        env.extend(from);
        env.extend(services);
        Ok(env)
    }

    async fn add_all(&self, source: &EnvFromSource, env: &mut BTreeMap<String, String>) -> Result<(), EnvError> {
        let namespace = self.pod.namespace();
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut add = |key: &str, value: String| {
            env.insert(format!("{prefix}{key}"), value);
        };
        if let Some(reference) = &source.config_map_ref {
            let found = optional(self.api.config_map(namespace, &reference.name).await, reference.optional)?;
            for (key, value) in found.iter().flat_map(|m| m.data.iter().flatten()) {
                add(key, value.clone());
            }
        }
        if let Some(reference) = &source.secret_ref {
            let found = optional(self.api.secret(namespace, &reference.name).await, reference.optional)?;
            for (key, value) in found.iter().flat_map(|s| s.data.iter().flatten()) {
                add(key, String::from_utf8_lossy(&value.0).into_owned());
            }
        }
        Ok(())
    }

    /// The value of one reference; nothing when it is optional and absent.
    async fn value_from(&self, source: &EnvVarSource) -> Result<Option<String>, EnvError> {
        let namespace = self.pod.namespace();
        if let Some(reference) = &source.field_ref {
            return Ok(Some(field(self.pod, &reference.field_path, self.ips, self.settings)?));
        }
        if let Some(reference) = &source.resource_field_ref {
            return Ok(Some(resource(self.pod, reference, Some(self.container), self.settings)?));
        }
        if let Some(reference) = &source.config_map_key_ref {
            let found = optional(self.api.config_map(namespace, &reference.name).await, reference.optional)?;
            let Some(map) = found else { return Ok(None) };
            let value = map.data.as_ref().and_then(|d| d.get(&reference.key)).cloned();
            return present(value, reference.optional, "ConfigMap", namespace, &reference.name, &reference.key);
        }
        if let Some(reference) = &source.secret_key_ref {
            let found = optional(self.api.secret(namespace, &reference.name).await, reference.optional)?;
            let Some(secret) = found else { return Ok(None) };
            let value = secret.data.as_ref().and_then(|d| d.get(&reference.key));
            let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
            return present(value, reference.optional, "Secret", namespace, &reference.name, &reference.key);
        }
        Err(EnvError::Unsupported(if source.file_key_ref.is_some() { "fileKeyRef" } else { "an empty valueFrom" }))
    }

    /// Variables that tell the addresses of services: those of the namespace, and always `kubernetes`.
    fn services(&self) -> BTreeMap<String, String> {
        let mut list: Vec<Arc<Service>> = Vec::new();
        if self.pod.namespace() != "default" || spec(self.pod).enable_service_links == Some(false) {
            list.extend(self.api.services("default").into_iter().filter(|s| s.name() == "kubernetes"));
        }
        if spec(self.pod).enable_service_links != Some(false) {
            list.extend(self.api.services(self.pod.namespace()));
        }
        list.iter().flat_map(|service| service_variables(service)).collect()
    }
}

fn optional<T>(result: Result<T, ApiError>, optional: Option<bool>) -> Result<Option<T>, EnvError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(ApiError::NotFound(_)) if optional == Some(true) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn present(
    value: Option<String>,
    optional: Option<bool>,
    kind: &'static str,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, EnvError> {
    match value {
        None if optional != Some(true) => {
            Err(EnvError::Key { kind, namespace: namespace.into(), name: name.into(), key: key.into() })
        }
        found => Ok(found),
    }
}

/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, and the forms that container links had.
fn service_variables(service: &Service) -> Env {
    let Some(spec) = &service.spec else { return vec![] };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ip.is_empty() || ip == "None" || ports.is_empty() {
        return vec![];
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.name());
    let url = |protocol: &str, port: i32| format!("{}://{host}:{port}", protocol.to_lowercase());
    let protocol =
        |p: &pintle_types::k8s::api::core::v1::ServicePort| p.protocol.clone().unwrap_or_else(|| "TCP".into());
    let mut env = vec![
        (format!("{name}_SERVICE_HOST"), ip.to_owned()),
        (format!("{name}_SERVICE_PORT"), ports[0].port.to_string()),
        (format!("{name}_PORT"), url(&protocol(&ports[0]), ports[0].port)),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            env.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
        let kind = protocol(port);
        let prefix = format!("{name}_PORT_{}_{}", port.port, kind.to_uppercase());
        env.push((prefix.clone(), url(&kind, port.port)));
        env.push((format!("{prefix}_PROTO"), kind.to_lowercase()));
        env.push((format!("{prefix}_PORT"), port.port.to_string()));
        env.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    env
}
