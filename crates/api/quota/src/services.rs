//! What services use: themselves, node ports, load balancers.

use crate::amounts::Amounts;
use crate::{count, items, one, text};
use serde_json::Value;

pub(crate) fn usage(service: &Value, used: &mut Amounts) {
    let spec = &service["spec"];
    let ports = items(spec, "ports");
    let (mut node_ports, mut balancers) = (0, 0);
    match text(spec, "type") {
        "NodePort" => node_ports = ports.len(),
        "LoadBalancer" => {
            balancers = 1;
            // Ports that were asked for by number count although none are given out.
            let given = || ports.iter().filter(|port| port["nodePort"].as_u64().is_some_and(|port| port != 0)).count();
            node_ports = if spec["allocateLoadBalancerNodePorts"] == false { given() } else { ports.len() };
        }
        _ => {}
    }
    used.insert("services".into(), one());
    used.insert("services.nodeports".into(), count(node_ports));
    used.insert("services.loadbalancers".into(), count(balancers));
}
