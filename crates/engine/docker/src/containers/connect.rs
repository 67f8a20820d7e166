//! Joins a container to its networks when it starts, and leaves them when it ends.

use super::record::Record;
use super::{Container, files};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::model::{EndpointSettings, PortBinding};
use crate::networks::{Attach, Attached, PortRequest, Publication, port_requests};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const HOST_GATEWAY: &str = "host-gateway";

impl Daemon {
    /// Refuses what cannot be asked of networks that exist: a container can be made before its networks are.
    pub(crate) fn check_endpoints(&self, networks: &BTreeMap<String, EndpointSettings>) -> Result<()> {
        for (name, settings) in networks {
            match self.networks.check_settings(name, settings) {
                Err(error) if error.status != 404 => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses networks that do not exist, before anything is made.
    pub(crate) fn check_networks(&self, container: &Container) -> Result<()> {
        for (name, settings) in container.look(|r| r.networks.clone()) {
            self.networks.check_settings(&name, &settings).map_err(|error| match error.status {
                404 => DockerError::not_found(format!("failed to set up container networking: {}", error.message)),
                _ => error,
            })?;
        }
        Ok(())
    }

    /// Connects the network namespace of a sandbox that is about to run the container, and writes its files anew.
    pub(crate) async fn connect_networks(&self, container: &Container, sandbox_id: &str) -> Result<()> {
        let record = container.record();
        if record.host.network_mode.starts_with("container:") || record.config.network_disabled {
            return Ok(());
        }
        let netns = self.engine.netns_path(sandbox_id)?.unwrap_or_default();
        let wanted = Attach { netns, ..attach_of(&record)? };
        let networks = Arc::clone(&self.networks);
        let attached = tokio::task::spawn_blocking(move || networks.attach(&wanted)).await;
        let attached = attached.map_err(|e| DockerError::io("connect a container", e))?.map_err(|error| {
            if error.message.starts_with("failed to set up") || error.message.starts_with("invalid config") {
                return error;
            }
            DockerError::new(error.status, format!("failed to set up container networking: {}", error.message))
        })?;
        self.write_files(&record, &attached)?;
        let ports = shown_ports(&record, &attached.published);
        let told: Vec<String> = attached.networks.values().map(|s| s.network_id.clone()).collect();
        self.change(container, |r| {
            r.networks = attached.networks;
            r.ports = ports;
        })?;
        told.iter().for_each(|id| self.tell_of_network(id, "connect", &container.id));
        Ok(())
    }

    fn write_files(&self, record: &Record, attached: &Attached) -> Result<()> {
        let mut record = record.clone();
        let gateway = attached.host_gateway.map_or_else(|| "127.0.0.1".to_owned(), |a| a.to_string());
        for entry in record.host.extra_hosts.iter_mut().flatten() {
            if let Some(name) = entry.strip_suffix(HOST_GATEWAY) {
                *entry = format!("{name}{gateway}");
            }
        }
        let addresses = attached.addresses.clone();
        let names = files::Names { addresses, hosts: self.link_hosts(&record), resolver: attached.resolver };
        files::write(&self.containers.folder.of(&record.id), &record, &names).map(drop)
    }

    /// Takes back what `connect_networks` gave. Succeeds when nothing is there.
    pub(crate) async fn disconnect_networks(&self, container: &Container) {
        let (networks, id) = (Arc::clone(&self.networks), container.id.clone());
        let released = tokio::task::spawn_blocking(move || networks.release_all(&id)).await;
        if let Ok(Err(error)) = released {
            tracing::warn!(container = %container.id, %error, "a container's networks are not wholly taken back");
        }
        let left = container.look(|r| {
            let connected = r.networks.values().filter(|s| !s.endpoint_id.is_empty());
            connected.map(|s| s.network_id.clone()).collect::<Vec<_>>()
        });
        if left.is_empty() {
            return;
        }
        self.note(container, |r| {
            r.ports.clear();
            r.networks.values_mut().for_each(forget);
        });
        left.iter().for_each(|id| self.tell_of_network(id, "disconnect", &container.id));
    }

    /// Makes the record of a container that has run on and its connections agree: a connection that the last daemon had
    /// not finished making or undoing is none.
    pub(crate) fn settle_networks(&self, container: &Container) {
        let named: Vec<String> = container.look(|r| r.networks.values().map(|s| s.network_id.clone()).collect());
        let settled = self.networks.settle(&container.id, &named).and_then(|connected| {
            let gone = |s: &EndpointSettings| !s.endpoint_id.is_empty() && !connected.contains(&s.network_id);
            if !container.look(|r| r.networks.values().any(gone)) {
                return Ok(());
            }
            self.change(container, |r| r.networks.retain(|_, s| !gone(s)))?;
            self.rewrite_files(container)
        });
        if let Err(error) = settled {
            tracing::warn!(container = %container.id, %error, "the connections of a container are not settled");
        }
    }

    /// By the network's id.
    fn tell_of_network(&self, network: &str, action: &str, container: &str) {
        let Some(mut attributes) = self.networks.attributes(network) else { return };
        attributes.insert("container".to_owned(), container.to_owned());
        self.events.tell("network", action, network, attributes);
    }

    /// `docker network connect`
    ///
    /// # Errors
    /// 404 without the network or container, 403 where it cannot be or is already.
    pub async fn connect_network(&self, network: &str, wanted: &str, settings: EndpointSettings) -> Result<()> {
        let container = self.container(wanted)?;
        let view = self.networks.inspect(network)?;
        let record = container.record();
        check_mode(&record.host.network_mode, &view.driver)?;
        let _changing = container.changing.lock().await;
        if record.networks.contains_key(&view.name) || record.networks.values().any(|s| s.network_id == view.id) {
            let message = format!("endpoint with name {} already exists in network {}", record.name, view.name);
            return Err(DockerError::new(403, message));
        }
        self.networks.check_settings(network, &settings)?;
        if !container.status().is_running() {
            return self.change(&container, |r| drop(r.networks.insert(view.name.clone(), settings)));
        }
        let (networks, id, name) = (Arc::clone(&self.networks), container.id.clone(), view.name.clone());
        let (hostname, ports) = (record.config.hostname.clone(), ports_of(&record)?);
        let joined = tokio::task::spawn_blocking(move || networks.join(&id, &hostname, &name, &settings, &ports)).await;
        let filled = joined.map_err(|e| DockerError::io("connect a container", e))??;
        let published = self.networks.published(&container.id);
        self.change(&container, |r| {
            r.networks.insert(view.name.clone(), filled);
            r.ports = shown_ports(r, &published);
        })?;
        self.rewrite_files(&container)?;
        self.tell_of_network(&view.id, "connect", &container.id);
        Ok(())
    }

    /// The files of a container that runs, after its connections have changed.
    fn rewrite_files(&self, container: &Container) -> Result<()> {
        let record = container.record();
        let mut attached = Attached::default();
        for settings in record.networks.values() {
            let given = [&settings.ip_address, &settings.global_ipv6_address];
            attached.addresses.extend(given.into_iter().filter_map(|text| text.parse::<IpAddr>().ok()));
            attached.host_gateway = attached.host_gateway.or_else(|| settings.gateway.parse().ok());
            if settings.dns_names.is_some() {
                attached.resolver = Some(IpAddr::from([127, 0, 0, 11]));
            }
        }
        self.write_files(&record, &attached)
    }

    /// `docker network disconnect`
    ///
    /// # Errors
    /// 404 without the network or container, 403 where it is not connected.
    pub async fn disconnect_network(&self, network: &str, wanted: &str, force: bool) -> Result<()> {
        let view = self.networks.inspect(network)?;
        let container = match self.container(wanted) {
            Ok(container) => container,
            Err(error) if !force => return Err(error),
            // Somebody who is gone is not connected.
            Err(_) => {
                let message = format!("endpoint {wanted} not found");
                return Err(DockerError::not_found(message));
            }
        };
        if view.driver == "host" {
            let message = "container cannot be disconnected from host network or connected to host network";
            return Err(DockerError::new(403, message));
        }
        let _changing = container.changing.lock().await;
        let key = container.look(|r| {
            let mut all = r.networks.iter();
            all.find(|(name, s)| **name == view.name || s.network_id == view.id).map(|(name, _)| name.clone())
        });
        let Some(key) = key else {
            let message = format!("container {} is not connected to network {}", container.id, view.name);
            return Err(DockerError::new(403, message));
        };
        if container.status().is_running() {
            let (networks, id, name) = (Arc::clone(&self.networks), container.id.clone(), view.id.clone());
            let left = tokio::task::spawn_blocking(move || networks.leave(&id, &name)).await;
            left.map_err(|e| DockerError::io("disconnect a container", e))??;
        }
        let published = self.networks.published(&container.id);
        self.change(&container, |r| {
            r.networks.remove(&key);
            if r.state.status.is_running() {
                r.ports = shown_ports(r, &published);
            }
        })?;
        if container.status().is_running() {
            self.rewrite_files(&container)?;
            self.tell_of_network(&view.id, "disconnect", &container.id);
        }
        Ok(())
    }
}

fn check_mode(mode: &str, driver: &str) -> Result<()> {
    let message = if mode.starts_with("container:") {
        "container sharing network namespace with another container or host cannot be connected to any other network"
    } else if mode == "host" || driver == "host" {
        "container cannot be disconnected from host network or connected to host network"
    } else if mode == "none" || driver == "null" {
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    } else {
        return Ok(());
    };
    Err(DockerError::new(403, message))
}

fn attach_of(record: &Record) -> Result<Attach> {
    let first = &record.host.network_mode;
    let mut networks: Vec<_> = record.networks.iter().map(|(name, s)| (name.clone(), s.clone())).collect();
    networks.sort_by_key(|(name, _)| name != first);
    if let Some((_, settings)) = networks.first_mut()
        && settings.mac_address.is_empty()
    {
        settings.mac_address.clone_from(&record.config.mac_address);
    }
    Ok(Attach {
        container: record.id.clone(),
        name: record.name.clone(),
        hostname: record.config.hostname.clone(),
        networks,
        ports: ports_of(record)?,
        resolvers: record.host.dns.iter().flatten().filter_map(|text| text.parse().ok()).collect(),
        ..Attach::default()
    })
}

/// What is to be published.
fn ports_of(record: &Record) -> Result<Vec<PortRequest>> {
    let exposed = record.config.exposed_ports.iter().flatten().map(|(port, _)| port);
    port_requests(record.host.port_bindings.as_ref(), exposed, record.host.publish_all_ports)
}

/// Exposed ports with what they are published as.
fn shown_ports(record: &Record, published: &[Publication]) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let with_protocol = |port: &String| if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
    let exposed = record.config.exposed_ports.iter().flatten().map(|(port, _)| port);
    let asked = record.host.port_bindings.iter().flatten().map(|(port, _)| port);
    let mut all: BTreeMap<String, Option<Vec<PortBinding>>> =
        exposed.chain(asked).map(|port| (with_protocol(port), None)).collect();
    for publication in published {
        let binding =
            PortBinding { host_ip: publication.host_address.to_string(), host_port: publication.host_port.to_string() };
        let key = format!("{}/{}", publication.port, publication.protocol.name());
        all.entry(key).or_default().get_or_insert_default().push(binding);
    }
    all
}

/// What was asked for stays, what was given goes.
fn forget(settings: &mut EndpointSettings) {
    let mac = std::mem::take(&mut settings.mac_address);
    let own = settings.ip_address.parse::<std::net::Ipv4Addr>().map(|v4| {
        let [a, b, c, d] = v4.octets();
        format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    });
    *settings = EndpointSettings {
        ipam_config: settings.ipam_config.take(),
        links: settings.links.take(),
        aliases: settings.aliases.take(),
        driver_opts: settings.driver_opts.take(),
        gw_priority: settings.gw_priority,
        network_id: std::mem::take(&mut settings.network_id),
        mac_address: if own.is_ok_and(|own| own == mac) { String::new() } else { mac },
        ..EndpointSettings::default()
    };
}
