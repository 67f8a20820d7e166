//! Gives whole processors to containers of guaranteed pods; the others share what is left.
//!
//! Source: the static policy of `pkg/kubelet/cm/cpumanager`. What was given out is in `cpu_manager_state`, with
//! upstream's keys.

use crate::checkpoint::{self, CheckpointError};
use crate::cpu_set::CpuSet;
use crate::hints::{Hint, prefer, subsets};
use crate::layout::Layout;
use crate::options::CpuOptions;
use crate::take::take;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const SUM: &str = "checksum";

/// What a container cannot be given, and the reason that its pod shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CpuError {
    #[error("SMT Alignment Error: requested {0} cpus not multiple cpus per core = {1}")]
    Alignment(usize, usize),
    #[error("not enough cpus available to satisfy request: requested={0}, available={1}")]
    Few(usize, usize),
    #[error("{0}")]
    Kept(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    #[serde(rename = "policyName")]
    policy: String,
    #[serde(rename = "defaultCpuSet")]
    shared: String,
    #[serde(default)]
    entries: BTreeMap<String, BTreeMap<String, String>>,
}

/// The processors of a machine. Who asks for which container is the caller's to say.
pub(crate) struct Cpus {
    layout: Arc<Layout>,
    options: CpuOptions,
    reserved: CpuSet,
    path: PathBuf,
    given: BTreeMap<String, BTreeMap<String, CpuSet>>,
}

impl Cpus {
    /// With what an earlier run gave out.
    ///
    /// # Errors
    /// The file of it is damaged or of another policy.
    pub(crate) fn open(
        layout: Arc<Layout>,
        options: CpuOptions,
        reserved: CpuSet,
        path: PathBuf,
    ) -> Result<Self, CheckpointError> {
        let mut given = BTreeMap::new();
        if let Some(state) = checkpoint::read::<State>(&path, SUM)? {
            let corrupt = |why: String| CheckpointError::Corrupt { path: path.clone(), why };
            if state.policy != "static" {
                let why =
                    format!("configured policy \"static\" differs from state checkpoint policy {:?}", state.policy);
                return Err(corrupt(why));
            }
            for (uid, containers) in state.entries {
                let read = containers.into_iter().map(|(name, set)| Ok((name, set.parse::<CpuSet>()?)));
                let read: Result<_, crate::cpu_set::BadCpuSet> = read.collect();
                given.insert(uid, read.map_err(|e| corrupt(e.to_string()))?);
            }
        }
        Ok(Self { layout, options, reserved, path, given })
    }

    /// As many processors as are to be reserved, whole cores first.
    pub(crate) fn reserve(layout: &Layout, milli: u64) -> Option<CpuSet> {
        let count = usize::try_from(milli.div_ceil(1000)).ok()?;
        take(layout, &layout.all(), count)
    }

    fn exclusive(&self) -> CpuSet {
        self.given.values().flat_map(BTreeMap::values).fold(CpuSet::default(), |all, set| all.union(set))
    }

    /// What containers without processors of their own run on.
    pub(crate) fn shared(&self) -> CpuSet {
        let shared = self.layout.all().minus(&self.exclusive());
        if self.options.strict_reservation { shared.minus(&self.reserved) } else { shared }
    }

    /// Those that containers may be given, and are not.
    fn free(&self) -> CpuSet {
        self.layout.all().minus(&self.exclusive()).minus(&self.reserved)
    }

    pub(crate) fn assignable(&self) -> CpuSet {
        self.layout.all().minus(&self.reserved)
    }

    pub(crate) fn has(&self, uid: &str) -> bool {
        self.given.get(uid).is_some_and(|containers| !containers.is_empty())
    }

    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<&CpuSet> {
        self.given.get(uid)?.get(container)
    }

    /// Those of these containers of the pod, which end before another begins, as far as no other took them over.
    pub(crate) fn reusable(&self, uid: &str, before: &[&str]) -> CpuSet {
        let all = |ended: bool| {
            let of =
                self.given.get(uid).into_iter().flatten().filter(|(name, _)| before.contains(&name.as_str()) == ended);
            of.fold(CpuSet::default(), |all, (_, set)| all.union(set))
        };
        all(true).minus(&all(false))
    }

    /// The nodes that could serve so many.
    pub(crate) fn hints(&self, count: usize, reusable: &CpuSet) -> Vec<Hint> {
        let free = self.free().union(reusable);
        let nodes: CpuSet = self.layout.nodes.keys().copied().collect();
        let mut smallest = nodes.len();
        let mut fitting = Vec::new();
        for nodes in subsets(&nodes) {
            let cpus = self.layout.of_nodes(&nodes);
            if cpus.len() >= count {
                smallest = smallest.min(nodes.len());
            }
            if reusable.is_subset(&cpus) && free.and(&cpus).len() >= count {
                fitting.push(nodes);
            }
        }
        prefer(fitting, smallest)
    }

    /// Gives a container so many, of those nodes as far as they have them; what it has already it keeps.
    ///
    /// # Errors
    /// [`CpuError`]
    pub(crate) fn give(
        &mut self,
        uid: &str,
        container: &str,
        count: usize,
        nodes: Option<&CpuSet>,
        reusable: &CpuSet,
    ) -> Result<(), CpuError> {
        if self.of(uid, container).is_some() {
            return Ok(());
        }
        let per_core = self.layout.threads_per_core().max(1);
        if self.options.full_pcpus_only && !count.is_multiple_of(per_core) {
            return Err(CpuError::Alignment(count, per_core));
        }
        let free = self.free().union(reusable);
        let few = || CpuError::Few(count, free.len());
        let near = nodes.map_or_else(|| free.clone(), |nodes| free.and(&self.layout.of_nodes(nodes)));
        let mut taken = CpuSet::default();
        // What ends before it begins is used again first, then what is near, then what there is.
        for pool in [near.and(reusable), near, free.clone()] {
            let left = pool.minus(&taken);
            let more = take(&self.layout, &left, left.len().min(count - taken.len())).ok_or_else(few)?;
            taken = taken.union(&more);
        }
        if taken.len() < count {
            return Err(few());
        }
        self.given.entry(uid.to_owned()).or_default().insert(container.to_owned(), taken);
        self.keep().map_err(|e| CpuError::Kept(e.to_string()))
    }

    /// Takes back what pods have that are not among those; says whether there was something.
    pub(crate) fn retain(&mut self, stays: impl Fn(&str) -> bool) -> bool {
        let before = self.given.len();
        self.given.retain(|uid, _| stays(uid));
        let changed = self.given.len() != before;
        if changed && let Err(error) = self.keep() {
            tracing::warn!(%error, "what processors are given out can't be written down");
        }
        changed
    }

    fn keep(&self) -> Result<(), CheckpointError> {
        let text =
            |of: &BTreeMap<String, CpuSet>| of.iter().map(|(name, set)| (name.clone(), set.to_string())).collect();
        let state = State {
            policy: "static".to_owned(),
            shared: self.shared().to_string(),
            entries: self.given.iter().map(|(uid, of)| (uid.clone(), text(of))).collect(),
        };
        checkpoint::write(&self.path, &state, SUM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::examples::machine;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    fn cpus(layout: Layout, options: CpuOptions, folder: &tempfile::TempDir) -> Cpus {
        Cpus::open(layout.into(), options, set("0"), folder.path().join("cpu_manager_state")).unwrap()
    }

    #[test]
    fn processors_are_given_kept_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let open = || cpus(machine(2, 1, 2, 2), CpuOptions::default(), &folder);
        let mut all = open();
        all.give("u1", "c", 4, None, &CpuSet::default()).unwrap();
        assert_eq!(all.of("u1", "c"), Some(&set("2-3,6-7")));
        assert_eq!(all.give("u2", "c", 4, None, &CpuSet::default()), Err(CpuError::Few(4, 3)));
        let mut again = open();
        assert_eq!(again.shared(), set("0-1,4-5"));
        assert!(again.retain(|uid| uid != "u1"));
        assert_eq!(open().shared(), set("0-7"));
        let text = std::fs::read_to_string(folder.path().join("cpu_manager_state")).unwrap();
        assert!(text.contains(r#""defaultCpuSet":"0-7""#) && text.contains(r#""policyName":"static""#), "{text}");
    }

    #[test]
    fn what_ends_before_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = cpus(machine(1, 1, 4, 1), CpuOptions::default(), &folder);
        all.give("u", "init", 2, None, &CpuSet::default()).unwrap();
        let reusable = all.reusable("u", &["init"]);
        all.give("u", "c", 3, None, &reusable).unwrap();
        assert_eq!((all.of("u", "init"), all.of("u", "c")), (Some(&set("1-2")), Some(&set("1-3"))));
    }

    #[test]
    fn hints_name_the_nodes_that_do() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = cpus(machine(2, 1, 2, 1), CpuOptions::default(), &folder);
        let text = |hints: Vec<Hint>| -> Vec<String> {
            let mark = |h: &Hint| if h.preferred { "!" } else { "" };
            hints.iter().map(|h| format!("{}{}", h.nodes.clone().unwrap_or_default(), mark(h))).collect()
        };
        assert_eq!(text(all.hints(1, &CpuSet::default())), ["0!", "1!", "0-1"]);
        assert_eq!(text(all.hints(2, &CpuSet::default())), ["1!", "0-1"]);
        all.give("u", "c", 1, Some(&set("1")), &CpuSet::default()).unwrap();
        assert_eq!(all.of("u", "c"), Some(&set("2")));
        assert_eq!(text(all.hints(2, &CpuSet::default())), ["0-1"]);
    }

    #[test]
    fn half_cores_are_refused_where_whole_ones_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let options = CpuOptions { full_pcpus_only: true, strict_reservation: true };
        let mut all = cpus(machine(1, 1, 4, 2), options, &folder);
        let error = all.give("u", "c", 3, None, &CpuSet::default()).unwrap_err();
        assert_eq!(error.to_string(), "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2");
        assert_eq!(all.shared(), set("1-7"));
    }
}
