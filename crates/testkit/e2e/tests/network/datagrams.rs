//! Datagrams between pods and to services, ports that serve two protocols, and how soon endpoints follow.

use crate::pods::{SOON, address, apply, datagram, everywhere, fetch, service, text};
use anyhow::{Context, Result, ensure};
use pintle_e2e::{Nodes, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Services that are made at once, and upstream's bound for half of them to have endpoints.
const MANY: usize = 100;
const BOUND: Duration = Duration::from_secs(20);

pub fn reach(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("datagrams")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let shells = (1..=3).map(|n| address(&space, &format!("shell-{n}"))).collect::<Result<Vec<_>>>()?;
        let host = &nodes.cluster.host;
        for n in 1..=3 {
            let (pod, web) = (format!("web-{n}"), address(&space, &format!("web-{n}"))?);
            for shell in &shells {
                until(&format!("{pod} answers {shell}"), SOON, || {
                    Ok(datagram(nodes, host, Some(shell), &web, 8080)
                        .is_ok_and(|said| said.contains(&pod))
                        .then_some(()))
                })?;
            }
        }
        let ports = json!([{"port": 80, "targetPort": 8080, "protocol": "UDP"}]);
        apply(
            &space,
            &service("web", json!({"type": "NodePort", "selector": {"number": "2", "app": "web"}, "ports": ports})),
        )?;
        let spec = space.json(&["service/web"])?["spec"].take();
        let node_port = spec["ports"][0]["nodePort"].as_u64().context("a node port")?;
        for (from, to, port) in [
            (Some(&shells[0]), text(&spec["clusterIP"]), 80),
            (Some(&shells[1]), text(&spec["clusterIP"]), 80),
            (None, host.address.to_owned(), node_port),
        ] {
            until(&format!("the service answers {from:?} at {to}"), SOON, || {
                let said = datagram(nodes, host, from.map(String::as_str), &to, port);
                Ok(said.is_ok_and(|said| said.contains("web-2")).then_some(()))
            })?;
        }
        Ok(())
    };
    check().with_context(|| space.describe())
}

pub fn two_protocols(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("protocols")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let ports = json!([{"name": "tcp", "port": 80, "targetPort": 8080},
            {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}]);
        apply(&space, &service("web", json!({"selector": {"number": "3", "app": "web"}, "ports": ports})))?;
        let slices = ["endpointslices", "-l", "kubernetes.io/service-name=web"];
        let both = |found: &Value| found["items"][0]["ports"].as_array().is_some_and(|ports| ports.len() == 2);
        space.until("the slice has both ports", &slices, SOON, both)?;
        let (host, cluster_ip) = (&nodes.cluster.host, text(&space.json(&["service/web"])?["spec"]["clusterIP"]));
        let answers = |tcp: bool, udp: bool| -> Result<()> {
            until(&format!("TCP answers: {tcp}, UDP answers: {udp}"), SOON, || {
                let by_tcp = fetch(host, &cluster_ip, 80).is_ok_and(|said| said.contains("web-3"));
                let by_udp = datagram(nodes, host, None, &cluster_ip, 80).is_ok_and(|said| said.contains("web-3"));
                Ok(((by_tcp, by_udp) == (tcp, udp)).then_some(()))
            })
        };
        answers(true, true)?;
        let only_udp = json!([{"op": "remove", "path": "/spec/ports/0"}]);
        space.ok(&["patch", "service/web", "--type=json", "-p", &only_udp.to_string()])?;
        answers(false, true)
    };
    check().with_context(|| space.describe())
}

/// All have endpoints within upstream's bound for half of them.
pub fn latency(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("latency")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let ports = json!([{"port": 80, "targetPort": 8080}]);
        let spec = json!({"selector": {"app": "web"}, "ports": ports});
        let services: Vec<Value> = (0..MANY).map(|n| service(&format!("web-{n}"), spec.clone())).collect();
        let begun = Instant::now();
        apply(&space, &json!({"apiVersion": "v1", "kind": "List", "items": services}))?;
        let complete = |found: &Value| {
            let items = found["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().filter(|slice| slice["endpoints"].as_array().is_some_and(|all| all.len() == 3)).count() >= MANY
        };
        space.until("all services have endpoints", &["endpointslices"], SOON, complete)?;
        let needed = begun.elapsed();
        ensure!(needed < BOUND, "{MANY} services had their endpoints only after {needed:?}");
        Ok(())
    };
    check().with_context(|| space.describe())
}
