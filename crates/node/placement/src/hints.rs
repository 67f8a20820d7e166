//! Agrees on the memory nodes that a container's resources come from. Pure.
//!
//! Source: `pkg/kubelet/cm/topologymanager`: each provider says which sets of nodes could serve it and which of them
//! are as good as can be; one of each is chosen so that what they have in common is best.

use crate::cpu_set::CpuSet;
use crate::options::TopologyPolicy;

/// One way to serve a resource. Without nodes it is content with any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) nodes: Option<CpuSet>,
    pub(crate) preferred: bool,
}

/// How one resource could be served: none when it does not matter; an empty list when it cannot be.
pub(crate) type Wishes = Option<Vec<Hint>>;

/// The sets of nodes that can be made of these, the smaller ones of a size first.
pub(crate) fn subsets(nodes: &CpuSet) -> Vec<CpuSet> {
    let ids: Vec<u32> = nodes.iter().take(crate::layout::MAX_NODES).collect();
    let mut all: Vec<CpuSet> = (1u32..1 << ids.len())
        .map(|bits| ids.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, id)| *id).collect())
        .collect();
    all.sort_by_key(CpuSet::len);
    all
}

/// Marks those hints as preferred that are as small as a set can be that would do if all of it were free.
pub(crate) fn prefer(fitting: Vec<CpuSet>, smallest: usize) -> Vec<Hint> {
    fitting.into_iter().map(|nodes| Hint { preferred: nodes.len() == smallest, nodes: Some(nodes) }).collect()
}

/// The best of what all could agree on, and whether the policy admits it.
pub(crate) fn merge(policy: TopologyPolicy, machine: &CpuSet, wishes: Vec<Wishes>) -> (Hint, bool) {
    if policy == TopologyPolicy::None {
        return (Hint { nodes: None, preferred: true }, true);
    }
    let content = |preferred| vec![Hint { nodes: None, preferred }];
    let lists: Vec<Vec<Hint>> = wishes
        .into_iter()
        .map(|wish| match wish {
            None => content(true),
            Some(list) if list.is_empty() => content(false),
            Some(list) => list,
        })
        .map(|list| if policy == TopologyPolicy::SingleNumaNode { single(list) } else { list })
        .collect();
    let mut best: Option<Hint> = None;
    // The narrowest that is not preferred, as the most demanding resource has it.
    let narrowest =
        lists.iter().filter_map(|list| list.iter().filter_map(|h| Some(h.nodes.as_ref()?.len())).min()).max();
    for_each_choice(&lists, &mut Vec::new(), &mut |choice| {
        let merged = agree(machine, choice);
        if better(best.as_ref(), &merged, narrowest.unwrap_or(machine.len())) {
            best = Some(merged);
        }
    });
    let mut best = best.unwrap_or(Hint { nodes: Some(machine.clone()), preferred: false });
    if policy == TopologyPolicy::SingleNumaNode && best.nodes.as_ref() == Some(machine) {
        best.nodes = None;
    }
    let admitted = best.preferred || policy == TopologyPolicy::BestEffort;
    (best, admitted)
}

fn single(list: Vec<Hint>) -> Vec<Hint> {
    list.into_iter().filter(|h| h.preferred && h.nodes.as_ref().is_none_or(|nodes| nodes.len() == 1)).collect()
}

fn for_each_choice<'a>(lists: &'a [Vec<Hint>], chosen: &mut Vec<&'a Hint>, each: &mut impl FnMut(&[&Hint])) {
    let Some(list) = lists.get(chosen.len()) else { return each(chosen) };
    for hint in list {
        chosen.push(hint);
        for_each_choice(lists, chosen, each);
        chosen.pop();
    }
}

/// What the chosen hints have in common; preferred only when all are and name the same nodes.
fn agree(machine: &CpuSet, choice: &[&Hint]) -> Hint {
    let named: Vec<&CpuSet> = choice.iter().filter_map(|hint| hint.nodes.as_ref()).collect();
    let preferred = choice.iter().all(|hint| hint.preferred) && named.windows(2).all(|pair| pair[0] == pair[1]);
    let nodes = named.iter().fold(machine.clone(), |all, nodes| all.and(nodes));
    Hint { nodes: Some(nodes), preferred }
}

fn better(best: Option<&Hint>, other: &Hint, wanted: usize) -> bool {
    let Some(nodes) = other.nodes.as_ref().filter(|nodes| !nodes.is_empty()) else { return false };
    let Some(best) = best else { return true };
    if best.preferred != other.preferred {
        return other.preferred;
    }
    let Some(before) = best.nodes.as_ref() else { return true };
    let narrower = (nodes.len(), nodes) < (before.len(), before);
    if best.preferred || before.len() > wanted {
        return narrower;
    }
    if before.len() == wanted {
        return nodes.len() == wanted && narrower;
    }
    match nodes.len() {
        // Too few nodes are worse than enough of them.
        n if n > wanted => false,
        n if n == wanted => true,
        n => n > before.len() || (n == before.len() && narrower),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TopologyPolicy::{BestEffort, None as Nothing, Restricted, SingleNumaNode};

    /// Resources apart by `;`, hints by spaces: nodes, with `!` when preferred; `*` is any, `-` is none at all.
    fn wishes(text: &str) -> Vec<Wishes> {
        let hint = |word: &str| {
            let (nodes, preferred) = word.strip_suffix('!').map_or((word, false), |nodes| (nodes, true));
            Hint { nodes: Some(nodes.parse().unwrap()), preferred }
        };
        let list = |text: &str| match text.trim() {
            "*" => None,
            "-" => Some(vec![]),
            text => Some(text.split_whitespace().map(hint).collect()),
        };
        text.split(';').map(list).collect()
    }

    fn check(policy: TopologyPolicy, text: &str, nodes: Option<&str>, preferred: bool, admitted: bool) {
        let (hint, ok) = merge(policy, &"0-1".parse().unwrap(), wishes(text));
        let got = hint.nodes.map(|nodes| nodes.to_string());
        assert_eq!((got.as_deref(), hint.preferred, ok), (nodes, preferred, admitted), "{policy:?}: {text}");
    }

    #[test]
    fn what_resources_have_in_common_is_chosen() {
        // The tables of upstream's documentation and tests of the topology manager.
        check(Nothing, "0!; 1!", None, true, true);
        check(BestEffort, "*; *", Some("0-1"), true, true);
        check(BestEffort, "0! 1! 0-1; 1! 0-1", Some("1"), true, true);
        check(BestEffort, "0!; 1!", Some("0-1"), false, true);
        check(BestEffort, "0! 0-1; 1! 0-1", Some("0"), false, true);
        check(BestEffort, "0-1!; 0! 0-1", Some("0-1"), false, true);
        check(BestEffort, "0!; -", Some("0"), false, true);
        check(Restricted, "0! 1!; 0! 1!", Some("0"), true, true);
        check(Restricted, "0! 0-1; 1! 0-1", Some("0"), false, false);
        check(Restricted, "0-1!; 0-1!", Some("0-1"), true, true);
        check(Restricted, "0!; -", Some("0"), false, false);
        check(SingleNumaNode, "0! 1! 0-1; 1! 0-1", Some("1"), true, true);
        check(SingleNumaNode, "0-1!; *", None, false, false);
        check(SingleNumaNode, "*; *", None, true, true);
    }

    #[test]
    fn sets_are_made_of_nodes() {
        let text: Vec<String> = subsets(&"0-2".parse().unwrap()).iter().map(CpuSet::to_string).collect();
        assert_eq!(text, ["0", "1", "2", "0-1", "0,2", "1-2", "0-2"]);
    }
}
