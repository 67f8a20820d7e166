//! Chooses processors: whole memory nodes and sockets first, then whole cores, then what is left over of cores. Pure.
//!
//! Source: `pkg/kubelet/cm/cpumanager/cpu_assignment.go`, the packed way.

use crate::cpu_set::CpuSet;
use crate::layout::{Cpu, Layout};

/// That many of the free processors; nothing when there are not so many.
pub(crate) fn take(layout: &Layout, free: &CpuSet, count: usize) -> Option<CpuSet> {
    if free.len() < count {
        return None;
    }
    let (node, socket): (fn(&Cpu) -> u32, fn(&Cpu) -> u32) = (|cpu| cpu.node, |cpu| cpu.socket);
    // Whichever of the two holds the other goes first.
    let large = if layout.count(socket) >= layout.count(node) { [node, socket] } else { [socket, node] };
    let mut taking = Taking { layout, free: free.clone(), taken: CpuSet::default(), left: count };
    for level in [large[0], large[1], |cpu: &Cpu| cpu.core] {
        taking.whole(level);
    }
    taking.single();
    Some(taking.taken)
}

struct Taking<'a> {
    layout: &'a Layout,
    free: CpuSet,
    taken: CpuSet,
    left: usize,
}

impl Taking<'_> {
    fn free_of(&self, level: fn(&Cpu) -> u32, id: u32) -> usize {
        self.layout.cpus.iter().filter(|cpu| level(cpu) == id && self.free.contains(cpu.id)).count()
    }

    /// How crowded what a processor belongs to is, the fullest first, so that large free parts stay whole.
    fn crowd(&self, cpu: &Cpu) -> (usize, u32, usize, u32) {
        (self.free_of(|c| c.node, cpu.node), cpu.node, self.free_of(|c| c.socket, cpu.socket), cpu.socket)
    }

    fn give(&mut self, cpus: &CpuSet) {
        self.left -= cpus.len();
        self.free = self.free.minus(cpus);
        self.taken = self.taken.union(cpus);
    }

    /// Takes parts of which every processor is free, while a whole one is wanted.
    fn whole(&mut self, level: fn(&Cpu) -> u32) {
        loop {
            let parts: CpuSet = self.layout.cpus.iter().map(level).collect();
            let of = |id| -> CpuSet { self.layout.cpus.iter().filter(|c| level(c) == id).map(|c| c.id).collect() };
            let fitting = parts.iter().map(of).filter(|part| part.len() <= self.left && part.is_subset(&self.free));
            let first = |part: &CpuSet| part.iter().next().and_then(|id| self.layout.cpus.iter().find(|c| c.id == id));
            let best = fitting.min_by_key(|part| (first(part).map(|cpu| self.crowd(cpu)), part.clone()));
            match best {
                Some(part) if !part.is_empty() => self.give(&part),
                _ => return,
            }
        }
    }

    fn single(&mut self) {
        while self.left > 0 {
            let free = self.layout.cpus.iter().filter(|cpu| self.free.contains(cpu.id));
            let best = free.min_by_key(|cpu| (self.crowd(cpu), self.free_of(|c| c.core, cpu.core), cpu.id));
            let Some(id) = best.map(|cpu| cpu.id) else { return };
            self.give(&CpuSet::from_iter([id]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::examples::machine;

    /// Machines of upstream's tests: sockets, nodes of each, cores of each, threads of each.
    fn check(machine_of: (u32, u32, u32, u32), free: &str, count: usize, expected: Option<&str>) {
        let (sockets, nodes, cores, threads) = machine_of;
        let layout = machine(sockets, nodes, cores, threads);
        let got = take(&layout, &free.parse().unwrap(), count).map(|set| set.to_string());
        assert_eq!(got.as_deref(), expected, "{count} of {free}");
    }

    #[test]
    fn whole_parts_go_first() {
        let (one, two) = ((1, 1, 4, 2), (2, 1, 3, 2));
        check(one, "0-7", 9, None);
        check(one, "0-7", 0, Some(""));
        check(one, "0-7", 1, Some("0"));
        check(one, "1-7", 1, Some("4"));
        check(one, "0-7", 2, Some("0,4"));
        check(one, "1-3,5-7", 5, Some("1-3,5-6"));
        check(two, "0-11", 6, Some("0-2,6-8"));
        check(two, "1-11", 6, Some("3-5,9-11"));
        // What is left of a socket is used up before the other is begun.
        check(two, "1-11", 2, Some("1,7"));
        check(two, "0-11", 12, Some("0-11"));
        check((1, 2, 2, 2), "0-7", 4, Some("0-1,4-5"));
        check((1, 2, 2, 2), "1-7", 4, Some("2-3,6-7"));
    }
}
