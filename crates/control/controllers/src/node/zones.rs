//! Decides when pods must leave nodes that aren't ready: node after node, at the rate of the state of each zone.
//!
//! Where a whole zone falls silent the fault is its own; where all do it is more likely that of this side, and nothing
//! is made to leave at all. Nothing here is looked at for a heartbeat: only what changes is counted.
//!
//! Source: upstream's `node_lifecycle_controller.go` and "Nodes: Rate limits on eviction" of the documentation.

use super::plan::{condition, is_executing};
use super::rate::Bucket;
use super::settings::Settings;
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// What a kubelet says of its node, or what is said in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// It said that it is not ready, or has fallen silent.
    Failing,
    /// Nothing yet.
    Unsaid,
}

/// What counts of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look<'a> {
    /// Region and zone; empty for a node that does not say.
    pub zone: (&'a str, &'a str),
    pub health: Health,
    /// Whether its zone's state is none of its business.
    pub excluded: bool,
    /// Whether pods must leave it already.
    pub tainted: bool,
}

impl<'a> Look<'a> {
    pub fn at(node: &'a Node) -> Self {
        let label = |old: &str, new: &str| node.label(old).or_else(|| node.label(new)).unwrap_or_default();
        let health = match condition(node, "Ready").map(|ready| ready.status.as_str()) {
            Some("True") => Health::Ready,
            Some("False" | "Unknown") => Health::Failing,
            _ => Health::Unsaid,
        };
        let region = label("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region");
        Self {
            zone: (region, label("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone")),
            health,
            excluded: node.label(EXCLUDED).is_some(),
            tainted: is_executing(node),
        }
    }
}

/// How a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Normal,
    /// Many nodes aren't ready.
    Partial,
    /// No node is ready.
    Full,
}

/// The state of a zone with so many nodes of each kind, of which there is one at least.
pub fn state(ready: usize, not_ready: usize, unhealthy: f64) -> State {
    let share = not_ready as f64 / (ready + not_ready) as f64;
    match ready {
        0 => State::Full,
        _ if not_ready > 2 && share >= unhealthy => State::Partial,
        _ => State::Normal,
    }
}

/// How many nodes of a zone per second pods are made to leave.
pub fn rate(state: State, size: usize, settings: &Settings) -> f64 {
    match state {
        State::Normal | State::Full => settings.rate,
        State::Partial if size > settings.large => settings.reduced_rate,
        State::Partial => 0.0,
    }
}

/// What happens to the `NoExecute` taint of a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execute {
    /// It gets one.
    Add,
    /// It keeps the one it has, with the key that fits.
    Keep,
    /// It has none.
    Remove,
}

/// What a change means for all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    None,
    /// No node of any zone is ready any more: all taints go.
    Stops,
    /// One is ready again: what was heard of nodes until now says nothing.
    Resumes,
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This node gets its taint.
    Taint(Arc<str>),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something changes.
    Nothing,
}

type Name = Arc<(String, String)>;

#[derive(Debug)]
struct Member {
    zone: Name,
    health: Health,
    excluded: bool,
    tainted: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It needs no taint, or has it.
    Fine,
    /// It is in its zone's line, and not before this time to get one.
    Waits(Instant),
    /// It may have one.
    May,
}

#[derive(Debug)]
struct Zone {
    ready: usize,
    not_ready: usize,
    excluded: usize,
    bucket: Bucket,
    /// Nodes that are to get a taint, by when.
    line: BTreeSet<(Instant, Arc<str>)>,
}

/// All nodes and their zones.
#[derive(Debug)]
pub struct Zones {
    settings: Settings,
    members: BTreeMap<Arc<str>, Member>,
    zones: BTreeMap<Name, Zone>,
    /// Zones that have a state, and how many of them are without a node that is ready.
    counted: usize,
    full: usize,
    /// Until all nodes were seen once nothing is decided.
    started: bool,
    /// Whether no node of any zone is ready.
    stopped: bool,
}

impl Zones {
    pub fn new(settings: Settings) -> Self {
        let (members, zones) = Default::default();
        Self { settings, members, zones, counted: 0, full: 0, started: false, stopped: false }
    }

    /// From here on all nodes are known that were there.
    pub fn start(&mut self, now: Instant) -> Turn {
        self.started = true;
        let turn = self.turn(now);
        self.zones.values_mut().for_each(|zone| zone.set_rate(&self.settings, self.stopped, now));
        turn
    }

    /// Takes in how a node is now; nothing for one that is gone.
    pub fn see(&mut self, name: &str, look: Option<Look>, now: Instant) -> Turn {
        let (name, old) = match self.members.remove_entry(name) {
            Some((name, old)) => (name, Some(old)),
            None => (Arc::from(name), None),
        };
        let new = look.map(|look| self.member(&look, old.as_ref(), now));
        let touched = [&new, &old].map(|member| member.as_ref().map(|member| Arc::clone(&member.zone)));
        if let Some(member) = new {
            self.join(&name, &member, now);
            self.members.insert(Arc::clone(&name), member);
        }
        if let Some(member) = old {
            self.leave(&name, &member);
        }
        if !self.started {
            return Turn::None;
        }
        let turn = self.turn(now);
        for zone in touched.iter().flatten() {
            if let Some(zone) = self.zones.get_mut(zone) {
                zone.set_rate(&self.settings, self.stopped, now);
            }
        }
        turn
    }

    /// What is next; a node that is told here has used its zone's token.
    pub fn next(&mut self, now: Instant) -> Next {
        if !self.started {
            return Next::Nothing;
        }
        let mut soonest: Option<Instant> = None;
        for zone in self.zones.values_mut() {
            let (Some((due, _)), Some(token)) = (zone.line.first(), zone.bucket.next()) else { continue };
            let at = token.max(*due);
            if at > now {
                soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
            } else if zone.bucket.take(now)
                && let Some((_, name)) = zone.line.pop_first()
            {
                if let Some(member) = self.members.get_mut(&name) {
                    member.stage = Stage::May;
                }
                return Next::Taint(name);
            }
        }
        soonest.map_or(Next::Nothing, Next::At)
    }

    /// What happens to the taint of a node that is not ready.
    pub fn execute(&self, name: &str) -> Execute {
        match self.members.get(name) {
            _ if self.stopped => Execute::Remove,
            Some(member) if member.stage == Stage::May => Execute::Add,
            _ => Execute::Keep,
        }
    }

    /// The names of nodes that have the taint.
    pub fn tainted(&self) -> impl Iterator<Item = &str> {
        self.members.iter().filter(|(_, member)| member.tainted).map(|(name, _)| &**name)
    }

    fn member(&self, look: &Look, old: Option<&Member>, now: Instant) -> Member {
        let zone = (look.zone.0.to_owned(), look.zone.1.to_owned());
        let zone = self.zones.get_key_value(&zone).map_or_else(|| Arc::new(zone), |(zone, _)| Arc::clone(zone));
        let first = if self.started { now + self.settings.period } else { now };
        let stage = match old.map(|old| old.stage) {
            _ if look.tainted || look.health != Health::Failing => Stage::Fine,
            Some(stage @ (Stage::Waits(_) | Stage::May)) => stage,
            // It has just failed, or somebody took its taint away.
            Some(Stage::Fine) | None => Stage::Waits(first),
        };
        Member { zone, health: look.health, excluded: look.excluded, tainted: look.tainted, stage }
    }

    fn join(&mut self, name: &Arc<str>, member: &Member, now: Instant) {
        let zone = self.zones.entry(Arc::clone(&member.zone)).or_insert_with(|| Zone {
            ready: 0,
            not_ready: 0,
            excluded: 0,
            bucket: Bucket::new(self.settings.rate, now),
            line: BTreeSet::new(),
        });
        let before = zone.state(&self.settings);
        *zone.count(member) += 1;
        if let Stage::Waits(due) = member.stage {
            zone.line.insert((due, Arc::clone(name)));
        }
        let after = zone.state(&self.settings);
        self.recount(before, after);
    }

    fn leave(&mut self, name: &Arc<str>, member: &Member) {
        let Some(zone) = self.zones.get_mut(&member.zone) else { return };
        let before = zone.state(&self.settings);
        *zone.count(member) -= 1;
        let waits = self.members.get(name).filter(|new| new.zone == member.zone).map(|new| new.stage);
        if let Stage::Waits(due) = member.stage
            && waits != Some(member.stage)
        {
            zone.line.remove(&(due, Arc::clone(name)));
        }
        let after = zone.state(&self.settings);
        if zone.ready + zone.not_ready + zone.excluded == 0 {
            self.zones.remove(&member.zone);
        }
        self.recount(before, after);
    }

    fn recount(&mut self, before: Option<State>, after: Option<State>) {
        let one = |state: Option<State>, full: bool| usize::from(state.is_some_and(|s| !full || s == State::Full));
        self.counted = self.counted + one(after, false) - one(before, false);
        self.full = self.full + one(after, true) - one(before, true);
    }

    fn turn(&mut self, now: Instant) -> Turn {
        let all = self.full == self.counted;
        // A cluster without nodes is neither up nor down.
        if self.counted == 0 || all == self.stopped {
            return Turn::None;
        }
        self.stopped = all;
        for (name, member) in &mut self.members {
            // Whoever was to get a taint, and has not got it yet, goes back into the line.
            if all
                && member.stage == Stage::May
                && let Some(zone) = self.zones.get_mut(&member.zone)
            {
                member.stage = Stage::Waits(now);
                zone.line.insert((now, Arc::clone(name)));
            }
        }
        self.zones.values_mut().for_each(|zone| zone.set_rate(&self.settings, all, now));
        if all { Turn::Stops } else { Turn::Resumes }
    }
}

impl Zone {
    fn count(&mut self, member: &Member) -> &mut usize {
        match member.health {
            _ if member.excluded => &mut self.excluded,
            Health::Ready => &mut self.ready,
            Health::Failing | Health::Unsaid => &mut self.not_ready,
        }
    }

    /// Nothing where no node counts.
    fn state(&self, settings: &Settings) -> Option<State> {
        (self.ready + self.not_ready > 0).then(|| state(self.ready, self.not_ready, settings.unhealthy))
    }

    fn set_rate(&mut self, settings: &Settings, stopped: bool, now: Instant) {
        let state = self.state(settings).unwrap_or(State::Normal);
        let rate = if stopped { 0.0 } else { rate(state, self.ready + self.not_ready, settings) };
        self.bucket.change(rate, now);
    }
}
