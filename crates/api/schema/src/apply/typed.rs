//! Walks over trees along their types: sets of fields, differences, merges, removals.
//!
//! Trees are seen as upstream's structured merge sees them: atomic lists and maps, and scalars, are leaves; items of
//! keyed lists and sets are found by what identifies them; values without a type are maps all the way down, and leaves.

use super::set::{Set, Step};
use crate::{ListType, Shape, TypeRef};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// How a value is walked.
pub(super) enum Walk<'a> {
    Leaf,
    /// An object; the type of a key, and whether the key is a declared field.
    Keys(Keys<'a>),
    /// A keyed list, or a set.
    Items {
        item: TypeRef<'a>,
        keys: &'a [Box<str>],
    },
}

#[derive(Clone, Copy)]
pub(super) enum Keys<'a> {
    Struct(TypeRef<'a>, bool),
    Map(TypeRef<'a>),
    Free,
}

impl<'a> Keys<'a> {
    /// The type of a key's value (none: free), and whether it is declared; none when the key is not allowed.
    pub(super) fn of(self, key: &str) -> Option<(Option<TypeRef<'a>>, bool)> {
        match self {
            Self::Struct(ty, open) => match ty.field(key) {
                Some(field) => Some((Some(field.ty()), true)),
                None => open.then_some((None, false)),
            },
            Self::Map(value) => Some((Some(value), false)),
            Self::Free => Some((None, false)),
        }
    }

    fn ty(self, key: &str) -> Option<TypeRef<'a>> {
        self.of(key).and_then(|(ty, _)| ty)
    }
}

/// `any` is one of the values: what has no type is walked by what it is.
pub(super) fn walk<'a>(ty: Option<TypeRef<'a>>, any: Option<&Value>) -> Walk<'a> {
    let free = || if any.is_some_and(Value::is_object) { Walk::Keys(Keys::Free) } else { Walk::Leaf };
    match ty.map(|ty| (ty, ty.shape())) {
        None | Some((_, Shape::Any)) => free(),
        Some((ty, Shape::Object { atomic: false, open })) => Walk::Keys(Keys::Struct(ty, open)),
        Some((_, Shape::Map { value, atomic: false })) => Walk::Keys(Keys::Map(value)),
        Some((_, Shape::List { item, list_type: ListType::Map | ListType::Set, keys })) => Walk::Items { item, keys },
        Some(_) => Walk::Leaf,
    }
}

/// What identifies an item of a keyed list or a set; the error is upstream's.
pub(super) fn item_step(item_ty: TypeRef<'_>, keys: &[Box<str>], item: &Value) -> Result<Step, String> {
    if keys.is_empty() {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(Step::value(scalar)),
        };
    }
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut found = Map::new();
    for key in keys {
        let default = || item_ty.field(key).and_then(|field| field.default());
        if let Some(value) = map.get(&**key).or_else(default) {
            found.insert(key.to_string(), value.clone());
        }
    }
    if found.is_empty() {
        let names: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        let names = names.join(" ");
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{names}] (and doesn't have default values for any key fields)"
        ));
    }
    Ok(Step::key(found))
}

fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The fields that a configuration names.
pub(super) fn field_set(ty: Option<TypeRef<'_>>, value: &Value) -> Set {
    match walk(ty, Some(value)) {
        Walk::Leaf => Set::leaf(),
        Walk::Keys(keys) => {
            let mut set = Set::default();
            for (key, value) in object(Some(value)).into_iter().flatten() {
                let (ty, declared) = keys.of(key).unwrap_or((None, true));
                let mut below = field_set(ty, value);
                below.member |= !declared || value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.put(Step::Field(key.clone()), below);
            }
            set
        }
        Walk::Items { item, keys } => {
            let mut set = Set::default();
            let mut seen = HashSet::new();
            for value in items(Some(value)) {
                let Ok(step) = item_step(item, keys, value) else { continue };
                if !seen.insert(step.clone().to_string()) {
                    set.below.insert(step, Set::leaf());
                    continue;
                }
                let mut below = field_set(Some(item), value);
                below.member = true;
                set.below.insert(step, below);
            }
            set
        }
    }
}

/// What changed from one tree to another.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Most changes are of one sort: then the step is not cloned.
    fn put(&mut self, step: Step, below: Self) {
        let sorts =
            [(&mut self.removed, below.removed), (&mut self.modified, below.modified), (&mut self.added, below.added)];
        let mut left = sorts.iter().filter(|(_, set)| !set.is_empty()).count();
        let mut step = Some(step);
        for (of, set) in sorts {
            if set.is_empty() {
                continue;
            }
            left -= 1;
            let own = if left == 0 { step.take() } else { step.clone() };
            if let Some(own) = own {
                of.below.insert(own, set);
            }
        }
    }

    /// Without these fields and all below them.
    pub(super) fn excluding(self, fields: &Set) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.into_recursive_difference(fields),
            modified: self.modified.into_recursive_difference(fields),
            added: self.added.into_recursive_difference(fields),
        }
    }
}

/// Compares two trees of one type. A missing value is none; at most one side is.
pub(super) fn compare(ty: Option<TypeRef<'_>>, old: Option<&Value>, new: Option<&Value>) -> Changes {
    let mut changes = Changes::default();
    // Most of an object stays as it is: that is seen without looking for what its parts are.
    if old == new {
        return changes;
    }
    let empty = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    // Upstream's structs keep such values as bytes: they change as a whole.
    let opaque = ty.is_some_and(|ty| !ty.is_custom() && matches!(ty.shape(), Shape::Any));
    let walked = match walk(ty, new.or(old)) {
        _ if opaque => None,
        Walk::Leaf => None,
        _ if empty(old) && empty(new) => None,
        other => Some(other),
    };
    match walked {
        None => {
            match (old, new) {
                (None, Some(_)) => changes.added.member = true,
                (Some(_), None) => changes.removed.member = true,
                (old, new) => changes.modified.member = !same(old, new),
            }
            return changes;
        }
        Some(Walk::Keys(keys)) => compare_keys(keys, old, new, &mut changes),
        Some(Walk::Items { item, keys }) => compare_items(item, keys, old, new, &mut changes),
        Some(Walk::Leaf) => {}
    }
    changes.added.member |= old.is_none();
    changes.removed.member |= new.is_none();
    changes
}

/// Equal, numbers by value.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn compare_keys(keys: Keys<'_>, old: Option<&Value>, new: Option<&Value>, changes: &mut Changes) {
    let (old, new) = (object(old), object(new));
    for (key, was) in old.into_iter().flatten() {
        let below = compare(keys.ty(key), Some(was), new.and_then(|map| map.get(key)));
        if !below.is_empty() {
            changes.put(Step::Field(key.clone()), below);
        }
    }
    for (key, is) in new.into_iter().flatten() {
        if old.is_none_or(|map| !map.contains_key(key)) {
            changes.put(Step::Field(key.clone()), compare(keys.ty(key), None, Some(is)));
        }
    }
}

fn compare_items(
    item: TypeRef<'_>,
    keys: &[Box<str>],
    old: Option<&Value>,
    new: Option<&Value>,
    changes: &mut Changes,
) {
    let mut sides: BTreeMap<Step, [Vec<&Value>; 2]> = BTreeMap::new();
    for (side, list) in [items(old), items(new)].into_iter().enumerate() {
        for value in list {
            if let Ok(step) = item_step(item, keys, value) {
                sides.entry(step).or_default()[side].push(value);
            }
        }
    }
    for (step, [was, is]) in sides {
        let item = Some(item);
        match (was.len(), is.len()) {
            (0 | 1, 0 | 1) => changes.put(step, compare(item, was.first().copied(), is.first().copied())),
            (2.., 2..) if was == is => {}
            (2.., 2..) => changes.modified.put(step, Set::leaf()),
            (2.., _) => {
                if let Some(first) = is.first() {
                    changes.put(step.clone(), compare(item, None, Some(first)));
                }
                changes.removed.put(step, Set::leaf());
            }
            _ => {
                if let Some(first) = was.first() {
                    changes.put(step.clone(), compare(item, Some(first), None));
                }
                changes.added.put(step, Set::leaf());
            }
        }
    }
}

/// Merges a configuration into a live tree. None: nothing is left.
pub(super) fn merge(ty: Option<TypeRef<'_>>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let empty = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    match walk(ty, config.or(live)) {
        Walk::Keys(keys) if !(empty(live) && empty(config)) => {
            let (live, config) = (object(live), object(config));
            let names: BTreeSet<&String> = live.into_iter().chain(config).flat_map(Map::keys).collect();
            let merged = names.into_iter().filter_map(|key| {
                let value =
                    merge(keys.ty(key), live.and_then(|map| map.get(key)), config.and_then(|map| map.get(key)))?;
                Some((key.clone(), value))
            });
            let merged: Map<String, Value> = merged.collect();
            (!merged.is_empty()).then_some(Value::Object(merged))
        }
        Walk::Items { item, keys } if !(empty(live) && empty(config)) => {
            let merged = merge_items(item, keys, items(live), items(config));
            (!merged.is_empty()).then_some(Value::Array(merged))
        }
        _ => config.or(live).cloned(),
    }
}

/// Merges two lists: the order of the configuration wins, items that only the live list has keep their places.
fn merge_items(item: TypeRef<'_>, keys: &[Box<str>], live: &[Value], config: &[Value]) -> Vec<Value> {
    let steps = |list: &[Value]| -> Vec<(Step, usize)> {
        let steps = list.iter().enumerate().filter_map(|(at, value)| Some((item_step(item, keys, value).ok()?, at)));
        steps.collect()
    };
    let (left, right) = (steps(live), steps(config));
    let mut in_live: HashMap<String, Option<usize>> = HashMap::new();
    for (step, at) in &left {
        in_live.entry(step.to_string()).and_modify(|place| *place = None).or_insert(Some(*at));
    }
    let in_config: HashSet<String> = right.iter().map(|(step, _)| step.to_string()).collect();
    let mut shared = right.iter().map(|(step, _)| step).filter(|step| in_live.contains_key(&step.to_string()));
    let mut next_shared = shared.next();
    let (mut l, mut r) = (0, 0);
    let mut merged_steps: HashSet<String> = HashSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    while l < left.len() || r < right.len() {
        if l < left.len() {
            let (step, at) = &left[l];
            let name = step.to_string();
            let is_next = right.get(r).is_some_and(|(other, _)| other == step);
            if !in_config.contains(&name) {
                out.extend(merge(Some(item), Some(&live[*at]), None));
                l += 1;
                continue;
            }
            if !is_next
                && (merged_steps.contains(&name) || r >= right.len() || next_shared.is_some_and(|next| next != step))
            {
                l += 1;
                continue;
            }
            if is_next {
                l += 1;
            }
        }
        if let Some((step, at)) = right.get(r) {
            let name = step.to_string();
            let was = in_live.get(&name).copied().flatten().map(|at| &live[at]);
            out.extend(merge(Some(item), was, Some(&config[*at])));
            if next_shared == Some(step) {
                next_shared = shared.next();
            }
            merged_steps.insert(name);
            r += 1;
        }
    }
    out
}

/// The tree without these fields. None: nothing is left. A key whose value has nothing left is null: ownership tells
/// an emptied map from one that was never there.
pub(super) fn remove(ty: Option<TypeRef<'_>>, value: &Value, fields: &Set) -> Option<Value> {
    match walk(ty, Some(value)) {
        Walk::Keys(keys) => {
            let map = value.as_object()?;
            let mut rest = Map::new();
            for (key, value) in map {
                let kept = match fields.below.get(&Step::Field(key.clone())) {
                    None => Some(value.clone()),
                    Some(set) if set.member => None,
                    Some(set) => Some(remove(keys.ty(key), value, set).unwrap_or_default()),
                };
                kept.map(|value| rest.insert(key.clone(), value));
            }
            (!rest.is_empty()).then_some(Value::Object(rest))
        }
        Walk::Items { item, keys } => {
            let kept = items(Some(value)).iter().filter_map(|value| {
                let step = item_step(item, keys, value).ok();
                match step.and_then(|step| fields.below.get(&step)) {
                    None => Some(value.clone()),
                    Some(set) if set.member => None,
                    Some(set) => remove(Some(item), value, set),
                }
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        Walk::Leaf if value.is_object() || value.is_array() => None,
        Walk::Leaf => Some(value.clone()),
    }
}

/// Drops the nulls that [`remove`] put where `before` had something.
pub(super) fn drop_emptied(value: &mut Value, before: &Value) {
    match (value, before) {
        (Value::Object(map), Value::Object(before)) => map.retain(|key, value| match before.get(key) {
            Some(before) if value.is_null() => before.is_null(),
            Some(before) => {
                drop_emptied(value, before);
                true
            }
            None => true,
        }),
        (Value::Array(items), Value::Array(before)) if items.len() == before.len() => {
            items.iter_mut().zip(before).for_each(|(value, before)| drop_emptied(value, before));
        }
        _ => {}
    }
}
