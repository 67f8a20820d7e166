//! What a cluster of three nodes does for pods and services that have addresses of both families.

#[path = "network/pods.rs"]
mod pods;

use anyhow::{Context, Result, ensure};
use pintle_e2e::{DualNodes, Nodes, Space, suite_on, until};
use pods::{SOON, address, apply, datagram, everywhere, fetch, reaches, service, text};
use serde_json::{Value, json};
use std::process::ExitCode;

fn main() -> ExitCode {
    suite_on::<DualNodes>(&[
        ("pods of all nodes meet in both families", |dual| pods_meet(&dual.0)),
        ("services of both families lead to pods", |dual| services(&dual.0)),
        ("policies hold in both families", |dual| policies(&dual.0)),
        ("services take no addresses that are not theirs", |dual| external(&dual.0)),
    ])
}

/// The addresses of a pod, or of its node.
fn both(space: &Space<'_>, pod: &str, list: &str) -> Result<Vec<String>> {
    let pod = space.json(&[&format!("pod/{pod}")])?;
    Ok(pod["status"][list].as_array().into_iter().flatten().map(|one| text(&one["ip"])).collect())
}

fn six(space: &Space<'_>, pod: &str) -> Result<String> {
    both(space, pod, "podIPs")?.pop().context("a second address")
}

fn pods_meet(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("dualpods")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        for n in 1..=3 {
            let web = format!("web-{n}");
            let (pod, node) = (both(&space, &web, "podIPs")?, both(&space, &web, "hostIPs")?);
            ensure!(pod[0] == address(&space, &web)? && pod[0].starts_with("10.42.") && pod.len() == 2, "{pod:?}");
            ensure!(
                pod[1].starts_with("fd00:42:") && node.len() == 2 && node[1].starts_with("fd77::"),
                "{pod:?} {node:?}"
            );
            for shell in ["shell-1", "shell-2", "shell-3"] {
                reaches(&space, shell, &format!("http://[{}]:8080/", pod[1]), true)?;
            }
            let said = fetch(&nodes.cluster.host, &pod[1], 8080)?;
            ensure!(said.contains(&web), "{said}");
        }
        let sender = address(&space, "shell-1")?;
        let said = datagram(nodes, &nodes.cluster.host, Some(&sender), &six(&space, "web-3")?, 8080)?;
        ensure!(said.contains("web-3"), "{said}");
        let hosts = space.ok(&["exec", "shell-2", "--", "cat", "/etc/hosts"])?;
        for own in both(&space, "shell-2", "podIPs")? {
            ensure!(hosts.contains(&format!("{own}\tshell-2")), "{hosts}");
        }
        let ranges = &space.json(&["node/node-2"])?["spec"];
        ensure!(
            ranges["podCIDRs"].as_array().is_some_and(|all| all.len() == 2 && all[0] == ranges["podCIDR"]),
            "{ranges}"
        );
        told(&space)
    };
    check().with_context(|| space.describe())
}

/// A pod that is probed at an address of its own, and told both.
fn told(space: &Space<'_>) -> Result<()> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let container = json!({"name": "c", "image": "pintle/hello:v1",
        "env": [field("PODS", "status.podIPs"), field("HOSTS", "status.hostIPs")]});
    apply(
        space,
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "told"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}),
    )?;
    space.ok(&["wait", "--for=condition=Ready", "pod/told", "--timeout=60s"])?;
    let said = pods::ask(space, "shell-1", &format!("http://[{}]:8080/env", six(space, "told")?))?;
    for (name, list) in [("PODS", "podIPs"), ("HOSTS", "hostIPs")] {
        let wanted = format!("{name}={}", both(space, "told", list)?.join(","));
        ensure!(said.lines().any(|line| line == wanted), "{wanted} is not in {said}");
    }
    Ok(())
}

fn services(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("dualservices")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let selector = json!({"app": "web", "number": "2"});
        let ports = json!([{"port": 80, "targetPort": 8080}]);
        let dual = "RequireDualStack";
        apply(
            &space,
            &service("web", json!({"type": "NodePort", "ipFamilyPolicy": dual, "selector": selector, "ports": ports})),
        )?;
        apply(&space, &service("six", json!({"ipFamilies": ["IPv6"], "selector": selector, "ports": ports})))?;
        apply(
            &space,
            &service(
                "none",
                json!({"clusterIP": "None", "ipFamilyPolicy": dual, "selector": {"app": "web"}, "ports": ports}),
            ),
        )?;
        let slices = ["endpointslices", "-l", "kubernetes.io/service-name=web"];
        let types = |found: &Value| {
            let mut types: Vec<String> =
                found["items"].as_array().into_iter().flatten().map(|one| text(&one["addressType"])).collect();
            types.sort();
            types == ["IPv4", "IPv6"]
        };
        space.until("a slice of each family", &slices, SOON, types)?;
        let spec = space.json(&["service/web"])?["spec"].take();
        let (cluster_ip, node_port) =
            (text(&spec["clusterIPs"][1]), spec["ports"][0]["nodePort"].as_u64().context("a node port")?);
        let only_six = text(&space.json(&["service/six"])?["spec"]["clusterIP"]);
        for shell in ["shell-1", "shell-2", "shell-3"] {
            for address in [&cluster_ip, &only_six] {
                reaches(&space, shell, &format!("http://[{address}]/"), true)?;
            }
            reaches(&space, shell, "http://six/", true)?;
        }
        for host in std::iter::once(&nodes.cluster.host).chain(nodes.agents.iter().map(|agent| &agent.host)) {
            ensure!(fetch(host, &cluster_ip, 80)?.contains("web-2"));
            let node = host.six.as_deref().context("an address of IPv6")?;
            ensure!(fetch(nodes.cluster.client(), node, node_port)?.contains("web-2"), "port {node_port} of {node}");
        }
        names(&space, &cluster_ip)
    };
    check().with_context(|| space.describe())
}

fn names(space: &Space<'_>, cluster_ip: &str) -> Result<()> {
    let of = |service: &str| format!("{service}.{}.svc.cluster.local", space.name);
    let number = u128::from(cluster_ip.parse::<std::net::Ipv6Addr>()?);
    let nibbles: Vec<String> = (0..32).map(|n| format!("{:x}", number >> (4 * n) & 0xf)).collect();
    let reverse = format!("{}.ip6.arpa", nibbles.join("."));
    let mut wanted = vec![(of("web"), "aaaa", cluster_ip.to_owned()), (reverse, "ptr", of("web"))];
    for n in 1..=3 {
        wanted.push((of("none"), "aaaa", six(space, &format!("web-{n}"))?));
    }
    for (name, kind, answer) in wanted {
        until(&format!("{kind} of {name} is {answer}"), SOON, || {
            let found = space.run(&["exec", "shell-3", "--", "nslookup", &format!("-type={kind}"), &name])?;
            Ok(found.stdout.contains(&answer).then_some(()))
        })?;
    }
    Ok(())
}

fn policies(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("dualpolicies")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let (own, far) = (six(&space, "shell-1")?, six(&space, "web-3")?);
        let url = format!("http://[{far}]:8080/");
        let policy = |ingress: Value| {
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"},
                "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": ingress}})
        };
        reaches(&space, "shell-1", &url, true)?;
        apply(&space, &policy(json!([])))?;
        reaches(&space, "shell-1", &url, false)?;
        apply(&space, &policy(json!([{"from": [{"ipBlock": {"cidr": format!("{own}/128")}}]}])))?;
        reaches(&space, "shell-1", &url, true)?;
        reaches(&space, "shell-2", &url, false)?;
        apply(&space, &policy(json!([{"from": [{"podSelector": {"matchLabels": {"number": "2"}}}]}])))?;
        reaches(&space, "shell-2", &url, true)?;
        reaches(&space, "shell-1", &url, false)
    };
    check().with_context(|| space.describe())
}

fn external(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("external")?;
    let object = service("web", json!({"ports": [{"port": 80}], "externalIPs": ["198.51.100.7"]}));
    let refused = space.ok_with(&["create", "-f", "-"], &object.to_string());
    let said = refused.err().context("the service was made")?.to_string();
    ensure!(said.contains("Use of external IPs is denied by admission control."), "{said}");
    Ok(())
}
