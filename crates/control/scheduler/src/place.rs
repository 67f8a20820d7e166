//! Finds a node for one pod and keeps its room: by the plugins alone, or with servers that are asked besides.

use crate::bind::{Before, decide};
use crate::cycle::{Misfit, best, find};
use crate::dra::reserve;
use crate::extender::{Extender, Filtered};
use crate::filter::{Plugin, Prepared};
use crate::metrics::Point;
use crate::pod::PodInfo;
use crate::run::{Scheduler, Turn, Unplaced};
use crate::score::scores;
use crate::shared::Ours;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::timings::Timings;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Node;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// A node, and what is to be done before the pod is bound to it.
type Placed = (String, Option<Before>);

impl Scheduler {
    /// The node for a pod, which counts there from now on.
    pub(crate) async fn place(&self, pod: &Arc<PodInfo>, ours: &Ours, turn: &mut Turn) -> Result<Placed, Unplaced> {
        let cares =
            |e: &Extender| (!e.settings.filter.is_empty() || !e.settings.prioritize.is_empty()) && e.cares_for(pod);
        if self.extenders.iter().any(cares) {
            return self.place_with_extenders(pod, ours, turn).await;
        }
        let mut snapshot = self.shared.snapshot.lock();
        let prepared = prepare(pod, ours, &snapshot, self.metrics.timings.sample()).map_err(Unplaced::Misfit)?;
        let began = Instant::now();
        let found = find(pod, &prepared, &snapshot, turn.start);
        turn.start = (turn.start + found.looked_at) % snapshot.nodes().len().max(1);
        let scoring = ours.counts.ran(Point::Filter, !found.nodes.is_empty(), began);
        let node = match found.nodes.as_slice() {
            [] => return Err(unplaced(&prepared, found.explain(pod))),
            [only] => only.name.clone(),
            many => {
                let scores = scores(pod, many, &prepared, &snapshot);
                many[best(&scores, &mut turn.random)].name.clone()
            }
        };
        ours.counts.ran(Point::Score, true, scoring);
        // What it was held against must not be copied when the pod is counted.
        drop((found, prepared));
        self.keep(pod, ours, node, &mut snapshot, turn)
    }

    /// The pod counts on its node from now on.
    fn keep(
        &self,
        pod: &Arc<PodInfo>,
        ours: &Ours,
        node: String,
        snapshot: &mut Snapshot,
        turn: &mut Turn,
    ) -> Result<Placed, Unplaced> {
        let began = Instant::now();
        let binds = ours.profile.filters_by(Plugin::VolumeBinding);
        let claims = match ours.profile.filters_by(Plugin::DynamicResources) {
            true => reserve(pod, &node, snapshot, &mut turn.random).map_err(Unplaced::Error)?,
            false => None,
        };
        let volumes = if binds { decide(pod, &node, snapshot) } else { None };
        let before = (volumes.is_some() || claims.is_some()).then_some(Before { volumes, claims });
        snapshot.set_pod(Arc::clone(pod), &node);
        self.shared.assumed.lock().insert(pod.key.clone());
        ours.counts.ran(Point::Reserve, true, began);
        Ok((node, before))
    }

    /// The same, while others are asked without anything being held: what they say may be of nodes that have changed.
    async fn place_with_extenders(&self, pod: &Arc<PodInfo>, ours: &Ours, turn: &mut Turn) -> Result<Placed, Unplaced> {
        let (mut nodes, mut failed) = self.found(pod, ours, turn)?;
        let asked: Vec<&Extender> = self.extenders.iter().filter(|extender| extender.cares_for(pod)).collect();
        for extender in &asked {
            if nodes.is_empty() {
                break;
            }
            match extender.filter(pod, &nodes).await {
                Ok(filtered) => self.take_out(&mut nodes, &mut failed, filtered),
                Err(error) if extender.settings.ignorable => {
                    tracing::warn!(pod = %pod.key, %error, "an extender that may be ignored did not filter");
                }
                Err(error) => return Err(Unplaced::Error(error.to_string())),
            }
        }
        if nodes.is_empty() {
            return Err(Unplaced::Misfit(failed));
        }
        let mut more: BTreeMap<String, i64> = BTreeMap::new();
        // One node alone needs no scores.
        for extender in asked.iter().filter(|_| nodes.len() > 1) {
            match extender.prioritize(pod, &nodes).await {
                Ok(scores) => scores.into_iter().for_each(|(node, score)| *more.entry(node).or_default() += score),
                // Whoever does not score leaves it to the others.
                Err(error) => tracing::warn!(pod = %pod.key, %error, "an extender did not score"),
            }
        }
        let mut snapshot = self.shared.snapshot.lock();
        // A measured attempt was measured when nodes were looked for.
        let prepared = prepare(pod, ours, &snapshot, None).map_err(Unplaced::Misfit)?;
        let left = nodes.iter().filter_map(|node| snapshot.node(node.name())).filter(|node| node.node.is_some());
        let left: Vec<&NodeInfo> = left.collect();
        if left.is_empty() {
            return Err(Unplaced::Error("the nodes that were found are gone".to_owned()));
        }
        let mut totals = scores(pod, &left, &prepared, &snapshot);
        for (total, node) in totals.iter_mut().zip(&left) {
            *total += more.get(&node.name).copied().unwrap_or(0);
        }
        let node = left[best(&totals, &mut turn.random)].name.clone();
        drop(prepared);
        self.keep(pod, ours, node, &mut snapshot, turn)
    }

    /// The nodes that will do by the plugins, and what is against the others.
    fn found(&self, pod: &PodInfo, ours: &Ours, turn: &mut Turn) -> Result<(Vec<Arc<Node>>, Misfit), Unplaced> {
        let snapshot = self.shared.snapshot.lock();
        let prepared = prepare(pod, ours, &snapshot, self.metrics.timings.sample()).map_err(Unplaced::Misfit)?;
        let began = Instant::now();
        let found = find(pod, &prepared, &snapshot, turn.start);
        turn.start = (turn.start + found.looked_at) % snapshot.nodes().len().max(1);
        ours.counts.ran(Point::Filter, !found.nodes.is_empty(), began);
        let nodes: Vec<Arc<Node>> = found.nodes.iter().filter_map(|node| node.node.clone()).collect();
        let failed = found.explain(pod);
        if nodes.is_empty() { Err(unplaced(&prepared, failed)) } else { Ok((nodes, failed)) }
    }

    /// Leaves the nodes that a server leaves.
    fn take_out(&self, nodes: &mut Vec<Arc<Node>>, failed: &mut Misfit, filtered: Filtered) {
        let snapshot = self.shared.snapshot.lock();
        for (node, why) in &filtered.failed {
            failed.note(why.as_str(), 1);
            failed.resolvable.extend(snapshot.place(node));
        }
        filtered.unresolvable.values().for_each(|why| failed.note(why.as_str(), 1));
        if filtered.nodes.len() < nodes.len() {
            failed.plugins.insert(Plugin::Extender);
        }
        nodes.retain(|node| filtered.nodes.iter().any(|name| name == node.name()));
    }
}

/// Why there is no node: none will do, unless the pod's claims are wrong.
fn unplaced(prepared: &Prepared, misfit: Misfit) -> Unplaced {
    let wrong = prepared.claims.as_ref().and_then(|claims| claims.failure());
    wrong.map_or(Unplaced::Misfit(misfit), |words| {
        Unplaced::Error(format!("running \"DynamicResources\" filter plugin: {words}"))
    })
}

fn prepare(pod: &PodInfo, ours: &Ours, snapshot: &Snapshot, timings: Option<Arc<Timings>>) -> Result<Prepared, Misfit> {
    let began = Instant::now();
    let mut prepared = Prepared::new(pod, &ours.profile, snapshot);
    prepared.iter_mut().for_each(|prepared| prepared.timings.clone_from(&timings));
    ours.counts.ran(Point::PreFilter, prepared.is_ok(), began);
    prepared.map_err(|rejection| Misfit::of_all(snapshot.known_nodes(), rejection))
}
