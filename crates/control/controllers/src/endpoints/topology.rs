//! Shares the endpoints of a Service among zones as their nodes share processors: `service.kubernetes.io/topology-mode`.
//!
//! Source: KEP-2433 (topology aware routing). Zones get endpoints of their own first; then those with more than their
//! share lend some to those with less. Where a zone would be overloaded by more than a fifth there are no hints.

use crate::node::is_ready;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::{Node, Service};
use pintle_types::k8s::api::discovery::v1::{Endpoint, EndpointHints, ForZone};
use pintle_types::quantity::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const ZONE: &str = "topology.kubernetes.io/zone";
const MODE: &str = "service.kubernetes.io/topology-mode";
const OLD_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// Such nodes serve no traffic of pods.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// By how much of its share a zone may be overloaded.
const OVERLOAD: f64 = 0.2;

/// The zones' shares of all processors, which are 1 together.
pub type Shares = BTreeMap<String, f64>;

/// Whether the Service asks for hints by the shares of zones.
pub fn is_auto(service: &Service) -> bool {
    let mode = service.annotation(OLD_MODE).or_else(|| service.annotation(MODE));
    matches!(mode, Some("Auto" | "auto"))
}

/// The shares of at least two zones; nothing when a node doesn't tell enough.
pub fn shares(nodes: &[Arc<Node>]) -> Option<Shares> {
    let mut by_zone = BTreeMap::<String, i64>::new();
    for node in nodes.iter().filter(|node| is_counted(node)) {
        let zone = node.label(ZONE).filter(|zone| !zone.is_empty())?;
        *by_zone.entry(zone.to_owned()).or_default() += Some(processors(node)).filter(|cpu| *cpu > 0)?;
    }
    let total: i64 = by_zone.values().sum();
    (by_zone.len() > 1).then(|| by_zone.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / total as f64)).collect())
}

/// What of a node counts for the shares: a change of it can change hints.
pub fn weight(node: &Node) -> Option<(Option<String>, i64)> {
    is_counted(node).then(|| (node.label(ZONE).map(str::to_owned), processors(node)))
}

fn is_counted(node: &Node) -> bool {
    is_ready(node) && EXCLUDED.iter().all(|label| node.label(label).is_none())
}

/// In thousandths.
fn processors(node: &Node) -> i64 {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    allocatable.and_then(|amounts| amounts.get("cpu")).map_or(0, |cpu| Quantity::from(cpu).milli())
}

fn is_served(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

/// How many endpoints a zone should have.
struct Allocation {
    minimum: usize,
    maximum: usize,
    desired: f64,
}

fn least(share: f64, endpoints: usize) -> usize {
    (share * endpoints as f64 / (1.0 + OVERLOAD)).ceil() as usize
}

fn allocate(shares: &Shares, endpoints: usize) -> Result<BTreeMap<&str, Allocation>, String> {
    let counts = format!("({endpoints} endpoints, {} zones)", shares.len());
    if shares.len() > endpoints {
        return Err(format!("Insufficient number of endpoints {counts}"));
    }
    let all: usize = shares.values().map(|share| least(*share, endpoints)).sum();
    let Some(spare) = endpoints.checked_sub(all) else {
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        return Err(format!("{why} {counts}"));
    };
    let of = |share: f64| {
        let minimum = least(share, endpoints);
        let desired = (share * endpoints as f64).max(minimum as f64);
        Allocation { minimum, maximum: minimum + spare, desired }
    };
    Ok(shares.iter().map(|(zone, share)| (zone.as_str(), of(*share))).collect())
}

/// Gives the endpoints of one family their hints; `before` tells the zone that one was meant for until now, and how many
/// had any. Fails with the reason why there are none.
pub fn hint(
    endpoints: &mut [&mut Endpoint],
    shares: Option<&Shares>,
    before: impl Fn(&Endpoint) -> Option<String>,
    hinted_before: usize,
) -> Result<(), String> {
    let shares =
        shares.ok_or("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")?;
    let mut served: Vec<&mut &mut Endpoint> = endpoints.iter_mut().filter(|endpoint| is_served(endpoint)).collect();
    let allocations = allocate(shares, served.len())?;
    if served.iter().any(|endpoint| endpoint.zone.as_deref().unwrap_or_default().is_empty()) {
        return Err("One or more endpoints do not have a zone specified".into());
    }
    let known: Option<Vec<String>> = served.iter().map(|endpoint| before(endpoint)).collect();
    let kept = known.filter(|known| known.len() == hinted_before && are_fair(known, &allocations));
    let zones = kept.unwrap_or_else(|| {
        let own = served.iter().map(|endpoint| endpoint.zone.clone().unwrap_or_default()).collect();
        redistribute(own, &allocations)
    });
    for (endpoint, zone) in served.iter_mut().zip(zones) {
        endpoint.hints = Some(EndpointHints { for_nodes: None, for_zones: Some(vec![ForZone { name: zone }]) });
    }
    Ok(())
}

/// Whether no zone has too few endpoints or too many.
fn are_fair(zones: &[String], allocations: &BTreeMap<&str, Allocation>) -> bool {
    let count = |zone: &str| zones.iter().filter(|of| *of == zone).count();
    zones.iter().all(|zone| allocations.contains_key(zone.as_str()))
        && allocations.iter().all(|(zone, wanted)| (wanted.minimum..=wanted.maximum).contains(&count(zone)))
}

/// Lends endpoints of zones that have more than they should to those with less. The order of zones decides ties.
fn redistribute(mut zones: Vec<String>, allocations: &BTreeMap<&str, Allocation>) -> Vec<String> {
    let (mut gives, mut takes) = loans(&zones, allocations);
    for zone in &mut zones {
        let Some(left) = gives.get_mut(zone.as_str()).filter(|left| **left > 0) else { continue };
        let Some((taker, wanted)) = takes.iter_mut().find(|(_, wanted)| **wanted > 0) else { break };
        *left -= 1;
        *wanted -= 1;
        *zone = (*taker).to_owned();
    }
    zones
}

type Loans<'a> = BTreeMap<&'a str, usize>;

/// How many endpoints each zone lends, and how many each borrows.
fn loans<'a>(zones: &[String], allocations: &BTreeMap<&'a str, Allocation>) -> (Loans<'a>, Loans<'a>) {
    let (mut over, mut under) = (BTreeMap::<&str, f64>::new(), BTreeMap::<&str, f64>::new());
    for (zone, wanted) in allocations {
        let more = zones.iter().filter(|of| of == zone).count() as f64 - wanted.desired;
        if more > 0.0 {
            over.insert(zone, more);
        } else if more < 0.0 {
            under.insert(zone, -more);
        }
    }
    let (mut gives, mut takes) = (Loans::new(), Loans::new());
    while let (Some((giver, most)), Some((taker, need))) = (greatest(&over), greatest(&under)) {
        // Half an endpoint is not worth a journey.
        if (most < 1.0 && need < 1.0) || most < 0.5 || need < 0.5 {
            break;
        }
        *gives.entry(giver).or_default() += 1;
        *takes.entry(taker).or_default() += 1;
        over.insert(giver, most - 1.0);
        under.insert(taker, need - 1.0);
    }
    (gives, takes)
}

fn greatest<'a>(zones: &BTreeMap<&'a str, f64>) -> Option<(&'a str, f64)> {
    let positive = zones.iter().filter(|(_, number)| **number > 0.0);
    positive.fold(None, |best: Option<(&str, f64)>, (zone, number)| match best {
        Some((_, most)) if most >= *number => best,
        _ => Some((zone, *number)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, zone: &str, cpu: &str, ready: &str) -> Arc<Node> {
        let node = json!({
            "metadata": { "name": name, "labels": { ZONE: zone } },
            "status": { "allocatable": { "cpu": cpu }, "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Arc::new(Node::from_value(node).unwrap())
    }

    fn of(shares: &[(&str, f64)]) -> Shares {
        shares.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect()
    }

    /// Hints of served endpoints in these zones, with what they were before.
    fn hinted(shares: &Shares, zones: &[&str], before: &[&str]) -> Result<Vec<String>, String> {
        let endpoint = |(at, zone): (usize, &&str)| {
            let one = json!({ "addresses": [at.to_string()], "conditions": { "ready": true }, "zone": zone });
            serde_json::from_value(one).unwrap()
        };
        let mut all: Vec<Endpoint> = zones.iter().enumerate().map(endpoint).collect();
        let mut places: Vec<&mut Endpoint> = all.iter_mut().collect();
        let known = |endpoint: &Endpoint| {
            let at: usize = endpoint.addresses[0].parse().unwrap();
            before.get(at).map(|zone| (*zone).to_owned())
        };
        hint(&mut places, Some(shares), known, before.len())?;
        Ok(all.into_iter().map(|endpoint| endpoint.hints.unwrap().for_zones.unwrap().remove(0).name).collect())
    }

    #[test]
    fn zones_share_as_their_processors_do() {
        let (a, b) = (node("a", "a", "3", "True"), node("b", "b", "1", "True"));
        assert_eq!(shares(&[a.clone(), b.clone()]), Some(of(&[("a", 0.75), ("b", 0.25)])));
        let down = node("c", "c", "8", "False");
        assert_eq!(shares(&[a.clone(), b.clone(), down]), Some(of(&[("a", 0.75), ("b", 0.25)])));
        for spoils in [node("c", "", "1", "True"), node("c", "c", "0", "True")] {
            assert_eq!(shares(&[a.clone(), b.clone(), spoils]), None);
        }
        assert_eq!(shares(&[a]), None, "one zone");
    }

    #[test]
    fn endpoints_are_lent_to_zones_with_few() {
        let half = of(&[("a", 0.5), ("b", 0.5)]);
        let thirds = of(&[("a", 1.0 / 3.0), ("b", 1.0 / 3.0), ("c", 1.0 / 3.0)]);
        let most = of(&[("a", 0.75), ("b", 0.25)]);
        for (shares, zones, expected) in [
            (&half, &["a", "b"][..], &["a", "b"][..]),
            (&half, &["a", "a", "a", "b"], &["b", "a", "a", "b"]),
            (&half, &["a", "a"], &["b", "a"]),
            (&most, &["a", "a", "b", "b"], &["a", "a", "a", "b"]),
            (&thirds, &["a", "a", "a"], &["b", "c", "a"]),
            // A zone that is not among those of the nodes lends nothing.
            (&half, &["c", "a", "b", "b"], &["c", "a", "b", "b"]),
        ] {
            assert_eq!(hinted(shares, zones, &[]).unwrap(), expected, "{zones:?}");
        }
    }

    #[test]
    fn what_is_fair_stays() {
        let half = of(&[("a", 0.5), ("b", 0.5)]);
        let zones = ["a", "a", "a", "b"];
        assert_eq!(hinted(&half, &zones, &["a", "b", "a", "b"]).unwrap(), ["a", "b", "a", "b"]);
        assert_eq!(hinted(&half, &zones, &["a", "a", "a", "b"]).unwrap(), ["b", "a", "a", "b"], "it is not fair");
        assert_eq!(hinted(&half, &zones, &["a", "b", "a"]).unwrap(), ["b", "a", "a", "b"], "one is new");
    }

    #[test]
    fn where_it_would_overload_there_are_no_hints() {
        let half = of(&[("a", 0.5), ("b", 0.5)]);
        assert_eq!(hinted(&half, &["a"], &[]).unwrap_err(), "Insufficient number of endpoints (1 endpoints, 2 zones)");
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
                   (3 endpoints, 2 zones)";
        assert_eq!(hinted(&half, &["a", "a", "b"], &[]).unwrap_err(), why);
        let none = "One or more endpoints do not have a zone specified";
        assert_eq!(hinted(&half, &["a", ""], &[]).unwrap_err(), none);
        let unknown = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
        assert_eq!(hint(&mut [], None, |_| None, 0).unwrap_err(), unknown);
    }
}
