//! Checks what clients saw of a register against the model of one: is there an order of the operations, each at one
//! moment between its call and its return, that explains every read?
//!
//! The search is Wing and Gong's with Lowe's memory of states; meant for up to a few hundred operations of which few
//! overlap.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was done to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Write(u64),
    /// Saw a value, or that there is none.
    Read(Option<u64>),
}

/// One client's operation. Times come from one [`Ticks`].
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub called: u64,
    /// Nothing when the answer was not "done": a write may have happened at any time since, or never.
    pub returned: Option<u64>,
    pub action: Action,
}

/// The order of calls and returns.
#[derive(Debug, Default)]
pub struct Ticks(AtomicU64);

impl Ticks {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// Whether a register without a value at first can have had this history.
pub fn is_linearizable(history: &[Operation]) -> bool {
    let mut operations: Vec<Operation> = history.to_vec();
    // A read that was not answered says nothing.
    operations.retain(|operation| operation.returned.is_some() || matches!(operation.action, Action::Write(_)));
    operations.sort_by_key(|operation| operation.called);
    let mut search = Search { operations: &operations, seen: HashSet::new() };
    let mut pending: Vec<(Done, Option<u64>)> = vec![(Done::new(operations.len()), None)];
    while let Some((done, value)) = pending.pop() {
        if search.is_complete(&done) {
            return true;
        }
        search.extend(&done, value, &mut pending);
    }
    false
}

/// Which operations have their place in the order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn and(&self, at: usize) -> Self {
        let mut more = self.clone();
        more.0[at / 64] |= 1 << (at % 64);
        more
    }
}

struct Search<'a> {
    operations: &'a [Operation],
    seen: HashSet<(Done, Option<u64>)>,
}

impl Search<'_> {
    fn is_complete(&self, done: &Done) -> bool {
        self.operations.iter().enumerate().all(|(at, operation)| operation.returned.is_none() || done.has(at))
    }

    /// Adds all states that one more operation leads to.
    fn extend(&mut self, done: &Done, value: Option<u64>, pending: &mut Vec<(Done, Option<u64>)>) {
        let rest = || self.operations.iter().enumerate().filter(|(at, _)| !done.has(*at));
        // Whatever was called after another one returned comes after it.
        let bound = rest().filter_map(|(_, operation)| operation.returned).min().unwrap_or(u64::MAX);
        let mut found = Vec::new();
        for (at, operation) in rest().take_while(|(_, operation)| operation.called <= bound) {
            let after = match operation.action {
                Action::Write(new) => Some(new),
                Action::Read(seen) if seen == value => value,
                Action::Read(_) => continue,
            };
            found.push((done.and(at), after));
        }
        pending.extend(found.into_iter().filter(|state| self.seen.insert(state.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Read, Write};

    fn check(history: &[(u64, Option<u64>, Action)], expected: bool) {
        let history: Vec<_> =
            history.iter().map(|&(called, returned, action)| Operation { called, returned, action }).collect();
        assert_eq!(is_linearizable(&history), expected, "{history:?}");
    }

    #[test]
    fn histories_of_a_register() {
        check(&[], true);
        check(&[(0, Some(1), Write(1)), (2, Some(3), Read(Some(1)))], true);
        check(&[(0, Some(1), Write(1)), (2, Some(3), Read(None))], false);
        // Overlapping: either may come first.
        check(&[(0, Some(3), Write(1)), (1, Some(2), Read(None))], true);
        check(&[(0, Some(3), Write(1)), (1, Some(2), Read(Some(1)))], true);
        // A value seen once cannot be unseen.
        check(&[(0, Some(9), Write(1)), (1, Some(2), Read(Some(1))), (3, Some(4), Read(None))], false);
        // An acknowledged write is lost.
        check(&[(0, Some(1), Write(1)), (2, Some(3), Write(2)), (4, Some(5), Read(Some(1)))], false);
    }

    #[test]
    fn a_write_without_an_answer_may_have_happened() {
        let lost = (0, None, Write(1));
        check(&[lost, (2, Some(3), Read(None))], true);
        check(&[lost, (2, Some(3), Read(Some(1)))], true);
        check(&[lost, (2, Some(3), Read(None)), (4, Some(5), Read(Some(1)))], true);
        check(&[lost, (2, Some(3), Read(Some(1))), (4, Some(5), Read(None))], false);
    }
}
