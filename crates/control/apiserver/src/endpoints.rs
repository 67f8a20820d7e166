//! Keeps the endpoints of the service `default/kubernetes` equal to the servers that there are.
//!
//! Each server announces itself under a lease, and all of them write the endpoints when one comes or goes; whoever is
//! first wins, and the others find nothing to do. Source: `pkg/controlplane/reconcilers/lease.go` of Kubernetes.

use crate::bootstrap::{keep, object};
use crate::server::Server;
use pintle_registry::presence::Presence;
use pintle_types::Status;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After a failure, before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts to write what other servers write at the same time.
const ATTEMPTS: usize = 5;

/// Writes the endpoints with this server among them, and keeps them until `stop`.
pub(crate) async fn start(server: &Arc<Server>, stop: &CancellationToken) -> Result<(), Status> {
    // A server without a port, such as one that is asked in process only, is nobody's endpoint.
    if server.port() == 0 {
        return Ok(());
    }
    let own = server.config.advertise_address;
    let (mut servers, _) = server.registry.servers().await?;
    servers.insert(own);
    settle(server, &servers).await?;
    let keeper = Keeper { server: server.clone(), own, presence: None };
    server.tasks.spawn(keeper.run(stop.clone()));
    Ok(())
}

/// This server's part in keeping the endpoints.
struct Keeper {
    server: Arc<Server>,
    own: IpAddr,
    presence: Option<Presence>,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        let follow = async {
            loop {
                let Err(status) = self.follow().await;
                tracing::warn!(error = %status, "keeping the endpoints of the API servers: trying again");
                tokio::time::sleep(PAUSE).await;
            }
        };
        // Stopping is the only way out.
        let _ = stop.run_until_cancelled(follow).await;
        if let Err(status) = self.leave().await {
            tracing::warn!(error = %status, "this server stays among the endpoints for a moment");
        }
    }

    /// Renews the announcement in time, and writes the endpoints when a server comes or goes, or somebody changed them.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Status> {
        let ttl = self.server.config.endpoint_ttl_seconds;
        let presence = match &mut self.presence {
            Some(presence) => presence,
            none => none.insert(self.server.registry.announce(self.own, ttl).await?),
        };
        loop {
            presence.renew().await?;
            let (servers, mut watch) = self.server.registry.servers().await?;
            if !servers.contains(&self.own) {
                presence.restore().await?;
                continue;
            }
            settle(&self.server, &servers).await?;
            loop {
                tokio::select! {
                    changed = watch.changed() => break changed?,
                    () = tokio::time::sleep(Duration::from_secs(ttl) * 2 / 3) => {}
                }
                presence.renew().await?;
                settle(&self.server, &servers).await?;
            }
        }
    }

    /// Takes this server out. The last one stays: without any, clients could not tell a pause from the end.
    async fn leave(&mut self) -> Result<(), Status> {
        if let Some(presence) = self.presence.take() {
            presence.withdraw().await?;
        }
        let (mut servers, _) = self.server.registry.servers().await?;
        servers.remove(&self.own);
        if servers.is_empty() { Ok(()) } else { settle(&self.server, &servers).await }
    }
}

/// Writes the endpoints where they differ.
async fn settle(server: &Server, servers: &BTreeSet<IpAddr>) -> Result<(), Status> {
    for object in objects(servers, server.config.advertise_address, server.port()) {
        let mut left = ATTEMPTS;
        loop {
            match keep(server, object.clone()).await {
                // Another server wrote it this moment, most likely the same.
                Err(status) if status.code == 409 && left > 1 => left -= 1,
                other => break other?,
            }
        }
    }
    Ok(())
}

/// The Endpoints and the EndpointSlice. A slice is of one family: that of the server that writes it.
fn objects(servers: &BTreeSet<IpAddr>, own: IpAddr, port: u16) -> [Value; 2] {
    let port = json!({"name": "https", "port": port, "protocol": "TCP"});
    let mut endpoints = object("v1", "Endpoints", "default", "kubernetes");
    endpoints["metadata"]["labels"] = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let addresses: Vec<Value> = servers.iter().map(|address| json!({"ip": address.to_string()})).collect();
    endpoints["subsets"] = json!([{"addresses": addresses, "ports": [port]}]);
    let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", "default", "kubernetes");
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "kubernetes"});
    slice["addressType"] = if own.is_ipv4() { "IPv4" } else { "IPv6" }.into();
    let family = servers.iter().filter(|address| address.is_ipv4() == own.is_ipv4());
    slice["endpoints"] =
        family.map(|address| json!({"addresses": [address.to_string()], "conditions": {"ready": true}})).collect();
    slice["ports"] = json!([port]);
    [endpoints, slice]
}
