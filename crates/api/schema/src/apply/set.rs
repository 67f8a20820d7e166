//! Sets of field paths, and their `FieldsV1` form.
//!
//! A set is a trie. In `FieldsV1` a step is `f:name`, `k:{"key":…}` (an item of a keyed list), `v:value` (an item of a
//! set) or `i:index`; `.` says that a step with steps below it is a member itself.

use crate::{Shape, TypeRef};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Field(String),
    /// Canonical JSON of the item's keys.
    Key(String),
    /// Canonical JSON of the item.
    Value(String),
    Index(usize),
}

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// Whether the path that leads here is a member.
    pub member: bool,
    pub below: BTreeMap<Step, Set>,
}

impl Step {
    pub(super) fn key(keys: Map<String, Value>) -> Self {
        let mut sorted: Vec<_> = keys.into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Key(canonical(&Value::Object(sorted.into_iter().collect())))
    }

    pub(super) fn value(value: &Value) -> Self {
        Self::Value(canonical(value))
    }

    fn parse(text: &str) -> Option<Self> {
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        let (kind, rest) = text.split_at_checked(2)?;
        match kind {
            "f:" => Some(Self::Field(rest.to_owned())),
            "k:" => match json(rest)? {
                Value::Object(keys) => Some(Self::key(keys)),
                _ => None,
            },
            "v:" => json(rest).map(|value| Self::value(&value)),
            "i:" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// As `FieldsV1` has it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// JSON as Go writes it: `<`, `>` and `&` are escaped.
fn canonical(value: &Value) -> String {
    let text = value.to_string();
    if text.contains(['<', '>', '&']) {
        return text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    }
    text
}

impl fmt::Display for Step {
    /// As in messages: `.name`, `[key="value"]`, `[="value"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let mut shown: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                shown.sort();
                write!(f, "[{}]", shown.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Set {
    pub(super) fn leaf() -> Self {
        Self { member: true, below: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// The set of these paths; steps are separated by dots.
    pub(super) fn of_fields(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let mut at = &mut set;
            for step in path.split('.') {
                at = at.below.entry(Step::Field(step.to_owned())).or_default();
            }
            at.member = true;
        }
        set
    }

    /// Puts a set below a step, if it has anything.
    pub(super) fn put(&mut self, step: Step, set: Self) {
        if !set.is_empty() {
            self.below.insert(step, set);
        }
    }

    pub(super) fn union(mut self, other: Self) -> Self {
        self.member |= other.member;
        for (step, set) in other.below {
            match self.below.entry(step) {
                Entry::Vacant(place) => {
                    place.insert(set);
                }
                Entry::Occupied(mut place) => {
                    let mine = std::mem::take(place.get_mut());
                    place.insert(mine.union(set));
                }
            }
        }
        self
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { member: self.member && other.member, ..Self::default() };
        for (step, set) in &self.below {
            if let Some(other) = other.below.get(step) {
                both.put(step.clone(), set.intersection(other));
            }
        }
        both
    }

    /// Without the other's members; what is below them stays.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// Without the other's members and all that is below them.
    pub(super) fn recursive_difference(&self, other: &Self) -> Self {
        self.without(other, true)
    }

    /// [`Set::difference`] of a set that is not needed any more: costs what the other one is large.
    pub(super) fn into_difference(mut self, other: &Self) -> Self {
        self.take_away(other, false);
        self
    }

    /// [`Set::recursive_difference`] of a set that is not needed any more.
    pub(super) fn into_recursive_difference(mut self, other: &Self) -> Self {
        self.take_away(other, true);
        self
    }

    fn take_away(&mut self, other: &Self, recursive: bool) {
        self.member &= !other.member;
        for (step, other) in &other.below {
            let Some(below) = self.below.get_mut(step) else { continue };
            let gone = (recursive && other.member) || {
                below.take_away(other, recursive);
                below.is_empty()
            };
            if gone {
                self.below.remove(step);
            }
        }
    }

    fn without(&self, other: &Self, recursive: bool) -> Self {
        let mut rest = Self { member: self.member && !other.member, ..Self::default() };
        for (step, set) in &self.below {
            match other.below.get(step) {
                None => rest.put(step.clone(), set.clone()),
                Some(other) if recursive && other.member => {}
                Some(other) => rest.put(step.clone(), set.without(other, recursive)),
            }
        }
        rest
    }

    /// Makes the named fields on the way to members, but no keys of maps, members too.
    pub(super) fn with_named_fields(&self, ty: Option<TypeRef<'_>>) -> Self {
        let mut set = Self { member: self.member, ..Self::default() };
        for (step, below) in &self.below {
            let inner = ty.and_then(|ty| below_step(ty, step));
            let mut below = below.with_named_fields(inner);
            if let (Step::Field(name), Some(ty)) = (step, ty) {
                below.member |= ty.field(name).is_some();
            }
            set.below.insert(step.clone(), below);
        }
        set
    }

    pub(super) fn contains_same_member(&self, path: &[Step]) -> bool {
        let found = path.iter().try_fold(self, |set, step| set.below.get(step));
        found.is_some_and(|set| set.member)
    }

    /// All members, in order.
    pub(super) fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, path: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        let members = self.below.iter().filter(|(_, set)| set.member);
        paths.extend(members.map(|(step, _)| path.iter().chain([step]).cloned().collect()));
        for (step, set) in &self.below {
            path.push(step.clone());
            set.collect(path, paths);
            path.pop();
        }
    }

    /// The set that a `FieldsV1` value says; none when it is malformed.
    pub(super) fn from_fields_v1(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, below) in value.as_object()? {
            if key == "." {
                set.member = true;
                continue;
            }
            let mut inner = Self::from_fields_v1(below)?;
            inner.member |= inner.below.is_empty();
            set.below.insert(Step::parse(key)?, inner);
        }
        Some(set)
    }

    pub(super) fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        for (step, set) in &self.below {
            let mut below = set.to_fields_v1();
            if let (true, false, Value::Object(below)) = (set.member, set.below.is_empty(), &mut below) {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(step.text(), below);
        }
        Value::Object(map)
    }
}

/// The type that a step leads to.
fn below_step<'a>(ty: TypeRef<'a>, step: &Step) -> Option<TypeRef<'a>> {
    match (ty.shape(), step) {
        (Shape::Object { .. }, Step::Field(name)) => ty.field(name).map(|field| field.ty()),
        (Shape::Map { value, .. }, Step::Field(_)) => Some(value),
        (Shape::List { item, .. }, Step::Key(_)) => Some(item),
        _ => None,
    }
}

/// A path as messages show it.
pub(super) fn shown(path: &[Step]) -> String {
    path.iter().map(Step::to_string).collect()
}
