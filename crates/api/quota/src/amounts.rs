//! Amounts of resources by name, and sums of them.

use pintle_types::quantity::Quantity;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Quantities by the names of resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a map of quantities; what is none is left out.
pub fn parse(value: &Value) -> Amounts {
    let quantity = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.to_string().parse().ok(),
    };
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

/// Writes a map of quantities.
pub fn to_value(amounts: &Amounts) -> Value {
    let entries = amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string().into()));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// Adds to a sum.
pub fn add(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let before = sum.get(name).copied().unwrap_or(Quantity::ZERO);
        sum.insert(name.clone(), before + *amount);
    }
}

/// Raises each amount to at least that of `other`.
pub(crate) fn raise(least: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = least.entry(name.clone()).or_insert(*amount);
        if *entry < *amount {
            *entry = *amount;
        }
    }
}

/// By how much usage grew; what shrank or stayed is left out.
pub fn grown(after: &Amounts, before: &Amounts) -> Amounts {
    let difference = |(name, amount): (&String, &Quantity)| {
        let more = *amount - before.get(name).copied().unwrap_or(Quantity::ZERO);
        (!more.is_zero() && !more.is_negative()).then(|| (name.clone(), more))
    };
    after.iter().filter_map(difference).collect()
}

/// The amounts of the names for which something holds.
pub fn mask(amounts: &Amounts, keep: impl Fn(&str) -> bool) -> Amounts {
    amounts.iter().filter(|(name, _)| keep(name)).map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// Names of which there is more than the limit.
pub fn exceeded(amounts: &Amounts, limits: &Amounts) -> Vec<String> {
    let over = |(name, amount): &(&String, &Quantity)| limits.get(*name).is_some_and(|limit| *amount > limit);
    amounts.iter().filter(over).map(|(name, _)| name.clone()).collect()
}

/// As messages show amounts: `cpu=1,pods=2`.
pub fn show(amounts: &Amounts) -> String {
    let shown: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    shown.join(",")
}
