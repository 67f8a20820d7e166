//! What was found of each node for the kinds of pods that fitted nowhere, kept for as long as the node stays as it is.
//!
//! Such pods look at all nodes, and those that may have others leave try on hundreds who that would be. They come in
//! kinds, and between two of one kind few nodes change: a verdict holds until its node is touched. This is done for pods
//! only that nobody refuses for what is on other nodes.

use crate::filter::{Prepared, Refusal};
use crate::kinds::{Kinds, judged_alike};
use crate::pod::PodInfo;
use crate::preemption::{Loss, Unhelpful};
use crate::snapshot::Snapshot;
use crate::{budgets::AsOf, budgets::Budgets};

/// Kinds of pods whose verdicts are kept: some 100 bytes for each of them and each node.
const KINDS: usize = 16;

/// What a node is to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing, as it is not known (any more).
    Absent,
    WillDo,
    Refused(Refusal),
}

/// What comes of others leaving the node.
pub(crate) type Bid = Result<Loss, Unhelpful>;

/// What was found of one node, at which of its changes.
#[derive(Clone, Debug)]
struct Found<T> {
    change: u64,
    what: T,
}

#[derive(Debug, Default)]
struct Table {
    /// The few different verdicts.
    verdicts: Vec<Verdict>,
    /// By the place of the node: the place of its verdict.
    nodes: Vec<Option<Found<usize>>>,
    bids: Vec<Option<Found<(AsOf, Bid)>>>,
}

/// The verdicts on all nodes by the kinds of pods.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(Kinds<Table, KINDS>);

/// The verdicts for one pod.
pub(crate) struct Known<'a> {
    table: &'a mut Table,
    /// The last change of each node.
    changes: &'a [u64],
    /// A node whose room is promised to the very pod: it is another thing for others of the kind.
    own: Option<usize>,
}

impl Verdicts {
    /// What pods may meet each other is another matter now.
    pub(crate) fn forget(&mut self) {
        self.0 = Kinds::default();
    }

    /// What is known for the pod's kind, if verdicts are kept for it.
    pub(crate) fn of<'a>(
        &'a mut self,
        pod: &PodInfo,
        prepared: &Prepared,
        snapshot: &'a Snapshot,
    ) -> Option<Known<'a>> {
        if !prepared.is_local(snapshot) {
            return None;
        }
        let table = self.0.find(pod, &prepared.profile, |owner| judged_alike(owner, pod))?;
        let own = snapshot.nomination(&pod.key).and_then(|name| snapshot.place(name));
        Some(Known { table, changes: snapshot.changes(), own })
    }

    /// Keeps verdicts for pods of that kind from now on.
    pub(crate) fn keep(&mut self, pod: &PodInfo, prepared: &Prepared, snapshot: &Snapshot) {
        if prepared.is_local(snapshot)
            && self.0.find(pod, &prepared.profile, |owner| judged_alike(owner, pod)).is_none()
        {
            self.0.insert(pod, &prepared.profile, Table::default());
        }
    }
}

impl<T> Found<T> {
    /// What is known of the node at that change.
    fn at(found: &[Option<Self>], place: usize, change: u64) -> Option<&T> {
        found.get(place)?.as_ref().filter(|found| found.change == change).map(|found| &found.what)
    }

    fn put(found: &mut Vec<Option<Self>>, place: usize, change: u64, what: T) {
        if found.len() <= place {
            found.resize_with(place + 1, || None);
        }
        found[place] = Some(Self { change, what });
    }
}

impl Known<'_> {
    /// The verdict on the node of that place; it is looked at when it has changed.
    pub(crate) fn verdict(&mut self, place: usize, look: impl FnOnce() -> Verdict) -> Verdict {
        if self.own == Some(place) {
            return look();
        }
        let change = self.changes[place];
        if let Some(known) = Found::at(&self.table.nodes, place, change) {
            return self.table.verdicts[*known];
        }
        let verdict = look();
        let verdicts = &mut self.table.verdicts;
        let number = verdicts.iter().position(|known| *known == verdict).unwrap_or_else(|| {
            verdicts.push(verdict);
            verdicts.len() - 1
        });
        Found::put(&mut self.table.nodes, place, change, number);
        verdict
    }

    /// What comes of others leaving the node of that place; it is tried when it or the budgets of its pods have changed.
    /// `try_out` tells besides whether any of the pods is in a budget.
    pub(crate) fn bid(&mut self, place: usize, budgets: &Budgets, try_out: impl FnOnce() -> (Bid, bool)) -> Bid {
        if self.own == Some(place) {
            return try_out().0;
        }
        let change = self.changes[place];
        if let Some((then, bid)) = Found::at(&self.table.bids, place, change)
            && budgets.is(*then)
        {
            return bid.clone();
        }
        let (bid, guarded) = try_out();
        Found::put(&mut self.table.bids, place, change, (budgets.as_of(guarded), bid.clone()));
        bid
    }
}
