//! `--link` on the default network: lines of hosts and variables for containers that run there. Networks that people made
//! resolve the names of links instead.

use super::record::Record;
use super::{Container, is_default};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use crate::model::HostConfig;
use std::sync::Arc;

/// The most containers that share the network of one another.
const MAX_HOPS: usize = 16;

/// The container and the name of `NAME[:ALIAS]`.
pub(crate) fn parse(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    // Compose writes paths, whose last part counts.
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

impl Daemon {
    /// Refuses links to containers that are not there or that can't be linked to.
    pub(super) fn check_links(&self, host: &HostConfig) -> Result<()> {
        if !is_default(&host.network_mode) {
            return Ok(());
        }
        for link in host.links.iter().flatten() {
            let mut other = self.linked_container(parse(link).0)?;
            for _ in 0..MAX_HOPS {
                let mode = other.look(|r| r.host.network_mode.clone());
                let Some(next) = mode.strip_prefix("container:") else { break };
                other = self.linked_container(next)?;
            }
            if other.look(|r| r.host.network_mode == "host") {
                return Err(DockerError::invalid(
                    "conflicting options: host type networking can't be used with links. This would result in undefined \
                     behavior",
                ));
            }
        }
        Ok(())
    }

    /// Its absence is the request's fault: by "not found" a client would think that the image is missing.
    fn linked_container(&self, name: &str) -> Result<Arc<Container>> {
        let missing = |e: DockerError| {
            let status = if e.status == 404 { 400 } else { e.status };
            DockerError::new(status, format!("could not get container for {name}: {e}"))
        };
        self.container(name).map_err(missing)
    }

    /// The links of the default network as they are told: whole names, by which the linked containers now go.
    pub(super) fn told_links(&self, record: &Record) -> Option<Vec<String>> {
        let links = record.host.links.as_ref()?;
        if !is_default(&record.host.network_mode) {
            return Some(links.clone());
        }
        let told = links.iter().filter_map(|link| {
            let (name, alias) = parse(link);
            let other = self.container(name).ok()?;
            Some(format!("/{}:/{}/{alias}", other.name(), record.name))
        });
        Some(told.collect())
    }

    /// The lines of hosts.
    pub(super) fn link_hosts(&self, record: &Record) -> Vec<(String, String)> {
        let links = record.host.links.iter().flatten().filter(|_| is_default(&record.host.network_mode));
        let line = |link: &String| {
            let (name, alias) = parse(link);
            let other = self.container(name).ok()?;
            let address = address(&other);
            let short = other.id.get(..12).unwrap_or(&other.id);
            let names = format!("{alias} {short} {}", other.name());
            (!address.is_empty()).then_some((address, names))
        };
        links.filter_map(line).collect()
    }

    /// The variables that tell of the linked containers.
    ///
    /// # Errors
    /// When one of them does not run, or not on that network.
    pub(super) fn link_variables(&self, record: &Record) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        let links = record.host.links.iter().flatten().filter(|_| is_default(&record.host.network_mode));
        for link in links {
            let (name, alias) = parse(link);
            let other = self.linked_container(name)?;
            let (own, whole) = (other.name(), format!("/{}/{alias}", record.name));
            if !other.status().is_running() {
                return Err(DockerError::internal(format!(
                    "Cannot link to a non running container: /{own} AS {whole}"
                )));
            }
            let address = address(&other);
            if address.is_empty() {
                let message = format!("container {} not attached to default bridge network", other.id);
                return Err(DockerError::internal(message));
            }
            other.look(|r| variables(&mut all, &whole, alias, &address, r));
        }
        Ok(all)
    }
}

fn address(other: &Container) -> String {
    other.look(|r| r.networks.get("bridge").map(|s| s.ip_address.clone())).unwrap_or_default()
}

/// What one link brings: its ports, those of TCP first, its name, and the variables of the other container.
fn variables(all: &mut Vec<(String, String)>, whole: &str, alias: &str, address: &str, other: &Record) {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut add = |name: String, value: String| all.push((format!("{prefix}_{name}"), value));
    let mut ports: Vec<(&str, u16)> = Vec::new();
    for (port, _) in other.config.exposed_ports.iter().flatten() {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        ports.extend(number.parse().ok().map(|number| (protocol, number)));
    }
    ports.sort_by_key(|(protocol, number)| (*protocol != "tcp", *protocol, *number));
    let url = |(protocol, number): (&str, u16)| format!("{protocol}://{address}:{number}");
    if let Some(first) = ports.first() {
        add("PORT".to_owned(), url(*first));
    }
    let key = |(protocol, number): (&str, u16)| format!("PORT_{number}_{}", protocol.to_uppercase());
    for port in &ports {
        let key = key(*port);
        add(key.clone(), url(*port));
        add(format!("{key}_ADDR"), address.to_owned());
        add(format!("{key}_PORT"), port.1.to_string());
        add(format!("{key}_PROTO"), port.0.to_owned());
    }
    let adjacent = |a: &(&str, u16), b: &(&str, u16)| a.0 == b.0 && a.1.checked_add(1) == Some(b.1);
    for range in ports.chunk_by(adjacent).filter(|range| range.len() > 1) {
        let (first, last) = (range[0], range[range.len() - 1]);
        let key = key(first);
        add(format!("{key}_START"), url(first));
        add(format!("{key}_PORT_START"), first.1.to_string());
        add(format!("{key}_END"), url(last));
        add(format!("{key}_PORT_END"), last.1.to_string());
    }
    add("NAME".to_owned(), whole.to_owned());
    let given = other.config.env.iter().flatten().filter_map(|variable| variable.split_once('='));
    for (name, value) in given.filter(|(name, _)| !matches!(*name, "HOME" | "PATH")) {
        add(format!("ENV_{name}"), value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Config;

    #[test]
    fn links_are_taken_apart() {
        assert_eq!(parse("db"), ("db", "db"));
        assert_eq!(parse("/db:/web/sql-db"), ("db", "sql-db"));
    }

    #[test]
    fn variables_tell_of_ports_and_ranges() {
        let exposed = ["5432/tcp", "5433/tcp", "53/udp"].map(|port| (port.to_owned(), Default::default()));
        let config = Config {
            exposed_ports: Some(exposed.into_iter().collect()),
            env: Some(vec!["A=b".to_owned(), "PATH=/bin".to_owned()]),
            ..Config::default()
        };
        let mut all = Vec::new();
        variables(&mut all, "/web/my-db", "my-db", "172.17.0.2", &Record { config, ..Record::default() });
        let text: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text[0], "MY_DB_PORT=tcp://172.17.0.2:5432");
        for line in [
            "MY_DB_PORT_5433_TCP_PROTO=tcp",
            "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
            "MY_DB_PORT_5432_TCP_PORT_END=5433",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_A=b",
        ] {
            assert!(text.iter().any(|t| t == line), "{line}: {text:?}");
        }
        assert!(!text.iter().any(|t| t.contains("ENV_PATH") || t.contains("53_UDP_START")), "{text:?}");
    }
}
