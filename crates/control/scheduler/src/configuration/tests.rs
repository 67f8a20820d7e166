//! Tables of configurations: what they come to, and what is wrong with others.

use crate::Configuration;
use crate::filter::Plugin;
use crate::profile::{Scorer, Strategy};
use std::time::Duration;

fn whole(rest: &str) -> String {
    format!("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n{rest}")
}

#[track_caller]
fn parse(rest: &str) -> Configuration {
    Configuration::parse(&whole(rest)).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refuse(rest: &str, expected: &str) {
    let error = Configuration::parse(&whole(rest)).expect_err("it should be refused");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn nothing_said_is_upstreams_default() {
    let read = parse("leaderElection: { leaderElect: false }\nparallelism: 16\n");
    let profile = &read.profiles[0];
    assert_eq!((profile.name.as_str(), profile.weights), ("default-scheduler", [3, 2, 2, 2, 1, 1, 1]));
    assert!(Plugin::ALL.into_iter().all(|plugin| profile.filters_by(plugin)) && profile.preempts && profile.gates);
    assert_eq!(read.backoff, [Duration::from_secs(1), Duration::from_secs(10)]);
}

// The example of "Scheduler Configuration", section "Multiple profiles".
#[test]
fn a_second_profile_may_score_nothing() {
    let read = parse(
        "profiles:
- schedulerName: default-scheduler
- schedulerName: no-scoring-scheduler
  plugins:
    preScore: { disabled: [{ name: '*' }] }
    score: { disabled: [{ name: '*' }] }
",
    );
    assert_eq!(read.profiles[0].weights, [3, 2, 2, 2, 1, 1, 1]);
    assert_eq!(read.profiles[1].weights, [0; 7]);
    assert!(read.profiles[1].filters_by(Plugin::NodeResourcesFit));
}

#[test]
fn weights_are_of_the_point_before_those_of_all_points() {
    let read = parse(
        "profiles:
- plugins:
    multiPoint:
      enabled: [{ name: NodeAffinity, weight: 7 }, { name: ImageLocality, weight: 5 }]
      disabled: [{ name: PodTopologySpread }]
    score:
      enabled: [{ name: ImageLocality, weight: 9 }, { name: InterPodAffinity }]
      disabled: [{ name: TaintToleration }]
    filter:
      disabled: [{ name: NodePorts }]
    postFilter: { disabled: [{ name: '*' }] }
",
    );
    let profile = &read.profiles[0];
    let weight = |scorer| profile.weight(scorer);
    assert_eq!((weight(Scorer::NodeAffinity), weight(Scorer::ImageLocality)), (7, 9));
    assert_eq!((weight(Scorer::InterPodAffinity), weight(Scorer::TaintToleration)), (1, 0));
    assert_eq!(weight(Scorer::PodTopologySpread), 0);
    assert!(!profile.filters_by(Plugin::NodePorts) && !profile.filters_by(Plugin::PodTopologySpread));
    assert!(profile.filters_by(Plugin::TaintToleration) && !profile.preempts);
}

#[test]
fn all_may_go_and_a_few_come_back() {
    let read = parse(
        "profiles:
- plugins:
    multiPoint:
      disabled: [{ name: '*' }]
      enabled: [{ name: PrioritySort }, { name: DefaultBinder }, { name: NodeResourcesFit, weight: 4 }]
",
    );
    let profile = &read.profiles[0];
    assert_eq!(profile.weights, [0, 0, 0, 0, 4, 0, 0]);
    let filters: Vec<&str> =
        Plugin::ALL.into_iter().filter(|p| profile.filters_by(*p)).map(|plugin| plugin.name()).collect();
    assert_eq!(filters, ["NodeResourcesFit"]);
}

#[test]
fn arguments_reach_their_plugins() {
    let read = parse(
        "percentageOfNodesToScore: 30
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
profiles:
- schedulerName: packing
  percentageOfNodesToScore: 70
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResourceGroups: [example.com]
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{ name: intel.com/foo, weight: 3 }, { name: intel.com/bar, weight: 5 }]
        requestedToCapacityRatio: { shape: [{ utilization: 0, score: 0 }, { utilization: 100, score: 10 }] }
  - name: InterPodAffinity
    args: { hardPodAffinityWeight: 40, ignorePreferredTermsOfExistingPods: true }
  - name: PodTopologySpread
    args:
      defaultingType: List
      defaultConstraints: [{ maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway }]
  - name: DefaultPreemption
    args: { minCandidateNodesPercentage: 5, minCandidateNodesAbsolute: 7 }
  - name: VolumeBinding
    args: { bindTimeoutSeconds: 60 }
  - name: NodeResourcesBalancedAllocation
    args: { resources: [{ name: cpu }, { name: memory }, { name: nvidia.com/gpu, weight: 1 }] }
  - name: MyOwn
    args: { anything: goes }
- schedulerName: other
",
    );
    let profile = &read.profiles[0];
    assert_eq!((profile.percentage, read.profiles[1].percentage), (70, 30));
    assert_eq!(profile.strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]));
    assert_eq!(profile.resources, [("intel.com/foo".to_owned(), 3), ("intel.com/bar".to_owned(), 5)]);
    assert!(profile.ignores("example.com/thing") && !profile.ignores("example.org/thing"));
    assert_eq!((profile.required_affinity_weight, profile.ignores_preferences_of_others), (40, true));
    assert_eq!(profile.default_constraints().len(), 1);
    assert_eq!((profile.min_candidates_percent, profile.min_candidates), (5, 7));
    assert_eq!((profile.bind_timeout, profile.balanced.len()), (Duration::from_secs(60), 3));
    assert_eq!(read.backoff, [Duration::from_secs(2), Duration::from_secs(20)]);
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    for (rest, expected) in [
        ("profile: []", "strict decoding error: unknown field \"profile\""),
        (
            "profiles:\n- plugins: { score: { enable: [] } }\n  weight: 1",
            "strict decoding error: unknown field \"profiles[0].plugins.score.enable\", unknown field \
             \"profiles[0].weight\"",
        ),
        ("parallelism: 0", "parallelism: Invalid value: 0: should be an integer value greater than zero"),
        ("percentageOfNodesToScore: 101", "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"),
        (
            "podInitialBackoffSeconds: 0\npodMaxBackoffSeconds: -1",
            "[podInitialBackoffSeconds: Invalid value: 0: must be greater than 0, podMaxBackoffSeconds: Invalid \
             value: -1: must be greater than or equal to PodInitialBackoffSeconds]",
        ),
        (
            "profiles: [{ schedulerName: a }, { schedulerName: a }]",
            "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
        ),
        ("profiles: [{ schedulerName: a }, {}]", "profiles[1].schedulerName: Required value"),
        (
            "profiles: [{ pluginConfig: [{ name: InterPodAffinity, args: { hardPodAffinityWeight: 101 } }] }]",
            "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
        ),
        (
            "profiles: [{ pluginConfig: [{ name: NodeResourcesFit, args: { scoringStrategy: { type: Most } } }] }]",
            "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"Most\": supported values: \
             \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
        ),
        (
            "profiles: [{ pluginConfig: [{ name: DefaultPreemption, args: { kind: InterPodAffinityArgs } }] }]",
            "profiles[0].pluginConfig[0].args: Invalid value: {\"kind\":\"InterPodAffinityArgs\"}: has to match \
             plugin args",
        ),
        (
            "percentageOfNodesToScore: many",
            "percentageOfNodesToScore: Invalid value: \"many\": must be an integer of 32 bits",
        ),
    ] {
        refuse(rest, expected);
    }
}

#[test]
fn sets_that_make_no_scheduler_are_refused_in_upstreams_words() {
    refuse(
        "profiles: [{ plugins: { filter: { enabled: [{ name: Nope }] } } }]",
        "FilterPlugin \"Nope\" does not exist",
    );
    refuse(
        "profiles: [{ plugins: { filter: { enabled: [{ name: ImageLocality }] } } }]",
        "plugin \"ImageLocality\" does not extend FilterPlugin plugin",
    );
    refuse(
        "profiles: [{ plugins: { score: { enabled: [{ name: ImageLocality }, { name: ImageLocality }] } } }]",
        "plugin \"ImageLocality\" already registered as \"ScorePlugin\"",
    );
    refuse(
        "profiles: [{ plugins: { bind: { disabled: [{ name: '*' }] } } }]",
        "at least one bind plugin is needed for profile with scheduler name \"default-scheduler\"",
    );
    refuse(
        "profiles: [{ plugins: { queueSort: { disabled: [{ name: PrioritySort }] } } }]",
        "only one queue sort plugin required for profile with scheduler name \"default-scheduler\", but got 0",
    );
}

#[test]
fn extenders_are_checked() {
    let read = parse(
        "extenders:
- urlPrefix: http://127.0.0.1:8888/scheduler
  filterVerb: filter
  prioritizeVerb: prioritize
  weight: 5
  httpTimeout: 1m30s
  nodeCacheCapable: true
  ignorable: true
  managedResources: [{ name: example.com/foo, ignoredByScheduler: true }]
",
    );
    let extender = &read.extenders[0];
    assert_eq!((extender.timeout, extender.weight), (Duration::from_secs(90), 5));
    assert!(extender.knows_nodes && extender.ignorable && read.profiles[0].ignores("example.com/foo"));
    refuse(
        "extenders: [{ urlPrefix: 'http://a', prioritizeVerb: p }]",
        "extenders[0].weight: Invalid value: null: must have a positive weight applied to it",
    );
    refuse(
        "extenders: [{ urlPrefix: 'http://a', bindVerb: b }, { urlPrefix: 'http://b', bindVerb: b }]",
        "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind",
    );
    let read = parse("extenders: [{ urlPrefix: 'https://a', filterVerb: f }]");
    assert!(read.check().is_err_and(|error| error.to_string().contains("https needs tlsConfig.caFile")));
}

#[test]
fn other_kinds_are_refused() {
    let error = Configuration::parse("apiVersion: v1\nkind: Pod\n").unwrap_err().to_string();
    assert!(error.starts_with("no kind \"Pod\" is registered for version \"v1\""), "{error}");
    assert!(Configuration::parse("{").is_err() && Configuration::parse("[]").is_err());
}
