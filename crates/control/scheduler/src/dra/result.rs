//! Writes down what was chosen for a claim.

use super::allocator::{Asked, Candidate, Chosen};
use super::asked::Way;
use crate::snapshot::NodeInfo;
use pintle_types::k8s::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use pintle_types::k8s::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
};
use pintle_types::k8s::apimachinery::pkg::api::resource::Quantity as Raw;
use pintle_types::quantity::{Format, Quantity};

/// The allocation of a claim. Shares have no names yet: whoever writes it gives them.
pub(super) fn build(
    node: &NodeInfo,
    asked: &Asked<'_>,
    chosen: &[Chosen],
    candidates: &[Candidate<'_>],
) -> Result<AllocationResult, String> {
    let results = chosen.iter().map(|chosen| {
        let way = &asked.requests[chosen.request][chosen.way];
        let from = &candidates[chosen.candidate];
        let written = from.device.capacity.as_ref();
        let amount = |(name, nanos): (&String, &i128)| {
            // In the manner of who asked, or of the driver.
            let asked = way.capacity.and_then(|capacity| capacity.get(name));
            let like = asked.or_else(|| Some(&written?.get(name)?.value));
            let format = like.map_or(Format::DecimalSi, |raw| Quantity::from(raw).format());
            (name.clone(), Raw(text(*nanos, format)))
        };
        DeviceRequestAllocationResult {
            request: way.name(),
            driver: from.slice.spec.driver.clone(),
            pool: from.slice.spec.pool.name.clone(),
            device: from.device.name.clone(),
            admin_access: way.admin.then_some(true),
            tolerations: way.tolerations.cloned(),
            binding_conditions: from.device.binding_conditions.clone(),
            binding_failure_conditions: from.device.binding_failure_conditions.clone(),
            share_id: chosen.consumed.as_ref().map(|_| String::new()),
            consumed_capacity: chosen.consumed.as_ref().map(|all| all.iter().map(amount).collect()),
        }
    });
    let devices = DeviceAllocationResult { results: Some(results.collect()), config: configuration(asked, chosen) };
    let node_selector = selector(node, chosen, candidates)?;
    Ok(AllocationResult { devices: Some(devices), node_selector, ..Default::default() })
}

/// An amount of billionths.
fn text(nanos: i128, format: Format) -> String {
    const UNIT: i128 = 1_000_000_000;
    match i64::try_from(nanos / UNIT) {
        Ok(units) if nanos % UNIT == 0 => Quantity::from_units(units, format).to_string(),
        _ => format!("{nanos}n"),
    }
}

/// The classes' configuration, then the claim's own, as far as it is of what was chosen.
fn configuration(asked: &Asked<'_>, chosen: &[Chosen]) -> Option<Vec<DeviceAllocationConfiguration>> {
    let way_of = |request: usize| {
        let first = chosen.iter().find(|chosen| chosen.request == request)?;
        asked.requests[request].get(first.way)
    };
    let ways: Vec<&Way<'_>> = (0..asked.requests.len()).filter_map(way_of).collect();
    let mut out: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut classes: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
    for way in &ways {
        let name = way.class.metadata.name.as_deref().unwrap_or_default();
        if let Some((_, range)) = classes.iter().find(|(known, _)| *known == name) {
            for config in &mut out[range.clone()] {
                config.requests.get_or_insert_default().push(way.name());
            }
            continue;
        }
        let start = out.len();
        for config in way.class.spec.config.iter().flatten() {
            let (source, requests) = ("FromClass".to_owned(), Some(vec![way.name()]));
            out.push(DeviceAllocationConfiguration { source, requests, opaque: config.opaque.clone() });
        }
        classes.push((name, start..out.len()));
    }
    let own = asked.claim.spec.devices.iter().flat_map(|devices| devices.config.iter().flatten());
    for config in own {
        let requests = config.requests.as_deref().unwrap_or_default();
        let named = |way: &&Way<'_>| requests.iter().any(|name| name == way.request || *name == way.name());
        let times = if requests.is_empty() { 1 } else { ways.iter().copied().filter(named).count() };
        for _ in 0..times {
            let (source, requests) = ("FromClaim".to_owned(), config.requests.clone());
            out.push(DeviceAllocationConfiguration { source, requests, opaque: config.opaque.clone() });
        }
    }
    for config in &mut out {
        // What is of all requests names none.
        if config.requests.as_ref().is_some_and(|named| named.len() == asked.requests.len() || named.is_empty()) {
            config.requests = None;
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The nodes on which the devices can be used; nothing when these are all.
fn selector(node: &NodeInfo, chosen: &[Chosen], candidates: &[Candidate<'_>]) -> Result<Option<NodeSelector>, String> {
    let mut merged = NodeSelectorTerm::default();
    for candidate in chosen.iter().map(|chosen| &candidates[chosen.candidate]) {
        let (spec, device) = (&candidate.slice.spec, candidate.device);
        let (name, selector) = match spec.per_device_node_selection {
            Some(true) => (&device.node_name, &device.node_selector),
            _ => (&spec.node_name, &spec.node_selector),
        };
        if name.is_some() || device.binds_to_node == Some(true) {
            return Ok(Some(only(&node.name)));
        }
        match selector.as_ref().map(|selector| selector.node_selector_terms.as_slice()) {
            None | Some([]) => {}
            Some([term]) => {
                extend(&mut merged.match_fields, &term.match_fields);
                extend(&mut merged.match_expressions, &term.match_expressions);
            }
            Some(terms) => return Err(format!("unsupported ResourceSlice.NodeSelector with {} terms", terms.len())),
        }
    }
    let any = merged.match_fields.is_some() || merged.match_expressions.is_some();
    Ok(any.then(|| NodeSelector { node_selector_terms: vec![merged] }))
}

fn only(node: &str) -> NodeSelector {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
    NodeSelector { node_selector_terms: vec![term] }
}

fn extend(into: &mut Option<Vec<NodeSelectorRequirement>>, from: &Option<Vec<NodeSelectorRequirement>>) {
    for requirement in from.iter().flatten() {
        let known = into.get_or_insert_default();
        if !known.contains(requirement) {
            known.push(requirement.clone());
        }
    }
}
