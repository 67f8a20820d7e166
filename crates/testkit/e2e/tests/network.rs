//! What the network of a cluster of three nodes does for pods: policies, services of every type, names, ports of nodes.

#[path = "network/datagrams.rs"]
mod datagrams;
#[path = "network/pods.rs"]
mod pods;

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, NODES, Nodes, Space, suite_on, until};
use pods::{SOON, address, apply, ask, everywhere, reaches, service, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

fn main() -> ExitCode {
    suite_on::<Nodes>(&[
        ("policies keep pods of all nodes apart", policies),
        ("a service changes its type", types),
        ("a client stays with its endpoint where it should", affinity),
        ("a load balancer has the addresses of nodes", load_balancer),
        ("slices and endpoints follow pods, also of several ports", endpoints),
        ("names of services, of pods and of others", names),
        ("ports of nodes are told apart by address and protocol", host_ports),
        ("the server passes requests on to pods and services", proxied),
        ("objects of the network live their lives", kinds),
        ("endpoints that people write are followed", written),
        ("services have a status, and go together", collections),
        ("datagrams reach pods and services", datagrams::reach),
        ("one port serves two protocols", datagrams::two_protocols),
        ("endpoints follow services soon", datagrams::latency),
    ])
}

fn policy(space: &Space<'_>, name: &str, spec: Value) -> Result<()> {
    let metadata = json!({"name": name});
    apply(
        space,
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}),
    )
}

fn policies(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("policies")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let webs: Vec<String> = (1..=3).map(|n| address(&space, &format!("web-{n}"))).collect::<Result<_>>()?;
        let url = |n: usize| format!("http://{}:8080/", webs[n - 1]);
        for n in 1..=3 {
            reaches(&space, &format!("shell-{n}"), &url(2), true)?;
        }
        policy(&space, "closed", json!({"podSelector": {"matchLabels": {"app": "web"}}}))?;
        for n in 1..=3 {
            reaches(&space, &format!("shell-{n}"), &url(2), false)?;
        }
        // By a label of the pod, and a port's name; from the same node and from another one.
        let from =
            json!([{"podSelector": {"matchExpressions": [{"key": "number", "operator": "In", "values": ["1", "2"]}]}}]);
        let ports = json!([{"port": "http"}]);
        policy(
            &space,
            "some",
            json!({"podSelector": {"matchLabels": {"number": "2"}}, "ingress": [{"from": from, "ports": ports}]}),
        )?;
        reaches(&space, "shell-1", &url(2), true)?;
        reaches(&space, "shell-2", &url(2), true)?;
        reaches(&space, "shell-3", &url(2), false)?;
        reaches(&space, "shell-1", &url(3), false)?;
        apply(
            &space,
            &service(
                "web",
                json!({"selector": {"number": "2", "app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}),
            ),
        )?;
        reaches(&space, "shell-1", &format!("http://web.{}/", space.name), true)?;
        // Probes of the node itself arrive.
        let ready = &space.json(&["pod/web-3"])?["status"]["conditions"];
        ensure!(ready.to_string().contains("Ready"), "{ready}");
        // The label goes, and with it the way.
        space.ok(&["label", "pod", "shell-1", "number=9", "--overwrite"])?;
        reaches(&space, "shell-1", &url(2), false)?;
        // Out of pods.
        space.ok(&["delete", "networkpolicy", "--all"])?;
        reaches(&space, "shell-3", &url(1), true)?;
        let to = json!([{"to": [{"ipBlock": {"cidr": "10.42.0.0/16", "except": [format!("{}/32", webs[0])]}}]}]);
        policy(
            &space,
            "out",
            json!({"podSelector": {"matchLabels": {"app": "shell"}}, "policyTypes": ["Egress"], "egress": to}),
        )?;
        reaches(&space, "shell-3", &url(1), false)?;
        reaches(&space, "shell-3", &url(2), true)?;
        space.ok(&["delete", "networkpolicy", "out"])?;
        reaches(&space, "shell-3", &url(1), true)
    };
    check().with_context(|| space.describe())
}

/// The pods that answer so many calls.
fn callees(space: &Space<'_>, pod: &str, url: &str, calls: usize) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for _ in 0..calls {
        *found.entry(ask(space, pod, url)?).or_default() += 1;
    }
    Ok(found)
}

fn types(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("types")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let ports = json!([{"port": 80, "targetPort": 8080}]);
        let inside = format!("http://web.{}.svc.cluster.local/", space.name);
        apply(
            &space,
            &service(
                "web",
                json!({"type": "ExternalName", "externalName": format!("other.{}.svc.cluster.local", space.name)}),
            ),
        )?;
        apply(
            &space,
            &service("other", json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]})),
        )?;
        reaches(&space, "shell-1", &inside, true)?;
        let patch =
            |spec: Value| space.ok(&["patch", "service/web", "--type=merge", "-p", &json!({"spec": spec}).to_string()]);
        patch(
            json!({"type": "ClusterIP", "externalName": null, "selector": {"app": "web", "number": "2"}, "ports": ports}),
        )?;
        let only_second = || {
            until("only the second pod answers", SOON, || {
                let found = callees(&space, "shell-3", &inside, 3).unwrap_or_default();
                Ok((found.len() == 1 && found.keys().all(|said| said.contains("web-2"))).then_some(()))
            })
        };
        only_second()?;
        patch(
            json!({"type": "ExternalName", "externalName": "nowhere.invalid", "clusterIP": null, "clusterIPs": null, "ports": null, "selector": null}),
        )?;
        let resolved = || {
            space.run(&[
                "exec",
                "shell-1",
                "--",
                "nslookup",
                "-type=cname",
                inside.trim_start_matches("http://").trim_end_matches('/'),
            ])
        };
        until("it is an alias", SOON, || Ok(resolved()?.stdout.contains("nowhere.invalid").then_some(())))?;
        patch(
            json!({"type": "NodePort", "externalName": null, "selector": {"app": "web", "number": "2"}, "ports": ports}),
        )?;
        only_second()?;
        let port = space.json(&["service/web"])?["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")?;
        for node in
            std::iter::once(nodes.cluster.host.address).chain(nodes.agents.iter().map(|agent| agent.host.address))
        {
            reaches(&space, "shell-1", &format!("http://{node}:{port}/"), true)?;
        }
        // From a node itself to a pod of another one.
        let request = format!(
            "exec 3<>/dev/tcp/{}/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
            address(&space, "web-1")?
        );
        let said = nodes.agents[1].host.run(&["timeout", "5", "bash", "-c", &request])?.ok()?;
        ensure!(said.contains("web-1"), "{said}");
        patch(
            json!({"type": "ExternalName", "externalName": "elsewhere.invalid", "clusterIP": null, "clusterIPs": null, "ports": null, "selector": null}),
        )?;
        until("it is an alias again", SOON, || Ok(resolved()?.stdout.contains("elsewhere.invalid").then_some(())))
    };
    check().with_context(|| space.describe())
}

fn affinity(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("affinity")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let ports = json!([{"port": 80, "targetPort": 8080}]);
        let spec = |affinity: &str| json!({"type": "NodePort", "selector": {"app": "web"}, "sessionAffinity": affinity, "ports": ports});
        apply(&space, &service("web", spec("ClientIP")))?;
        let inside = format!("http://web.{}/", space.name);
        let port = space.json(&["service/web"])?["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")?;
        for url in [inside.clone(), format!("http://{}:{port}/", nodes.cluster.host.address)] {
            reaches(&space, "shell-2", &url, true)?;
            until(&format!("one pod answers all at {url}"), SOON, || {
                Ok((callees(&space, "shell-2", &url, 8)?.len() == 1).then_some(()))
            })?;
        }
        apply(&space, &service("web", spec("None")))?;
        until("several answer", SOON, || Ok((callees(&space, "shell-2", &inside, 12)?.len() > 1).then_some(())))
    };
    check().with_context(|| space.describe())
}

fn load_balancer(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("balancer")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        apply(
            &space,
            &service(
                "web",
                json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 8123, "targetPort": 8080}]}),
            ),
        )?;
        let all: BTreeSet<String> = std::iter::once(nodes.cluster.host.address)
            .chain(nodes.agents.iter().map(|agent| agent.host.address))
            .map(str::to_owned)
            .collect();
        let announced = |service: &Value| -> BTreeSet<String> {
            let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
            ingress.iter().map(|one| text(&one["ip"])).collect()
        };
        space.until("all nodes are announced", &["service/web"], SOON, |service| announced(service) == all)?;
        for address in &all {
            let request = format!("exec 3<>/dev/tcp/{address}/8123; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
            until(&format!("{address} answers the clients' machine"), SOON, || {
                Ok(nodes
                    .cluster
                    .client()
                    .run(&["timeout", "5", "bash", "-c", &request])?
                    .ok()
                    .ok()
                    .filter(|said| said.contains("Hello")))
            })?;
        }
        // Only the nodes that have an endpoint, and a port that tells which they are.
        let local = json!({"spec": {"externalTrafficPolicy": "Local", "selector": {"number": "2"}}});
        space.ok(&["patch", "service/web", "--type=merge", "-p", &local.to_string()])?;
        let second: BTreeSet<String> = [nodes.agents[0].host.address.to_owned()].into();
        space.until("one node is announced", &["service/web"], SOON, |service| announced(service) == second)?;
        let port =
            space.json(&["service/web"])?["spec"]["healthCheckNodePort"].as_u64().context("a health check port")?;
        for (address, wanted) in
            [(nodes.agents[0].host.address, "200 OK"), (nodes.agents[1].host.address, "503 Service Unavailable")]
        {
            let request =
                format!("exec 3<>/dev/tcp/{address}/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
            until(&format!("{address} says {wanted}"), SOON, || {
                Ok(nodes
                    .cluster
                    .client()
                    .run(&["timeout", "5", "bash", "-c", &request])?
                    .ok()
                    .ok()
                    .filter(|said| said.contains(wanted)))
            })?;
        }
        Ok(())
    };
    check().with_context(|| space.describe())
}

/// The sockets that the slices of a service have, as `address:port`.
fn sockets(slices: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for slice in slices["items"].as_array().into_iter().flatten() {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            for port in slice["ports"].as_array().into_iter().flatten() {
                found.insert(format!("{}:{}", text(&endpoint["addresses"][0]), port["port"]));
            }
        }
    }
    found
}

fn endpoints(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("endpoints")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let ports =
            json!([{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 9090}]);
        apply(&space, &service("web", json!({"selector": {"app": "web", "number": "1"}, "ports": ports})))?;
        apply(&space, &service("empty", json!({"selector": {"app": "nobody"}, "ports": ports})))?;
        let slices = ["endpointslices", "-l", "kubernetes.io/service-name=web"];
        let first = address(&space, "web-1")?;
        let expected: BTreeSet<String> = [format!("{first}:8080"), format!("{first}:9090")].into();
        space.until("both ports are in slices", &slices, SOON, |found| sockets(found) == expected)?;
        let legacy = |found: &Value| -> usize { found["subsets"].as_array().map_or(0, Vec::len) };
        space.until("and in endpoints", &["endpoints/web"], SOON, |found| legacy(found) > 0)?;
        space.until("nobody is behind the other", &["endpoints/empty"], SOON, |found| legacy(found) == 0)?;
        let refused = space.run(&[
            "exec",
            "shell-1",
            "--",
            "timeout",
            "5",
            "wget",
            "-q",
            "-O",
            "-",
            &format!("http://empty.{}/", space.name),
        ])?;
        ensure!(refused.stderr.contains("refused"), "{}", refused.stderr);
        space.ok(&["label", "pod", "web-2", "number=1", "--overwrite"])?;
        space.until("the second pod is behind it too", &slices, SOON, |found| sockets(found).len() == 4)?;
        space.ok(&["delete", "pod", "web-1", "web-2", "--wait=true", "--timeout=60s"])?;
        space.until("nobody is left", &slices, SOON, |found| sockets(found).is_empty())?;
        space.ok(&["delete", "service", "web"])?;
        space.until("the slices go with the service", &slices, SOON, |found| found["items"] == json!([])).map(drop)
    };
    check().with_context(|| space.describe())
}

fn resolve(space: &Space<'_>, pod: &str, kind: &str, name: &str) -> Result<String> {
    let found = space.run(&["exec", pod, "--", "nslookup", &format!("-type={kind}"), name])?;
    Ok(found.stdout + &found.stderr)
}

fn names(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("dns")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        apply(
            &space,
            &service(
                "all",
                json!({"clusterIP": "None", "selector": {"app": "named"}, "ports": [{"name": "http", "port": 8080}]}),
            ),
        )?;
        apply(
            &space,
            &service(
                "web",
                json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}),
            ),
        )?;
        apply(
            &space,
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "named", "labels": {"app": "named"}}, "spec": {
            "hostname": "known", "subdomain": "all", "terminationGracePeriodSeconds": 0,
            "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.43.0.10"], "searches": ["svc.cluster.local"], "options": [{"name": "ndots", "value": "3"}]},
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "3600"]}]}}),
        )?;
        space.ok(&["wait", "--for=condition=Ready", "pod/named", "--timeout=60s"])?;
        let (pod, namespace) = (address(&space, "named")?, &space.name);
        let cluster = text(&space.json(&["service/web"])?["spec"]["clusterIP"]);
        let reversed: Vec<&str> = pod.split('.').rev().collect();
        for (kind, name, wanted) in [
            ("a", format!("known.all.{namespace}.svc.cluster.local"), pod.clone()),
            ("a", format!("all.{namespace}.svc.cluster.local"), pod.clone()),
            ("a", format!("web.{namespace}.svc.cluster.local"), cluster.clone()),
            ("a", format!("{}.{namespace}.pod.cluster.local", pod.replace('.', "-")), pod.clone()),
            ("srv", format!("_http._tcp.web.{namespace}.svc.cluster.local"), "0 100 80 web.".to_owned()),
            ("srv", format!("_http._tcp.all.{namespace}.svc.cluster.local"), "8080 known.all.".to_owned()),
            ("ptr", format!("{}.in-addr.arpa", reversed.join(".")), format!("known.all.{namespace}.svc.cluster.local")),
            ("a", format!("missing.{namespace}.svc.cluster.local"), "NXDOMAIN".to_owned()),
        ] {
            until(&format!("{kind} {name} is {wanted}"), SOON, || {
                Ok(resolve(&space, "shell-2", kind, &name)?.contains(&wanted).then_some(()))
            })?;
        }
        // By short names, along the search path.
        for host in ["web", &format!("web.{namespace}"), &format!("web.{namespace}.svc")] {
            reaches(&space, "shell-3", &format!("http://{host}/"), true)?;
        }
        let written = space.ok(&["exec", "named", "--", "cat", "/etc/resolv.conf"])?;
        ensure!(written == "search svc.cluster.local\nnameserver 10.43.0.10\noptions ndots:3\n", "{written:?}");
        let hosts = space.ok(&["exec", "named", "--", "cat", "/etc/hosts"])?;
        ensure!(hosts.contains(&format!("{pod}\tknown.all.{namespace}.svc.cluster.local\tknown")), "{hosts}");
        ensure!(space.ok(&["exec", "named", "--", "hostname"])?.trim() == "known");
        Ok(())
    };
    check().with_context(|| space.describe())
}

fn host_ports(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("hostports")?;
    let check = || -> Result<()> {
        let pod = |name: &str, ip: &str, protocol: &str, port: u16| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
                "nodeSelector": {"kubernetes.io/hostname": NODES[1]}, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "pintle/hello:v1",
                    "ports": [{"hostPort": port, "containerPort": 8080, "protocol": protocol, "hostIP": ip}]}]}})
        };
        let node = nodes.agents[0].host.address;
        for one in [
            pod("first", "127.0.0.1", "TCP", 54323),
            pod("second", node, "TCP", 54323),
            pod("third", node, "UDP", 54323),
        ] {
            apply(&space, &one)?;
        }
        space.ok(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
        let request = |address: &str| {
            format!("exec 3<>/dev/tcp/{address}/54323; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3")
        };
        let (inside, outside) = (&nodes.agents[0].host, nodes.cluster.client());
        for (host, address, name) in
            [(inside, "127.0.0.1", "first"), (inside, node, "second"), (outside, node, "second")]
        {
            // Who has no probe is ready before it listens.
            let answer = until(&format!("{address} answers"), SOON, || {
                let said = host.run(&["timeout", "5", "bash", "-c", &request(address)])?;
                Ok(said.status.success().then_some(said.stdout))
            })?;
            ensure!(answer.contains(name), "{address}: {answer}");
        }
        // One that wants a taken port waits for another node, and there is none for it.
        apply(&space, &pod("fourth", "0.0.0.0", "TCP", 54323))?;
        let unscheduled = |pod: &Value| {
            pod["status"]["conditions"].to_string().contains("didn't have free ports for the requested pod ports")
        };
        space.until("the fourth waits", &["pod/fourth"], SOON, unscheduled).map(drop)
    };
    check().with_context(|| space.describe())
}

fn proxied(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("proxied")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        apply(
            &space,
            &service(
                "web",
                json!({"selector": {"app": "web", "number": "3"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}),
            ),
        )?;
        let namespace = &space.name;
        for path in ["pods/web-3:8080", "pods/http:web-3:8080", "services/web:http", "services/http:web:80"] {
            let raw = format!("/api/v1/namespaces/{namespace}/{path}/proxy/");
            until(&format!("{raw} answers"), SOON, || {
                let said = space.run(&["get", "--raw", &raw])?;
                Ok((said.status.success() && said.stdout.contains("web-3")).then_some(()))
            })?;
        }
        // A server that speaks TLS, which pods of these images don't: the API server itself.
        let server = nodes.cluster.host.address.to_string();
        apply(&space, &service("apis", json!({"ports": [{"name": "tls", "port": 443, "targetPort": 6443}]})))?;
        let subset = json!({"addresses": [{"ip": server}], "ports": [{"name": "tls", "port": 6443}]});
        apply(
            &space,
            &json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "apis"}, "subsets": [subset]}),
        )?;
        let services = format!("/api/v1/namespaces/{namespace}/services");
        for place in [
            format!("{services}/https:apis:443"),
            format!("{services}/https:apis:tls"),
            "/api/v1/nodes/https:node-1:6443".to_owned(),
        ] {
            let said = space.run(&["get", "--raw", &format!("{place}/proxy/version")])?.ok()?;
            ensure!(said.contains("gitVersion"), "{place}: {said}");
        }
        let nobody = space.run(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/services/nobody/proxy/")])?;
        ensure!(nobody.stderr.contains("services \"nobody\" not found"), "{}", nobody.stderr);
        Ok(())
    };
    check().with_context(|| space.describe())
}

/// Creates, reads, changes and deletes one object, then deletes all by a label.
fn live(
    space: &Space<'_>,
    resource: &str,
    object: &Value,
    change: &Value,
    changed: impl Fn(&Value) -> bool,
) -> Result<()> {
    let mut object = object.clone();
    object["metadata"]["labels"] = json!({"e2e": space.name});
    let name = text(&object["metadata"]["name"]);
    let one = format!("{resource}/{name}");
    space.ok_with(&["create", "-f", "-"], &object.to_string())?;
    let label = format!("e2e={}", space.name);
    let listed = space.json(&[resource, "-l", &label])?;
    ensure!(listed["items"].as_array().map(Vec::len) == Some(1), "{listed}");
    space.ok(&["patch", &one, "--type=merge", "-p", &change.to_string()])?;
    let found = space.json(&[&one])?;
    ensure!(changed(&found), "{found}");
    let mut again = found;
    again["metadata"]["annotations"] = json!({"updated": "true"});
    space.ok_with(&["replace", "-f", "-"], &again.to_string())?;
    ensure!(space.json(&[&one])?["metadata"]["annotations"]["updated"] == "true");
    space.ok(&["delete", resource, "-l", &label, "--timeout=60s"])?;
    space.until("it is gone", &[resource, "-l", &label], SOON, |list| list["items"] == json!([])).map(drop)
}

fn kinds(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("kinds")?;
    let annotated = |found: &Value| found["metadata"]["annotations"]["patched"] == "true";
    let annotate = json!({"metadata": {"annotations": {"patched": "true"}}});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "in"}, "spec": {"defaultBackend": backend}});
    space.ok_with(&["create", "-f", "-"], &ingress.to_string())?;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}});
    space.ok(&["patch", "ingress/in", "--subresource=status", "--type=merge", "-p", &status.to_string()])?;
    ensure!(space.json(&["ingress/in"])?["status"] == status["status"]);
    space.ok(&["delete", "ingress/in"])?;
    live(&space, "ingresses", &ingress, &annotate, annotated)?;
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": format!("{}-class", space.name)},
        "spec": {"controller": "example.com/controller"}});
    live(&space, "ingressclasses", &class, &annotate, annotated)?;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "slice"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80, "name": "http"}]});
    live(&space, "endpointslices", &slice, &json!({"ports": [{"port": 81, "name": "http"}]}), |found| {
        found["ports"][0]["port"] == 81
    })?;
    let address = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "192.168.1.2"},
        "spec": {"parentRef": {"resource": "services", "name": "foo", "namespace": "bar"}}});
    live(&space, "ipaddresses", &address, &annotate, annotated)?;
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": format!("{}-range", space.name)},
        "spec": {"cidrs": ["10.250.0.0/24"]}});
    live(&space, "servicecidrs", &range, &annotate, annotated)?;
    let kubernetes = space.run(&["get", "service/kubernetes", "-n", "default", "-o", "json"])?.ok()?;
    let kubernetes: Value = serde_json::from_str(&kubernetes)?;
    ensure!(
        kubernetes["spec"]["clusterIP"] == "10.43.0.1" && kubernetes["spec"]["ports"][0]["port"] == 443,
        "{kubernetes}"
    );
    for kind in ["endpoints/kubernetes", "endpointslice/kubernetes"] {
        let found = space.run(&["get", kind, "-n", "default", "-o", "json"])?.ok()?;
        ensure!(found.contains(nodes.cluster.host.address), "{found}");
    }
    Ok(())
}

fn written(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("written")?;
    let check = || -> Result<()> {
        everywhere(&space)?;
        let (first, second) = (address(&space, "web-1")?, address(&space, "web-2")?);
        apply(&space, &service("mirrored", json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]})))?;
        let by_hand = |ip: &str| {
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mirrored"},
                "subsets": [{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 8080}]}]})
        };
        let slices = ["endpointslices", "-l", "kubernetes.io/service-name=mirrored"];
        for (ip, name) in [(&first, "web-1"), (&second, "web-2")] {
            apply(&space, &by_hand(ip))?;
            let expected: BTreeSet<String> = [format!("{ip}:8080")].into();
            space.until("they are mirrored", &slices, SOON, |found| sockets(found) == expected)?;
            until("they answer", SOON, || {
                let said = ask(&space, "shell-3", &format!("http://mirrored.{}/", space.name)).unwrap_or_default();
                Ok(said.contains(name).then_some(()))
            })?;
        }
        space.ok(&["delete", "endpoints/mirrored"])?;
        space.until("the mirror goes", &slices, SOON, |found| sockets(found).is_empty())?;
        // Slices of one's own: several addresses, several ports, in one slice and in two.
        apply(&space, &service("own", json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]})))?;
        for (n, (ip, port)) in [(&first, "a"), (&second, "b")].into_iter().enumerate() {
            apply(
                &space,
                &json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": format!("own-{n}"), "labels": {"kubernetes.io/service-name": "own"}},
                "addressType": "IPv4", "endpoints": [{"addresses": [ip]}], "ports": [{"name": port, "port": 8080}]}),
            )?;
        }
        for (port, name) in [(80, "web-1"), (81, "web-2")] {
            until("each port has its pod", SOON, || {
                let said = ask(&space, "shell-3", &format!("http://own.{}:{port}/", space.name)).unwrap_or_default();
                Ok(said.contains(name).then_some(()))
            })?;
        }
        Ok(())
    };
    check().with_context(|| space.describe())
}

fn collections(nodes: &Nodes) -> Result<()> {
    let space = nodes.cluster.space("collections")?;
    for name in ["one", "two", "three"] {
        let mut object =
            service(name, json!({"ports": [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]}));
        object["metadata"]["labels"] = json!({"set": if name == "three" { "kept" } else { "gone" }});
        apply(&space, &object)?;
    }
    let status = json!({"status": {"conditions": [{"type": "Told", "status": "True", "reason": "E2E", "message": "by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    space.ok(&["patch", "service/one", "--subresource=status", "--type=merge", "-p", &status.to_string()])?;
    ensure!(space.json(&["service/one"])?["status"]["conditions"][0]["reason"] == "E2E");
    space.ok(&["delete", "services", "-l", "set=gone", "--timeout=60s"])?;
    let left = space.json(&["services"])?;
    let names: Vec<String> =
        left["items"].as_array().into_iter().flatten().map(|one| text(&one["metadata"]["name"])).collect();
    ensure!(names == ["three"], "{names:?}");
    let ports = &left["items"][0]["spec"]["ports"];
    ensure!(
        ports[0]["protocol"] == "TCP" && ports[1]["protocol"] == "UDP" && ports[0]["port"] == ports[1]["port"],
        "{ports}"
    );
    Ok(())
}
