//! A network as the Engine API shows it.

use super::records::{Joined, Network};
use super::{Inner, Ipam, IpamRange};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Who is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// The container's name.
    pub name: String,
    pub endpoint_id: String,
    pub mac: String,
    /// With the prefix; empty without.
    pub ipv4: String,
    pub ipv6: String,
}

/// A network and who is connected to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkView {
    pub name: String,
    pub id: String,
    /// Nanoseconds since the epoch.
    pub created: i64,
    pub driver: String,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ipam: Ipam,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// By the container's id.
    pub endpoints: BTreeMap<String, EndpointView>,
}

pub(super) fn of(inner: &Inner, id: &str) -> Option<NetworkView> {
    let network = &inner.networks.get(id)?.network;
    let members = inner.members.values();
    let connected = members.flat_map(|m| m.joined.iter().filter(|j| j.network == id).map(move |j| (m, j)));
    let endpoints = connected.map(|(m, j)| (m.container.clone(), endpoint(&m.name, j))).collect();
    Some(NetworkView {
        name: network.name.clone(),
        id: network.id.clone(),
        created: network.created,
        driver: network.driver.clone(),
        ipv4: network.ipv4,
        ipv6: network.ipv6,
        internal: network.internal,
        attachable: network.attachable,
        ipam: ipam(network),
        options: network.options.clone(),
        labels: network.labels.clone(),
        endpoints,
    })
}

/// What events say of a network.
pub(super) fn attributes(name: &str, driver: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), name.to_owned()), ("type".to_owned(), driver.to_owned())])
}

fn endpoint(name: &str, joined: &Joined) -> EndpointView {
    let text = |net: &Option<ipnet::IpNet>| net.map(|n| n.to_string()).unwrap_or_default();
    EndpointView {
        name: name.to_owned(),
        endpoint_id: joined.endpoint_id.clone(),
        mac: joined.mac.clone(),
        ipv4: text(&joined.v4),
        ipv6: text(&joined.v6),
    }
}

fn ipam(network: &Network) -> Ipam {
    let ranges = network.pools.iter().map(|pool| IpamRange {
        subnet: pool.subnet.to_string(),
        ip_range: pool.part.map(|p| p.to_string()).unwrap_or_default(),
        gateway: pool.gateway.to_string(),
        auxiliary: (!pool.auxiliary.is_empty())
            .then(|| pool.auxiliary.iter().map(|(name, a)| (name.clone(), a.to_string())).collect()),
    });
    let ranges: Vec<IpamRange> = ranges.collect();
    let config = (!ranges.is_empty() || network.driver == "bridge").then_some(ranges);
    Ipam { driver: network.ipam_driver.clone(), options: network.ipam_options.clone(), config }
}

impl NetworkView {
    /// The JSON of `docker network inspect`; a list leaves the containers out.
    pub fn to_json(&self, with_containers: bool) -> Value {
        let created = jiff::Timestamp::from_nanosecond(i128::from(self.created)).unwrap_or_default().to_string();
        let mut shown = json!({
            "Name": self.name,
            "Id": self.id,
            "Created": created,
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv4": self.ipv4,
            "EnableIPv6": self.ipv6,
            "IPAM": self.ipam,
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": false,
            "ConfigFrom": { "Network": "" },
            "ConfigOnly": false,
            "Containers": {},
            "Options": self.options,
            "Labels": self.labels,
        });
        if with_containers {
            shown["Containers"] =
                Value::Object(self.endpoints.iter().map(|(id, e)| (id.clone(), e.to_json())).collect());
        }
        shown
    }

    /// What events say of it.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        attributes(&self.name, &self.driver)
    }
}

impl EndpointView {
    fn to_json(&self) -> Value {
        let fields = [
            ("Name", &self.name),
            ("EndpointID", &self.endpoint_id),
            ("MacAddress", &self.mac),
            ("IPv4Address", &self.ipv4),
            ("IPv6Address", &self.ipv6),
        ];
        Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>())
    }
}
