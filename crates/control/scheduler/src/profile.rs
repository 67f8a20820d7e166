//! How one scheduler, by the name that pods ask for, filters and scores: upstream's profile, with its defaults.

use crate::filter::{Plugin, Plugins};
use crate::rules::NodeRules;
use crate::run::NAME;
use crate::spread::{HOSTNAME, ZONE};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Those who score nodes, by their place among the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scorer {
    TaintToleration,
    NodeAffinity,
    PodTopologySpread,
    InterPodAffinity,
    NodeResourcesFit,
    NodeResourcesBalancedAllocation,
    ImageLocality,
}

pub(crate) const SCORERS: usize = 7;

impl Scorer {
    /// All of them, in upstream's order.
    pub(crate) const ALL: [Self; SCORERS] = [
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::NodeResourcesFit,
        Self::NodeResourcesBalancedAllocation,
        Self::ImageLocality,
    ];

    /// The name that configurations and metrics use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TaintToleration => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::PodTopologySpread => "PodTopologySpread",
            Self::InterPodAffinity => "InterPodAffinity",
            Self::NodeResourcesFit => "NodeResourcesFit",
            Self::NodeResourcesBalancedAllocation => "NodeResourcesBalancedAllocation",
            Self::ImageLocality => "ImageLocality",
        }
    }
}

/// How the amounts that are taken of a node make its score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of a line: utilization in percent, and the score there, of 100.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// A spread constraint for pods that have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DefaultConstraint {
    pub(crate) key: String,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: i64,
    pub(crate) hard: bool,
    pub(crate) honor_affinity: bool,
    pub(crate) honor_taints: bool,
}

/// What pods that name this scheduler get.
#[derive(Clone, Debug)]
pub struct Profile {
    pub(crate) name: String,
    pub(crate) filters: Plugins,
    /// By [`Scorer`]; 0 for one that does not score.
    pub(crate) weights: [i64; SCORERS],
    /// Whether pods with gates wait.
    pub(crate) gates: bool,
    /// Whether pods wait until their claims to devices are there.
    pub(crate) waits_for_claims: bool,
    /// Whether pods of lower priority may have to leave.
    pub(crate) preempts: bool,
    /// Of the nodes, how many that will do are looked for; by the size of the cluster when 0.
    pub(crate) percentage: usize,
    pub(crate) strategy: Strategy,
    /// What the strategy looks at, with weights.
    pub(crate) resources: Vec<(String, i64)>,
    /// Resources, and the prefixes of resources, that need not be there.
    pub(crate) ignored_resources: Vec<String>,
    pub(crate) ignored_groups: Vec<String>,
    /// What should be taken alike.
    pub(crate) balanced: Vec<String>,
    /// What a required term of a running pod weighs when nodes are scored for a pod that it matches.
    pub(crate) required_affinity_weight: i64,
    pub(crate) ignores_preferences_of_others: bool,
    /// None are upstream's own.
    pub(crate) spread: Option<Vec<DefaultConstraint>>,
    /// Affinity to nodes for all pods.
    pub(crate) added_affinity: Option<NodeRules>,
    pub(crate) min_candidates_percent: usize,
    pub(crate) min_candidates: usize,
    /// How long binders and provisioners may take.
    pub(crate) bind_timeout: Duration,
}

static SYSTEM: LazyLock<Vec<DefaultConstraint>> = LazyLock::new(|| {
    let make = |(key, max_skew): (&str, i64)| DefaultConstraint {
        key: key.to_owned(),
        max_skew,
        min_domains: 1,
        hard: false,
        honor_affinity: true,
        honor_taints: false,
    };
    [(HOSTNAME, 3), (ZONE, 5)].into_iter().map(make).collect()
});

impl Profile {
    /// Upstream's defaults, for pods that name this scheduler.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            filters: Plugins::all(),
            weights: [3, 2, 2, 2, 1, 1, 1],
            gates: true,
            waits_for_claims: true,
            preempts: true,
            percentage: 0,
            strategy: Strategy::LeastAllocated,
            resources: vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)],
            ignored_resources: Vec::new(),
            ignored_groups: Vec::new(),
            balanced: vec!["cpu".to_owned(), "memory".to_owned()],
            required_affinity_weight: 1,
            ignores_preferences_of_others: false,
            spread: None,
            added_affinity: None,
            min_candidates_percent: 10,
            min_candidates: 100,
            bind_timeout: Duration::from_secs(600),
        }
    }

    pub(crate) fn weight(&self, scorer: Scorer) -> i64 {
        self.weights[scorer as usize]
    }

    pub(crate) fn filters_by(&self, plugin: Plugin) -> bool {
        self.filters.contains(plugin)
    }

    pub(crate) fn default_constraints(&self) -> &[DefaultConstraint] {
        self.spread.as_deref().unwrap_or(&SYSTEM)
    }

    pub(crate) fn spreads_by_system_defaults(&self) -> bool {
        self.spread.is_none()
    }

    /// Whether an amount of a resource need not be there.
    pub(crate) fn ignores(&self, resource: &str) -> bool {
        if self.ignored_resources.is_empty() && self.ignored_groups.is_empty() {
            return false;
        }
        let group = resource.split_once('/').map_or("", |(group, _)| group);
        self.ignored_resources.iter().any(|name| name == resource)
            || (!group.is_empty() && self.ignored_groups.iter().any(|name| name == group))
    }
}

/// The profile of a cluster that configures none.
pub fn default_profile() -> Arc<Profile> {
    static DEFAULT: LazyLock<Arc<Profile>> = LazyLock::new(|| Arc::new(Profile::named(NAME)));
    Arc::clone(&DEFAULT)
}
