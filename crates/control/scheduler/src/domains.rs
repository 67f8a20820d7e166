//! Numbers of pods by the value of one label of nodes: what spread and affinity count in.

use crate::snapshot::NodeInfo;
use std::collections::{BTreeMap, HashMap};

/// How many pods (or how much weight) there are in each domain of a topology.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains {
    pub(crate) key: String,
    values: HashMap<String, i64>,
    /// How many domains have each number, when the fewest are asked for.
    by_number: Option<BTreeMap<i64, usize>>,
    sum: i64,
}

impl Domains {
    pub(crate) fn new(key: &str) -> Self {
        Self { key: key.to_owned(), ..Self::default() }
    }

    /// As `new`, and [`fewest`](Self::fewest) is known at any time.
    pub(crate) fn ordered(key: &str) -> Self {
        Self { by_number: Some(BTreeMap::new()), ..Self::new(key) }
    }

    /// Adds to the domain that the node is in; by nothing, the domain is there from then on.
    pub(crate) fn add(&mut self, node: &NodeInfo, by: i64) {
        let Some(value) = node.label(&self.key) else { return };
        self.sum += by;
        let (before, now) = match self.values.get_mut(value) {
            Some(number) => {
                *number += by;
                (Some(*number - by), *number)
            }
            None => {
                self.values.insert(value.to_owned(), by);
                (None, by)
            }
        };
        let Some(order) = self.by_number.as_mut().filter(|_| before != Some(now)) else { return };
        *order.entry(now).or_default() += 1;
        let Some(before) = before else { return };
        let left = order.get_mut(&before).map(|domains| {
            *domains -= 1;
            *domains
        });
        if left == Some(0) {
            order.remove(&before);
        }
    }

    /// The number in the node's domain; nothing when the node has none or it is not known.
    pub(crate) fn get(&self, node: &NodeInfo) -> Option<i64> {
        self.number(node.label(&self.key)?)
    }

    /// The number in the domain of that value.
    pub(crate) fn number(&self, value: &str) -> Option<i64> {
        self.values.get(value).copied()
    }

    pub(crate) fn at(&self, node: &NodeInfo) -> i64 {
        self.get(node).unwrap_or(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is counted anywhere.
    pub(crate) fn is_nothing(&self) -> bool {
        self.sum == 0
    }

    /// The smallest number of any domain.
    pub(crate) fn fewest(&self) -> i64 {
        self.by_number.as_ref().and_then(|order| order.first_key_value()).map_or(0, |(number, _)| *number)
    }
}

/// Those of that key, made when there are none yet.
pub(crate) fn keyed<'a>(all: &'a mut Vec<Domains>, key: &str) -> &'a mut Domains {
    let index = all.iter().position(|domains| domains.key == key).unwrap_or_else(|| {
        all.push(Domains::new(key));
        all.len() - 1
    });
    &mut all[index]
}
