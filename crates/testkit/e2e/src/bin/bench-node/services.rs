//! A thousand Services with ten endpoints each: how soon the kernel has their rules, what a change and a new connection
//! cost, next to the same rules in kube-proxy's layout.

use crate::Sizes;
use crate::connect::{Endpoints, shown};
use crate::peer;
use anyhow::{Context, Result, ensure};
use pintle_e2e::figures::{mebibytes, milliseconds, quantile, tell};
use pintle_e2e::{Cluster, Space, Spawned, memory, processor_time, until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub const ENDPOINTS: usize = 10;
/// The port of every endpoint.
pub const PORT: u16 = 8080;
/// Objects that one kubectl creates: fewer than its client lets through at once.
const CHUNK: usize = 250;
pub const CHANGES: usize = 20;
const LIMIT: Duration = Duration::from_secs(600);

/// The address of an endpoint by its number.
pub fn endpoint(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, (number / 250) as u8, (number % 250 + 1) as u8)
}

/// An address that the endpoints of a service have only after a change.
pub fn changed(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 200, (number + 1) as u8)
}

pub fn measure(sizes: &Sizes) -> Result<()> {
    ensure!(sizes.services * ENDPOINTS <= 250 * 200, "at most {} services", 250 * 200 / ENDPOINTS);
    through_the_server(sizes.services)?;
    peer::measure(sizes.services)
}

fn through_the_server(count: usize) -> Result<()> {
    let cluster = Cluster::start()?;
    let endpoints = Endpoints::of(&cluster.host)?;
    let space = cluster.space("services")?;
    let monitor = programmed(&cluster, &space, &endpoints, count)?;
    changes(&cluster, &space, &monitor)?;
    drop((monitor, space));
    cluster.finish()
}

fn service(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{number}")},
        "spec": {"ports": [{"port": 80, "targetPort": PORT}]}})
}

fn slice(number: usize) -> Value {
    let endpoints: Vec<Value> = (0..ENDPOINTS).map(|n| one(endpoint(number * ENDPOINTS + n))).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("s{number}"), "labels": {"kubernetes.io/service-name": format!("s{number}")}},
        "ports": [{"port": PORT, "protocol": "TCP"}], "endpoints": endpoints})
}

fn one(address: Ipv4Addr) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}})
}

fn create(space: &Space<'_>, objects: &[Value]) -> Result<()> {
    for chunk in objects.chunks(CHUNK) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": chunk}).to_string();
        space.ok_with(&["create", "--validate=false", "-f", "-"], &list)?;
    }
    Ok(())
}

/// How many service addresses the kernel leads to endpoints.
fn led(cluster: &Cluster) -> Result<usize> {
    let listed = cluster.host.run(&["nft", "list", "map", "ip", "pintle_proxy", "services"])?.ok()?;
    Ok(listed.matches("goto").count())
}

/// Creates the services and then their endpoints; returns what hears of the kernel's changes.
fn programmed(cluster: &Cluster, space: &Space<'_>, endpoints: &Endpoints, count: usize) -> Result<Spawned> {
    let pid = cluster.server_pid()?;
    let alone = led(cluster)?;
    create(space, &[service(0), slice(0)])?;
    until("the first service leads somewhere", LIMIT, || Ok((led(cluster)? == alone + 1).then_some(())))?;
    let first = address(space)?;
    let with_one = endpoints.connections(first)?;
    let (before, used) = (memory(pid)?, processor_time(pid)?);
    create(space, &(1..count).map(service).collect::<Vec<_>>())?;
    let begun = Instant::now();
    create(space, &(1..count).map(slice).collect::<Vec<_>>())?;
    let written = Instant::now();
    until("all services lead somewhere", LIMIT, || Ok((led(cluster)? == alone + count).then_some(())))?;
    let programmed = Instant::now();
    let used = processor_time(pid)? - used;
    tell(&format!("EndpointSlices of {count} services, written by kubectl"), milliseconds(written - begun));
    tell("from the last write until the kernel has all, asked every 0.1 s", milliseconds(programmed - written));
    tell("processor time of the server for each service, API and store too", milliseconds(used / count as u32));
    let after = memory(pid)?;
    let each = after.saturating_sub(before) as f64 / 1024.0 / count as f64;
    tell("memory of the server before and after (PSS)", format!("{} {}", mebibytes(before), mebibytes(after)));
    tell("for each service with its slice", format!("{each:.1} KiB"));
    tell("new connection through 1 service, p50 and p99", shown(&with_one));
    let with_all = endpoints.connections(first)?;
    tell(&format!("through {count} services"), shown(&with_all));
    let mut command = cluster.host.command("nft");
    command.arg("monitor");
    Spawned::start(command)
}

fn address(space: &Space<'_>) -> Result<SocketAddr> {
    let service = space.json(&["service/s0"])?;
    let address = service["spec"]["clusterIP"].as_str().context("a cluster address")?;
    Ok(format!("{address}:80").parse()?)
}

/// Changes an endpoint of a service, again and again: from the request until the kernel tells of it.
fn changes(cluster: &Cluster, space: &Space<'_>, monitor: &Spawned) -> Result<()> {
    let socket = cluster.path("proxy.sock");
    let through = format!("--unix-socket={}", socket.display());
    let proxy = Spawned::start(cluster.kubectl_command(&space.kubectl, &["proxy", &through]))?;
    proxy.expect("Starting to serve", Duration::from_secs(30))?;
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/s0", space.name);
    let mut took = Vec::new();
    // The first one makes sure that the monitor listens by then.
    for n in 0..=CHANGES {
        let mut endpoints: Vec<Value> = (1..ENDPOINTS).map(|n| one(endpoint(n))).collect();
        endpoints.push(one(changed(n)));
        let begun = Instant::now();
        patch(&socket, &path, &json!({"endpoints": endpoints}))?;
        if n == 0 {
            heard(cluster, monitor)?;
            continue;
        }
        monitor.expect(&changed(n).to_string(), Duration::from_secs(30))?;
        took.push(begun.elapsed());
    }
    let of = |share| milliseconds(quantile(&took, share));
    tell(
        "one endpoint changed, from the request until the kernel has it, p50 and p99",
        format!("{} {}", of(0.5), of(0.99)),
    );
    Ok(())
}

/// Waits until the monitor tells of what changes in the kernel.
fn heard(cluster: &Cluster, monitor: &Spawned) -> Result<()> {
    until("nft monitor tells of changes", LIMIT, || {
        cluster.host.run(&["nft", "add", "table", "ip", "bench-heard"])?.ok()?;
        cluster.host.run(&["nft", "delete", "table", "ip", "bench-heard"])?.ok()?;
        Ok(monitor.output().contains("bench-heard").then_some(()))
    })
}

fn patch(socket: &Path, path: &str, body: &Value) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let body = body.to_string();
    write!(
        stream,
        "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/merge-patch+json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "PATCH {path}: {answer}");
    Ok(())
}
