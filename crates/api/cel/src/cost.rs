//! Costs: what an evaluation may spend, and what a program may cost at most as far as sizes are known beforehand.

use crate::types::Type;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one evaluation may cost in Kubernetes, for rules of custom resources and for admission policies.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// Characters (bytes) of a text that cost one unit to look through.
pub const STRING_TRAVERSAL_FACTOR: f64 = 0.1;
/// Characters of a pattern that cost one unit per unit of text.
pub const REGEX_STRING_FACTOR: f64 = 0.25;

/// What evaluations may still spend: a limit for each, and a sum that several share.
#[derive(Clone, Debug)]
pub struct Budget {
    per_call: u64,
    remaining: u64,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Budget {
    /// `per_call` for each evaluation, `total` for all with this budget.
    pub fn new(per_call: u64, total: u64) -> Self {
        Self { per_call, remaining: total, interrupt: None }
    }

    pub fn unlimited() -> Self {
        Self::new(u64::MAX, u64::MAX)
    }

    /// Evaluations end with an error soon after `flag` is true.
    pub fn interrupted_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupt = Some(flag);
        self
    }

    pub fn per_call(&self) -> u64 {
        self.per_call
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes `cost` out of the sum; false when there was not that much.
    pub fn spend(&mut self, cost: u64) -> bool {
        let enough = cost <= self.remaining;
        self.remaining = self.remaining.saturating_sub(cost);
        enough
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// Least and most a thing costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CostEstimate {
    pub min: u64,
    pub max: u64,
}

/// Least and most elements, characters or bytes a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeEstimate {
    pub min: u64,
    pub max: u64,
}

/// What is known of the sizes of what a program reads.
pub trait SizeEstimator {
    /// The size of what is at `path`: a variable's name, then names of fields, `@items`, `@keys` and `@values`.
    fn size(&self, path: &[&str], value: &Type) -> Option<SizeEstimate>;
}

/// An estimator that knows nothing.
pub struct UnknownSizes;

impl SizeEstimator for UnknownSizes {
    fn size(&self, _path: &[&str], _value: &Type) -> Option<SizeEstimate> {
        None
    }
}

/// An argument of a call whose cost is estimated.
#[derive(Debug)]
pub struct EstimateArg<'e> {
    pub value: &'e Type,
    /// Unknown sizes are 0 … `u64::MAX`.
    pub size: SizeEstimate,
    /// The text, when the argument is a literal of it.
    pub literal: Option<&'e str>,
    /// The number, when the argument is a literal of an `int`.
    pub literal_int: Option<i64>,
    /// The size of each element, for lists: what the estimator knows of the argument's path and `@items`.
    pub element_size: SizeEstimate,
}

/// What a call costs, and how large its result is when that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEstimate {
    pub cost: CostEstimate,
    pub result_size: Option<SizeEstimate>,
}

impl CostEstimate {
    pub const ONE: CostEstimate = CostEstimate { min: 1, max: 1 };

    pub fn fixed(cost: u64) -> Self {
        Self { min: cost, max: cost }
    }

    pub fn plus(self, other: CostEstimate) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub fn times(self, other: CostEstimate) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub fn scaled(self, factor: f64) -> Self {
        Self { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    pub fn union(self, other: CostEstimate) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl SizeEstimate {
    pub const UNKNOWN: SizeEstimate = SizeEstimate { min: 0, max: u64::MAX };

    pub fn fixed(size: u64) -> Self {
        Self { min: size, max: size }
    }

    pub fn plus(self, other: SizeEstimate) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub fn times(self, other: SizeEstimate) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub fn union(self, other: SizeEstimate) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// A cost of `factor` per element, rounded up.
    pub fn cost(self, factor: f64) -> CostEstimate {
        CostEstimate { min: scale(self.min, factor), max: scale(self.max, factor) }
    }
}

/// `ceil(n × factor)`, at most `u64::MAX`.
pub fn scale(n: u64, factor: f64) -> u64 {
    let product = (n as f64 * factor).ceil();
    // A float that is too large becomes the largest number.
    product as u64
}
