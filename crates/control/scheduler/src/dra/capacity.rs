//! How much of a device's capacities a request takes: devices that several allocations share.
//!
//! Source: KEP-5075. Amounts are in billionths.

use pintle_types::k8s::api::resource::v1::{CapacityRequestPolicy, DeviceCapacity};
use pintle_types::k8s::apimachinery::pkg::api::resource::Quantity as Raw;
use pintle_types::quantity::Quantity;
use std::collections::BTreeMap;

pub(super) type Amounts = BTreeMap<String, i128>;

pub(super) fn nanos(raw: &Raw) -> i128 {
    Quantity::from(raw).nanos()
}

/// What is taken when so much is requested: at least that, by the steps that the policy allows.
fn taken(requested: Option<i128>, capacity: &DeviceCapacity) -> i128 {
    let policy = capacity.request_policy.as_ref();
    let Some(requested) = requested else {
        let default = policy.and_then(|policy| policy.default.as_ref());
        return nanos(default.unwrap_or(&capacity.value));
    };
    if let Some(range) = policy.and_then(|policy| policy.valid_range.as_ref()) {
        let least = nanos(&range.min);
        if requested <= least {
            return least;
        }
        return match range.step.as_ref().map(nanos).filter(|step| *step > 0) {
            Some(step) => least + (requested - least + step - 1) / step * step,
            None => requested,
        };
    }
    let values = policy.and_then(|policy| policy.valid_values.as_deref()).unwrap_or_default();
    values.iter().map(nanos).filter(|value| *value >= requested).min().unwrap_or(requested)
}

fn allows(policy: &CapacityRequestPolicy, taken: i128) -> bool {
    if policy.default.as_ref().map(nanos) == Some(taken) {
        return true;
    }
    if let Some(range) = &policy.valid_range {
        let (least, step) = (nanos(&range.min), range.step.as_ref().map(nanos).filter(|step| *step > 0));
        return range.max.as_ref().is_none_or(|most| taken <= nanos(most))
            && step.is_none_or(|step| (taken - least) % step == 0);
    }
    policy.valid_values.as_deref().is_none_or(|values| values.is_empty() || values.iter().any(|v| nanos(v) == taken))
}

/// What a request takes of each capacity; nothing when there is not that much left, or none is to be had like that.
pub(super) fn fit(
    requested: Option<&BTreeMap<String, Raw>>,
    has: Option<&BTreeMap<String, DeviceCapacity>>,
    used: impl Fn(&str) -> i128,
) -> Option<Amounts> {
    if requested.into_iter().flatten().any(|(name, _)| has.is_none_or(|has| !has.contains_key(name))) {
        return None;
    }
    let mut out = Amounts::new();
    for (name, capacity) in has.into_iter().flatten() {
        let taken = taken(requested.and_then(|requested| requested.get(name)).map(nanos), capacity);
        let allowed = capacity.request_policy.as_ref().is_none_or(|policy| allows(policy, taken));
        if taken < 0 || !allowed || used(name) + taken > nanos(&capacity.value) {
            return None;
        }
        out.insert(name.clone(), taken);
    }
    Some(out)
}
