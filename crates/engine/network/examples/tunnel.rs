//! Makes the current network namespace a node of a cluster with WireGuard between its nodes, or shows its link.
//!
//! `tunnel up KEY_FILE NODE_IP OWN CLUSTER [KEY ENDPOINT SUBNETS]…` prints the node's public key; `tunnel show` prints
//! the link as `wg show` does; ranges are lists with commas.
#![allow(clippy::print_stdout, reason = "a command whose output is its purpose")]

use ipnet::IpNet;
use pintle_netlink::wireguard::WireGuard;
use pintle_network::{Backend, PeerNode, Peers, PeersConfig, TunnelConfig, TunnelEnd};
use std::error::Error;
use std::net::IpAddr;

const PREFIX: &str = "pintle0";
const PORT: u16 = 51820;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["up", key_file, node, own, cluster, peers @ ..] => up(key_file, node.parse()?, own, cluster, peers),
        ["show"] => show(),
        _ => Err("usage: tunnel up KEY_FILE NODE_IP OWN CLUSTER [KEY ENDPOINT SUBNETS]… | tunnel show".into()),
    }
}

fn nets(list: &str) -> Result<Vec<IpNet>, ipnet::AddrParseError> {
    list.split(',').map(str::parse).collect()
}

fn up(key_file: &str, node: IpAddr, own: &str, cluster: &str, others: &[&str]) -> Result<(), Box<dyn Error>> {
    let device_prefix = PREFIX.to_owned();
    let config = TunnelConfig { device_prefix: device_prefix.clone(), key_file: key_file.into(), port: PORT, node };
    println!("{}", TunnelEnd::open(&config)?.key);
    let (own, cluster) = (nets(own)?, nets(cluster)?);
    let config = PeersConfig { backend: Backend::Wireguard, device_prefix, cluster, own, node: vec![node] };
    let peers = Peers::open(config)?;
    for other in others.chunks_exact(3) {
        let tunnel = TunnelEnd { key: other[0].parse()?, endpoint: other[1].parse()? };
        let subnets = nets(other[2])?;
        peers.set(&PeerNode { subnets: &subnets, addresses: &[tunnel.endpoint.ip()], tunnel: Some(tunnel) })?;
    }
    Ok(peers.retain()?)
}

fn show() -> Result<(), Box<dyn Error>> {
    let device = WireGuard::open()?.get(&format!("{PREFIX}-wg"))?;
    println!("interface: {}", device.name);
    println!("  public key: {}", device.key.map_or_else(|| "(none)".into(), |key| key.to_string()));
    println!("  listening port: {}", device.port);
    for peer in device.peers {
        println!("\npeer: {}", peer.key);
        println!("  endpoint: {}", peer.endpoint.map_or_else(|| "(none)".into(), |endpoint| endpoint.to_string()));
        println!("  allowed ips: {}", peer.allowed.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", "));
        println!("  handshake: {}", if peer.last_handshake.is_some() { "yes" } else { "none yet" });
        println!("  transfer: {} bytes received, {} bytes sent", peer.received_bytes, peer.sent_bytes);
    }
    Ok(())
}
