//! Where a service is reached from this machine: one of its endpoints, its address, or the name that it stands for.

use crate::availability::is_ready;
use crate::spec::ServiceRef;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Socket(SocketAddr),
    /// A name to be looked up, and the port.
    Name(String, u16),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Why a service leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("service {name:?} not found")]
    NoService { name: String },
    #[error("no service port {port} found for service {name:?}")]
    NoPort { name: String, port: u16 },
    #[error("no endpoints available for service {name:?}")]
    NoEndpoints { name: String },
}

/// Works out the address of a service. `slices` are those of the service; any ready endpoint of the port will do, so
/// `choice` (any number) spreads requests over them.
pub fn resolve(
    wanted: &ServiceRef,
    service: Option<&Value>,
    slices: &[Value],
    choice: usize,
) -> Result<Address, PlaceError> {
    let name = || wanted.name.clone();
    let service = service.ok_or_else(|| PlaceError::NoService { name: name() })?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        let external = spec["externalName"].as_str().unwrap_or_default().trim_end_matches('.');
        return Ok(Address::Name(external.to_owned(), wanted.port));
    }
    let mut ports = spec["ports"].as_array().into_iter().flatten();
    let port = ports.find(|p| p["port"].as_u64() == Some(u64::from(wanted.port)));
    let port = port.ok_or_else(|| PlaceError::NoPort { name: name(), port: wanted.port })?;
    let found = endpoints(slices, port["name"].as_str().unwrap_or_default());
    if !found.is_empty() {
        return Ok(Address::Socket(found[choice % found.len()]));
    }
    let address: Option<IpAddr> = spec["clusterIP"].as_str().and_then(|text| text.parse().ok());
    let address = address.ok_or_else(|| PlaceError::NoEndpoints { name: name() })?;
    Ok(Address::Socket(SocketAddr::new(address, wanted.port)))
}

fn endpoints(slices: &[Value], port_name: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let mut named = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
        let port = named.find_map(|port| u16::try_from(port["port"].as_u64()?).ok());
        let Some(port) = port else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten().filter(|e| is_ready(e)) {
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            let first = addresses.filter_map(|a| a.as_str()?.parse::<IpAddr>().ok()).next();
            found.extend(first.map(|address| SocketAddr::new(address, port)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_come_before_the_address_of_the_service() {
        let wanted = ServiceRef { namespace: "n".into(), name: "s".into(), port: 443 };
        let service = json!({"spec": {"clusterIP": "10.43.0.9", "ports": [{"name": "web", "port": 443}]}});
        let slice = json!({"ports": [{"name": "web", "port": 6443}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"]},
        ]});
        let at = |service: Option<&Value>, slices: &[Value]| match resolve(&wanted, service, slices, 7) {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(at(Some(&service), &[slice]), "10.0.0.2:6443");
        assert_eq!(at(Some(&service), &[]), "10.43.0.9:443");
        let external = json!({"spec": {"type": "ExternalName", "externalName": "a.example."}});
        assert_eq!(at(Some(&external), &[]), "a.example:443");
        let headless = json!({"spec": {"clusterIP": "None", "ports": [{"port": 443}]}});
        assert_eq!(at(Some(&headless), &[]), "no endpoints available for service \"s\"");
        assert_eq!(at(None, &[]), "service \"s\" not found");
    }
}
