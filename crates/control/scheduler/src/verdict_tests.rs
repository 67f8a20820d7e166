//! Clusters that change at random, on which the quick way must choose what the plain one does.

use crate::filter::{Prepared, misfit_with_nominated};
use crate::snapshot::NodeInfo;
use crate::tests::{merge, node, pod, snapshot};
use crate::verdicts::Verdict;
use crate::{Choice, Misfit, PodInfo, Preemption, Profile, Snapshot, default_profile, preempt, schedule};
use pintle_types::Kind;
use pintle_types::k8s::api::policy::v1::PodDisruptionBudget;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::sync::Arc;

const NODES: usize = 12;

type Budgets = Vec<Arc<PodDisruptionBudget>>;

fn one_of<T: Copy>(random: &mut StdRng, all: &[T]) -> T {
    all[random.random_range(0..all.len())]
}

fn some_pod(random: &mut StdRng, name: &str, priorities: &[i32], cpu: &[&str], shy: f64) -> Arc<PodInfo> {
    let cpu = one_of(random, cpu);
    let app = one_of(random, &["db", "web"]);
    let start = one_of(random, &["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    let mut value = json!({
        "metadata": { "labels": { "app": app }, "uid": name },
        "spec": {
            "priority": one_of(random, priorities),
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }],
        },
    });
    if random.random_bool(0.8) {
        value["status"] = json!({ "startTime": start });
    }
    if random.random_bool(0.1) {
        let ports = json!([{ "containerPort": 80, "hostPort": one_of(random, &[80, 81]) }]);
        value["spec"]["containers"][0]["ports"] = ports;
    }
    if random.random_bool(shy) {
        let labels = json!({ "matchLabels": { "app": one_of(random, &["db", "web"]) } });
        let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": labels });
        let rule = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] });
        merge(&mut value["spec"], json!({ "affinity": { "podAntiAffinity": rule } }));
    }
    pod(name, value)
}

fn some_node(random: &mut StdRng) -> (String, Value) {
    let mut more = json!({ "status": { "allocatable": { "cpu": one_of(random, &["1", "2", "2", "3"]) } } });
    match random.random_range(0..10) {
        0 => merge(&mut more, json!({ "spec": { "unschedulable": true } })),
        1 => merge(&mut more, json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } })),
        _ => {}
    }
    (format!("node-{}", random.random_range(0..NODES)), more)
}

fn some_budget(random: &mut StdRng) -> Arc<PodDisruptionBudget> {
    let (name, allowed) = (one_of(random, &["b", "c"]), one_of(random, &[0, 0, 1, 2]));
    let value = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": one_of(random, &["db", "web"]) } } },
        "status": { "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 },
    });
    Arc::new(PodDisruptionBudget::from_value(value).unwrap())
}

/// Changes something of all snapshots alike.
fn change(random: &mut StdRng, states: &mut [&mut Snapshot], budgets: &mut Budgets) {
    let (what, name) = (random.random_range(0..20), format!("x-{}", random.random_range(0..80)));
    let (host, more) = some_node(random);
    let comer = some_pod(random, &name, &[0, 1, 3, 7, 9], &["400m", "500m", "1", "1500m"], 0.01);
    let waiting = one_of(random, &["waiting-0", "waiting-1", "waiting-2"]);
    let waiting = some_pod(random, waiting, &[4, 5, 6], &["400m", "1"], 0.3);
    let budget = some_budget(random);
    budgets.retain(|known| !(15..=17).contains(&what) || known.name() != budget.name());
    if (15..=16).contains(&what) {
        budgets.push(Arc::clone(&budget));
    }
    for state in states {
        match what {
            0..=7 => _ = state.set_pod(Arc::clone(&comer), &host),
            8..=9 => _ = state.remove_pod(&comer.key),
            10..=11 => state.set_node(node(&host, more.clone())),
            12 => state.remove_node(&host),
            13 => state.nominate(Arc::clone(&waiting), &host),
            14 => _ = state.forget_nomination(&waiting.key),
            15..=16 => state.set_budget(&budget.key(), Some(Arc::clone(&budget))),
            17 => state.set_budget(&budget.key(), None),
            // Told again as it is, or a little later.
            _ => {
                let known = state.node_of(&comer.key).map(|node| node.name.clone());
                known.into_iter().for_each(|host| _ = state.set_pod(Arc::clone(&comer), &host));
            }
        }
    }
}

/// The order of pods, the most important first.
fn importance(pod: &PodInfo) -> impl Ord + '_ {
    let start = pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    (Reverse(pod.priority), start.is_none(), start, &pod.key.name)
}

/// Whether the pods' leaving, in this order, would hurt a budget by the last.
fn hurts(pods: &[Arc<PodInfo>], budgets: &Budgets) -> bool {
    let Some(last) = pods.last() else { return false };
    budgets.iter().any(|budget| {
        let wanted = budget.spec.as_ref().and_then(|s| s.selector.as_ref()?.match_labels.as_ref()?.get("app").cloned());
        let selects = |pod: &PodInfo| pod.label("app") == wanted.as_deref();
        let leave = pods.iter().filter(|pod| selects(pod)).count();
        let allowed = budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0);
        selects(last) && leave > usize::try_from(allowed).unwrap_or(0)
    })
}

/// Who must leave the node, and how many of them budgets would keep. Each question is asked of a node made anew.
fn victims(
    pod: &PodInfo,
    profile: &Arc<Profile>,
    place: usize,
    state: &Snapshot,
    budgets: &Budgets,
) -> Option<(Vec<Arc<PodInfo>>, usize)> {
    let node = &state.nodes()[place];
    let fits_without = |gone: &[Arc<PodInfo>]| {
        let (mut emptied, mut prepared) = (node.clone(), Prepared::new(pod, profile, state).unwrap());
        for victim in gone {
            emptied.remove(&victim.key);
            prepared.count(pod, node, victim, -1, state.namespaces());
        }
        misfit_with_nominated(pod, &emptied, &prepared, state).is_none()
    };
    let mut gone: Vec<Arc<PodInfo>> = node.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if gone.is_empty() || !fits_without(&gone) {
        return None;
    }
    gone.sort_by(|a, b| importance(a).cmp(&importance(b)));
    let guarded = |i: usize| hurts(&gone[..=i], budgets);
    let (first, last): (Vec<usize>, Vec<usize>) = (0..gone.len()).partition(|i| guarded(*i));
    let (all, protected) = (gone.clone(), first.clone());
    for i in first.into_iter().chain(last) {
        let spared: Vec<Arc<PodInfo>> = gone.iter().filter(|p| p.key != all[i].key).cloned().collect();
        if fits_without(&spared) {
            gone = spared;
        }
    }
    let violations = protected.iter().filter(|i| gone.iter().any(|p| p.key == all[**i].key)).count();
    Some((gone, violations))
}

/// Upstream's order of what is lost.
fn loss(victims: &[Arc<PodInfo>], violations: usize) -> impl Ord + use<> {
    let highest = victims.iter().map(|p| p.priority).max();
    let sum: i64 = victims.iter().map(|p| i64::from(p.priority) + (1 << 31)).sum();
    let start = |p: &Arc<PodInfo>| p.pod.status.as_ref().and_then(|s| s.start_time.clone());
    let starts = victims.iter().filter(|p| Some(p.priority) == highest).map(|p| (start(p).is_none(), start(p)));
    (violations, highest, sum, victims.len(), Reverse(starts.min()))
}

fn told(preemption: Preemption) -> String {
    match preemption {
        Preemption::NotEligible(why_not) => why_not.to_owned(),
        Preemption::NoNode(why_not) => why_not,
        Preemption::Room { node, victims } => name(&node, &victims),
    }
}

fn name(node: &str, victims: &[Arc<PodInfo>]) -> String {
    let names: Vec<&str> = victims.iter().map(|v| v.key.name.as_str()).collect();
    format!("{node}: {}", names.join(" "))
}

/// The best of the first offers from a random node on, in the plainest way.
fn plainly(
    pod: &PodInfo,
    profile: &Arc<Profile>,
    state: &Snapshot,
    misfit: &Misfit,
    budgets: &Budgets,
    random: &mut StdRng,
) -> Option<String> {
    let places = &misfit.resolvable;
    let offset = if places.is_empty() { 0 } else { random.random_range(0..places.len()) };
    let wanted = profile.min_candidates.max(places.len() * profile.min_candidates_percent / 100);
    let mut offers = Vec::new();
    for place in places.iter().cycle().skip(offset).take(places.len()) {
        let Some((gone, violations)) = victims(pod, profile, *place, state, budgets) else { continue };
        offers.push((loss(&gone, violations), violations, name(&state.nodes()[*place].name, &gone)));
        if offers.len() >= wanted && offers.iter().any(|(_, violations, _)| *violations == 0) {
            break;
        }
    }
    let best = offers.iter().map(|(loss, ..)| loss).min()?;
    offers.iter().find(|(loss, ..)| loss == best).map(|(.., told)| told.clone())
}

/// Pods of few kinds, one after the other, to be placed on two clusters that are the same but for what is kept.
fn compare(seed: u64) -> [usize; 3] {
    let mut random = StdRng::seed_from_u64(seed);
    let profile = Arc::new(Profile { min_candidates: 3, ..Profile::named("default-scheduler") });
    let kind = |random: &mut StdRng| some_pod(random, "kind", &[1, 4, 8], &["1", "1500m", "2"], 0.2);
    let kinds: [Arc<PodInfo>; 3] = std::array::from_fn(|_| kind(&mut random));
    let (mut kept, mut plain, mut budgets) = (Snapshot::default(), Snapshot::default(), Budgets::new());
    for i in 0..NODES {
        [&mut kept, &mut plain].into_iter().for_each(|state| state.set_node(node(&format!("node-{i}"), json!({}))));
    }
    let mut outcomes = [0; 3];
    for step in 0..250 {
        change(&mut random, &mut [&mut kept, &mut plain], &mut budgets);
        if step < 90 {
            continue;
        }
        *plain.verdicts() = Default::default();
        let mut wanted = (*kinds[random.random_range(0..kinds.len())].pod).clone();
        wanted.metadata.name = Some(one_of(&mut random, &["p", "q", "waiting-0", "waiting-1"]).to_owned());
        let pod = PodInfo::new(Arc::new(wanted));
        let (start, seed) = (random.random_range(0..NODES), random.random());
        let place = |state| -> Result<Choice<'_>, Misfit> {
            schedule(&pod, &profile, state, start, &mut StdRng::seed_from_u64(seed))
        };
        let (quick, slow) = (place(&kept), place(&plain));
        assert_eq!(quick, slow, "step {step}");
        let Err(misfit) = quick else {
            outcomes[0] += 1;
            continue;
        };
        let ask = |state| told(preempt(&pod, &profile, state, &misfit, &mut StdRng::seed_from_u64(seed)));
        let quick = ask(&kept);
        assert_eq!(quick, ask(&plain), "step {step}");
        let waits = quick.starts_with("not eligible");
        let expected = plainly(&pod, &profile, &plain, &misfit, &budgets, &mut StdRng::seed_from_u64(seed));
        match expected.filter(|_| !waits) {
            Some(expected) => assert_eq!(quick, expected, "step {step}"),
            None => assert!(waits || quick.starts_with("0/"), "step {step}: {quick}"),
        }
        outcomes[if quick.starts_with("node-") { 1 } else { 2 }] += 1;
    }
    outcomes
}

#[test]
fn what_is_kept_changes_no_choice() {
    let mut all = [0; 3];
    for seed in 0..40 {
        let result = std::panic::catch_unwind(|| compare(seed));
        let outcomes = result.unwrap_or_else(|_| panic!("seed {seed}"));
        all.iter_mut().zip(outcomes).for_each(|(sum, more)| *sum += more);
    }
    assert!(all.iter().all(|outcome| *outcome > 300), "fits, makes room and waits often: {all:?}");
}

#[test]
fn a_node_is_looked_at_again_when_it_was_touched() {
    let urgent = |name: &str| pod(name, json!({ "spec": { "priority": 9 } }));
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let mut state = snapshot(&nodes, &[(pod("x", json!({})), "b"), (pod("y", json!({})), "a")]);
    let looked = |state: &Snapshot, name: &str| {
        let pod = urgent(name);
        let prepared = Prepared::new(&pod, &default_profile(), state).unwrap();
        let mut verdicts = state.verdicts();
        verdicts.keep(&pod, &prepared, state);
        let mut known = verdicts.of(&pod, &prepared, state).expect("such pods look at nodes alone");
        let mut looked: Vec<&str> = Vec::new();
        for (place, node) in state.nodes().iter().enumerate() {
            known.verdict(place, || {
                looked.push(&node.name);
                Verdict::WillDo
            });
        }
        looked.join(" ")
    };
    assert_eq!(looked(&state, "p"), "a b");
    assert_eq!(looked(&state, "q"), "", "another of the kind");
    state.set_pod(pod("z", json!({})), "b");
    assert_eq!(looked(&state, "q"), "b");
    state.nominate(urgent("p"), "a");
    assert_eq!(looked(&state, "q"), "a");
    // To whom a node is promised, it is another node than to others.
    assert_eq!([looked(&state, "p"), looked(&state, "p"), looked(&state, "q")], ["a", "a", ""]);
    state.remove_pod(&pod("y", json!({})).key);
    state.remove_node("b");
    assert_eq!(looked(&state, "q"), "a b");
    state.set_node(node("b", json!({})));
    assert_eq!(looked(&state, "q"), "b");
    // One who would rather be alone, as replicas often, is no reason to look at other nodes.
    let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } });
    let wish = json!([{ "weight": 1, "podAffinityTerm": term }]);
    let affinity = json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": wish } });
    state.nominate(pod("r", json!({ "spec": { "affinity": affinity } })), "b");
    assert_eq!(looked(&state, "q"), "b");
    state.set_namespace("default", std::collections::BTreeMap::new());
    assert_eq!(looked(&state, "q"), "a b");
}

/// What priorities take is summed up as pods come and go.
#[test]
fn what_each_priority_takes_is_known() {
    let sized = |name: &str, priority: i32| pod(name, json!({ "spec": { "priority": priority } }));
    let mut info = NodeInfo::alone(&node("a", json!({})));
    let taken = |info: &NodeInfo| info.taken.iter().map(|(p, sum)| (*p, sum.milli_cpu, sum.pods)).collect::<Vec<_>>();
    for (name, priority) in [("x", 5), ("y", -1), ("z", 5)] {
        info.add(sized(name, priority));
    }
    assert_eq!((taken(&info), info.lowest_priority()), (vec![(-1, 500, 1), (5, 1000, 2)], Some(-1)));
    info.remove(&sized("y", -1).key);
    info.remove(&sized("x", 5).key);
    assert_eq!((taken(&info), info.lowest_priority()), (vec![(5, 500, 1)], Some(5)));
    info.remove(&sized("z", 5).key);
    assert_eq!((taken(&info), info.lowest_priority()), (vec![], None));
}
