//! Tables of what zones decide.

use super::rate::Bucket;
use super::settings::Settings;
use super::zones::{Execute, Health, Look, Next, State, Turn, Zones, rate, state};
use pintle_types::Kind;
use pintle_types::k8s::api::core::v1::Node;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn look(zone: &'static str, health: Health) -> Look<'static> {
    Look { zone: ("", zone), health, excluded: false, tainted: false }
}

/// Zones on a clock that is moved by hand; what got its taint has it at once.
struct Board {
    zones: Zones,
    start: Instant,
    now: Instant,
}

impl Board {
    /// Zones with so many ready nodes each, which are called `a1`, `a2` and so on in zone `a`.
    fn of(sizes: &[(&'static str, usize)]) -> Self {
        Self::with(Settings::default(), sizes)
    }

    fn with(settings: Settings, sizes: &[(&'static str, usize)]) -> Self {
        let now = Instant::now();
        let mut board = Self { zones: Zones::new(settings), start: now, now };
        for (zone, size) in sizes {
            board.set(zone, 1..=*size, Health::Ready);
        }
        board.zones.start(now);
        board
    }

    fn set(&mut self, zone: &'static str, numbers: std::ops::RangeInclusive<usize>, health: Health) -> Vec<Turn> {
        let see = |number| self.zones.see(&format!("{zone}{number}"), Some(look(zone, health)), self.now);
        numbers.map(see).filter(|turn| *turn != Turn::None).collect()
    }

    /// The nodes that get their taint until so many seconds after the start, and when.
    fn until(&mut self, seconds: u64) -> Vec<(String, u64)> {
        let (end, mut told) = (self.start + SECOND * u32::try_from(seconds).unwrap(), Vec::new());
        loop {
            match self.zones.next(self.now) {
                Next::Taint(name) => {
                    assert_eq!(self.zones.execute(&name), Execute::Add);
                    let zone = if name.starts_with('a') { "a" } else { "b" };
                    let tainted = Look { tainted: true, ..look(zone, Health::Failing) };
                    self.zones.see(&name, Some(tainted), self.now);
                    told.push((name.to_string(), (self.now - self.start).as_secs()));
                }
                Next::At(at) if at <= end => self.now = at,
                Next::At(_) | Next::Nothing => break,
            }
        }
        self.now = end;
        told
    }
}

fn told(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds)).collect()
}

#[test]
fn the_state_of_a_zone_is_by_the_share_of_its_nodes() {
    for (ready, not_ready, expected) in [
        (3, 0, State::Normal),
        (2, 1, State::Normal),
        (1, 2, State::Normal),
        (0, 1, State::Full),
        (0, 3, State::Full),
        // 3 of 5 are 60%, 3 of 6 are 50%, 11 of 20 are just 55%.
        (2, 3, State::Partial),
        (3, 3, State::Normal),
        (9, 11, State::Partial),
        (10, 11, State::Normal),
    ] {
        assert_eq!(state(ready, not_ready, 0.55), expected, "{ready} ready, {not_ready} not");
    }
}

#[test]
fn the_rate_is_by_state_and_size() {
    let settings = Settings::default();
    for (state, size, expected) in [
        (State::Normal, 3, 0.1),
        (State::Full, 3, 0.1),
        (State::Full, 500, 0.1),
        (State::Partial, 50, 0.0),
        (State::Partial, 51, 0.01),
    ] {
        assert_eq!(rate(state, size, &settings), expected, "{state:?} of {size}");
    }
}

#[test]
fn zones_are_by_labels_of_which_the_old_ones_count_first() {
    let labels = |labels: Value| json!({ "metadata": { "name": "n", "labels": labels } });
    let (region, zone) = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone");
    for (object, expected) in [
        (json!({ "metadata": { "name": "n" } }), ("", "")),
        (labels(json!({ region: "r", zone: "z" })), ("r", "z")),
        (labels(json!({ region: "r", zone: "z", "failure-domain.beta.kubernetes.io/zone": "old" })), ("r", "old")),
        (labels(json!({ "failure-domain.beta.kubernetes.io/region": "old", region: "r" })), ("old", "")),
    ] {
        assert_eq!(Look::at(&Node::from_value(object).unwrap()).zone, expected);
    }
}

#[test]
fn a_node_looks_as_its_condition_its_taints_and_its_labels_say() {
    let object = |ready: &str, taint: &str, effect: &str| {
        json!({
            "metadata": { "name": "n", "labels": { "node.kubernetes.io/exclude-disruption": "" } },
            "spec": { "taints": [{ "key": format!("node.kubernetes.io/{taint}"), "effect": effect }] },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        })
    };
    for (ready, taint, effect, health, tainted) in [
        ("True", "not-ready", "NoSchedule", Health::Ready, false),
        ("False", "not-ready", "NoExecute", Health::Failing, true),
        ("Unknown", "unreachable", "NoExecute", Health::Failing, true),
        ("Unknown", "out-of-service", "NoExecute", Health::Failing, false),
        ("", "unreachable", "NoSchedule", Health::Unsaid, false),
    ] {
        let node = Node::from_value(object(ready, taint, effect)).unwrap();
        assert_eq!(Look::at(&node), Look { zone: ("", ""), health, excluded: true, tainted });
    }
}

#[test]
fn of_three_nodes_the_first_that_fails_is_left_after_a_period_and_the_second_ten_seconds_later() {
    let mut board = Board::of(&[("a", 3)]);
    board.set("a", 1..=2, Health::Failing);
    assert_eq!(board.zones.execute("a1"), Execute::Keep);
    assert_eq!(board.until(60), told(&[("a1", 5), ("a2", 15)]));
    assert_eq!(board.zones.execute("a1"), Execute::Keep);
}

#[test]
fn where_no_node_is_ready_no_pod_has_to_leave_until_one_is() {
    let mut board = Board::of(&[("a", 3)]);
    board.set("a", 1..=1, Health::Failing);
    assert_eq!(board.until(6), told(&[("a1", 5)]));
    assert_eq!(board.zones.tainted().collect::<Vec<_>>(), ["a1"]);
    assert_eq!(board.set("a", 2..=3, Health::Failing), [Turn::Stops]);
    for name in ["a1", "a2", "a3"] {
        assert_eq!(board.zones.execute(name), Execute::Remove);
    }
    // Its taint is gone.
    board.set("a", 1..=1, Health::Failing);
    assert_eq!(board.until(1000), told(&[]));
    assert_eq!(board.set("a", 3..=3, Health::Ready), [Turn::Resumes]);
    assert_eq!(board.until(2000), told(&[("a1", 1010), ("a2", 1020)]));
}

#[test]
fn a_zone_that_is_away_is_left_at_the_usual_rate_while_another_is_there() {
    let mut board = Board::of(&[("a", 3), ("b", 3)]);
    assert_eq!(board.set("a", 1..=3, Health::Failing), []);
    board.set("b", 1..=1, Health::Failing);
    assert_eq!(board.until(60), told(&[("a1", 5), ("b1", 5), ("a2", 15), ("a3", 25)]));
}

#[test]
fn a_small_zone_of_which_most_is_away_is_not_left_and_a_large_one_slowly() {
    let mut board = Board::of(&[("a", 5), ("b", 51)]);
    board.set("a", 1..=3, Health::Failing);
    board.set("b", 1..=30, Health::Failing);
    assert_eq!(board.until(104), told(&[("b1", 5)]));
    assert_eq!(board.until(106), told(&[("b10", 105)]));
    // Three of six are fewer than 55%: but who could not go on waits for the whole of the new pause.
    board.set("a", 6..=6, Health::Ready);
    assert_eq!(board.until(120), told(&[("a1", 116)]));
}

#[test]
fn who_is_ready_again_or_gone_leaves_the_line() {
    let mut board = Board::of(&[("a", 4)]);
    board.set("a", 1..=2, Health::Failing);
    board.set("a", 1..=1, Health::Ready);
    board.zones.see("a2", None, board.now);
    assert_eq!(board.until(60), told(&[]));
    board.set("a", 4..=4, Health::Failing);
    assert_eq!(board.until(70), told(&[("a4", 65)]));
    // Somebody takes the taint away: it comes back, at the same rate.
    board.set("a", 4..=4, Health::Failing);
    assert_eq!(board.until(80), told(&[("a4", 75)]));
}

#[test]
fn nodes_that_are_excluded_don_t_count_and_are_left_as_others() {
    let mut board = Board::of(&[("a", 1)]);
    let excluded = Look { excluded: true, ..look("a", Health::Failing) };
    assert_eq!(board.zones.see("a2", Some(excluded), board.now), Turn::None);
    assert_eq!(board.set("a", 1..=1, Health::Failing), [Turn::Stops]);
    assert_eq!(board.set("a", 1..=1, Health::Ready), [Turn::Resumes]);
    assert_eq!(board.until(60), told(&[("a2", 10)]));
}

#[test]
fn what_is_found_at_the_start_has_waited_and_a_node_that_said_nothing_yet_is_not_left() {
    let now = Instant::now();
    let mut zones = Zones::new(Settings::default());
    for (name, health) in [("a1", Health::Ready), ("a2", Health::Failing), ("a3", Health::Unsaid)] {
        assert_eq!(zones.see(name, Some(look("a", health)), now), Turn::None);
    }
    assert_eq!(zones.next(now), Next::Nothing);
    assert_eq!(zones.start(now), Turn::None);
    assert_eq!(zones.next(now), Next::Taint("a2".into()));
    assert_eq!(zones.next(now), Next::Nothing);

    let mut alone = Zones::new(Settings::default());
    let tainted = Look { tainted: true, ..look("a", Health::Failing) };
    alone.see("a1", Some(tainted), now);
    assert_eq!(alone.start(now), Turn::Stops);
    assert_eq!(alone.execute("a1"), Execute::Remove);
}

#[test]
fn a_node_that_moves_is_left_in_its_new_zone() {
    let mut board = Board::of(&[("a", 2), ("b", 2)]);
    board.set("a", 1..=1, Health::Failing);
    board.zones.see("a1", Some(look("b", Health::Failing)), board.now);
    board.set("b", 1..=1, Health::Failing);
    board.set("a", 2..=2, Health::Failing);
    assert_eq!(board.until(60), told(&[("a2", 5), ("a1", 5), ("b1", 15)]));
}

#[test]
fn a_rate_of_nothing_lets_nothing_pass() {
    let mut board = Board::with(Settings { rate: 0.0, ..Settings::default() }, &[("a", 3)]);
    board.set("a", 1..=2, Health::Failing);
    assert_eq!(board.until(100_000), told(&[]));
}

#[test]
fn a_bucket_that_changes_keeps_its_token_or_waits_anew() {
    let now = Instant::now();
    let mut bucket = Bucket::new(0.5, now);
    bucket.change(0.1, now);
    assert!(bucket.take(now) && !bucket.take(now));
    assert_eq!(bucket.next(), Some(now + 10 * SECOND));
    bucket.change(0.1, now + 5 * SECOND);
    assert_eq!(bucket.next(), Some(now + 10 * SECOND));
    bucket.change(0.5, now + 5 * SECOND);
    assert_eq!(bucket.next(), Some(now + 7 * SECOND));
    bucket.change(0.0, now + 8 * SECOND);
    assert!(bucket.next().is_none() && !bucket.take(now + 1000 * SECOND));
    bucket.change(0.1, now + 1000 * SECOND);
    assert_eq!(bucket.next(), Some(now + 1010 * SECOND));
    for rate in [f64::MIN_POSITIVE, -1.0, f64::NAN] {
        assert_eq!(Bucket::new(rate, now).next(), None, "{rate}");
    }
}

#[test]
fn counts_stay_right_whatever_happens_to_nodes() {
    let (mut board, mut model, mut stopped) = (Board::of(&[]), std::collections::BTreeMap::new(), false);
    let mut seed = 7_u64;
    let mut chance = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for _ in 0..5000 {
        board.now += SECOND;
        let name = format!("n{}", chance(6));
        let health = [Health::Ready, Health::Failing, Health::Failing, Health::Unsaid][chance(4) as usize];
        let zone = ["", "a", "b"][chance(3) as usize];
        let seen = Look { excluded: chance(5) == 0, tainted: chance(4) == 0, ..look(zone, health) };
        let seen = (chance(4) > 0).then_some(seen);
        board.zones.see(&name, seen, board.now);
        model.remove(&name);
        model.extend(seen.map(|seen| (name, seen)));

        let counted = || model.values().filter(|look| !look.excluded);
        if counted().count() > 0 {
            // In no zone there is a node that is ready: each zone that counts is without one.
            stopped = counted().all(|look| look.health != Health::Ready);
        }
        assert_eq!(board.zones.execute("nobody") == Execute::Remove, stopped, "{model:?}");
        let tainted = model.iter().filter(|(_, look)| look.tainted).map(|(name, _)| name.as_str());
        assert!(board.zones.tainted().eq(tainted));
        if let Next::Taint(name) = board.zones.next(board.now) {
            let look = model[&*name];
            assert!(!stopped && look.health == Health::Failing && !look.tainted, "{name} {model:?}");
        }
    }
}
