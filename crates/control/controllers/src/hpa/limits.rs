//! How far and how fast an autoscaler may follow what its metrics propose: bounds, policies, stabilization.
//!
//! Source: "Configurable scaling behavior" of the documentation; upstream's `horizontal.go`.

use pintle_types::k8s::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Without policies the number may at most double at once, and may always become this.
const UP_LEAST: i32 = 4;

/// What was proposed and done lately. Times are milliseconds since 1970.
#[derive(Debug)]
pub struct History {
    /// Going down waits for so long unless the autoscaler says otherwise, in seconds.
    down_window: i32,
    proposals: Vec<(i64, i32)>,
    ups: Vec<(i64, i32)>,
    downs: Vec<(i64, i32)>,
}

/// What is to be brought into limits.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub current: i32,
    pub proposed: i32,
    pub min: i32,
    pub max: i32,
}

/// The number of pods after all limits, and what is said of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Limited {
    pub replicas: i32,
    /// Reason and message of `AbleToScale`.
    pub able: (&'static str, &'static str),
    /// Whether the limits changed the number, with reason and message of `ScalingLimited`.
    pub limited: bool,
    pub why: (&'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

impl History {
    /// Nothing was proposed yet; going down waits for `down_window` seconds unless the autoscaler says otherwise.
    pub fn new(down_window: i32) -> Self {
        Self { down_window, proposals: Vec::new(), ups: Vec::new(), downs: Vec::new() }
    }

    /// The first number that is seen counts as proposed.
    pub fn begin(&mut self, current: i32, now: i64) {
        if self.proposals.is_empty() {
            self.proposals.push((now, current));
        }
    }

    /// Notes that the number was changed, for policies that count changes over time.
    pub fn note_change(&mut self, behavior: Option<&HorizontalPodAutoscalerBehavior>, from: i32, to: i32, now: i64) {
        let Some(behavior) = behavior else { return };
        let (events, rules) = match to > from {
            true => (&mut self.ups, &behavior.scale_up),
            false => (&mut self.downs, &behavior.scale_down),
        };
        let policies = rules.iter().flat_map(|rules| rules.policies.iter().flatten());
        let longest = policies.map(|policy| policy.period_seconds).max().unwrap_or_default();
        events.retain(|(at, _)| *at >= now - i64::from(longest) * 1000);
        events.push((now, (to - from).abs()));
    }

    /// Brings a proposal into limits, and remembers it.
    pub fn limit(&mut self, behavior: Option<&HorizontalPodAutoscalerBehavior>, wish: Wish, now: i64) -> Limited {
        let proposed = wish.proposed;
        let (stable, stabilized) = match behavior {
            None => (self.highest(proposed, now), DOWN_STABILIZED),
            Some(behavior) => self.stabilize(behavior, wish, now),
        };
        let able = if stable == proposed { READY } else { stabilized };
        let wish = Wish { proposed: stable, ..wish };
        let (replicas, why) = match behavior {
            None => within_bounds(wish),
            Some(behavior) => self.within_rates(behavior, wish, now),
        };
        Limited { replicas, able, limited: replicas != stable, why }
    }

    fn highest(&mut self, proposed: i32, now: i64) -> i32 {
        let since = now - i64::from(self.down_window) * 1000;
        self.proposals.retain(|(at, _)| *at >= since);
        let highest = self.proposals.iter().map(|(_, replicas)| *replicas).max().unwrap_or(proposed);
        self.proposals.push((now, proposed));
        highest.max(proposed)
    }

    fn stabilize(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        wish: Wish,
        now: i64,
    ) -> (i32, (&'static str, &'static str)) {
        let since = |rules: &Option<HPAScalingRules>, default: i32| {
            let window = rules.as_ref().and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default);
            now - i64::from(window) * 1000
        };
        let (up, down) = (since(&behavior.scale_up, 0), since(&behavior.scale_down, self.down_window));
        let recent =
            |since: i64| self.proposals.iter().filter(move |(at, _)| *at > since).map(|(_, replicas)| *replicas);
        let least = recent(up).min().unwrap_or(wish.proposed).min(wish.proposed);
        let most = recent(down).max().unwrap_or(wish.proposed).max(wish.proposed);
        let stable = wish.current.max(least).min(most);
        self.proposals.retain(|(at, _)| *at >= up.min(down));
        self.proposals.push((now, wish.proposed));
        (stable, if wish.proposed >= wish.current { UP_STABILIZED } else { DOWN_STABILIZED })
    }

    fn within_rates(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        wish: Wish,
        now: i64,
    ) -> (i32, (&'static str, &'static str)) {
        let Wish { current, proposed, min, max } = wish;
        if proposed > current {
            let limit = self.limit_of(behavior.scale_up.as_ref(), current, now, true).max(current);
            let (most, why) = if max > limit { (limit, UP_LIMIT) } else { (max, TOO_MANY) };
            if proposed > most {
                return (most, why);
            }
        } else if proposed < current {
            let limit = self.limit_of(behavior.scale_down.as_ref(), current, now, false).min(current);
            let (least, why) = if min < limit { (limit, DOWN_LIMIT) } else { (min, TOO_FEW) };
            if proposed < least {
                return (least, why);
            }
        }
        (proposed, WITHIN)
    }

    /// The number that the policies of one direction allow now.
    fn limit_of(&self, rules: Option<&HPAScalingRules>, current: i32, now: i64, up: bool) -> i32 {
        let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let policies = rules.and_then(|rules| rules.policies.as_deref()).unwrap_or_default();
        let allowed = policies.iter().map(|policy| {
            let period = i64::from(policy.period_seconds) * 1000;
            let changed = |events: &[(i64, i32)]| -> i32 {
                events.iter().filter(|(at, _)| *at > now - period).map(|(_, change)| change).sum()
            };
            let start = current - changed(&self.ups) + changed(&self.downs);
            let share = f64::from(policy.value) / 100.0;
            match (up, policy.type_.as_str()) {
                (true, "Pods") => start.saturating_add(policy.value),
                // A small share of few pods is still one more.
                (true, _) => (f64::from(start) * (1.0 + share)).ceil() as i32,
                (false, "Pods") => start.saturating_sub(policy.value),
                (false, _) => (f64::from(start) * (1.0 - share)) as i32,
            }
        });
        // The largest change is the largest number on the way up and the smallest on the way down.
        let found = if up == (select == "Min") { allowed.min() } else { allowed.max() };
        found.unwrap_or(current)
    }
}

fn within_bounds(wish: Wish) -> (i32, (&'static str, &'static str)) {
    let double = wish.current.saturating_mul(2).max(UP_LEAST);
    let (most, why) = if wish.max > double { (double, UP_LIMIT) } else { (wish.max, TOO_MANY) };
    if wish.proposed < wish.min {
        return (wish.min, TOO_FEW);
    }
    if wish.proposed > most { (most, why) } else { (wish.proposed, WITHIN) }
}
