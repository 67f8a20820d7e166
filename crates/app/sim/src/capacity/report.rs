//! What was measured, as text; every figure says whether it is virtual or real.

use super::meter::Row;
use super::tracker::Latencies;
use super::{Capacity, Shape, Took};
use pintle_hollow::Machine;
use std::fmt;
use std::time::Duration;

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub(crate) capacity: Capacity,
    /// Memory of the process: without nodes, with nodes, with pods.
    pub(crate) idle_bytes: u64,
    pub(crate) node_bytes: u64,
    pub(crate) pod_bytes: u64,
    pub(crate) registering: Took,
    /// Until all Deployments were created.
    pub(crate) applying: Took,
    /// Until all pods were ready.
    pub(crate) starting: Took,
    pub(crate) resting: Took,
    pub(crate) whole: Took,
    pub(crate) pods: Latencies,
    pub(crate) requests: Vec<Row>,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            nodes: 100,
            pods: 3000,
            deployments: 100,
            shape: Shape::default(),
            services: false,
            pod_milli_cpu: 100,
            pod_memory_bytes: 128 << 20,
            machine: Machine::default(),
            start: Duration::from_secs(1),
            seed: 1,
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn short(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..1000 => format!("{us} µs"),
        us @ 1000..1_000_000 => format!("{:.1} ms", us as f64 / 1000.0),
        us => format!("{:.2} s", us as f64 / 1e6),
    }
}

fn kibibytes(more: u64, less: u64, count: u32) -> String {
    format!("{:.1} KiB", more.saturating_sub(less) as f64 / 1024.0 / f64::from(count.max(1)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, pods, .. } = self;
        let mut line = |name: &str, value: String, clock: &str| writeln!(f, "{name:<52} {value:>22}  {clock}");
        line(
            "nodes, Deployments, pods",
            format!("{}, {}, {}", capacity.nodes, capacity.deployments, capacity.pods),
            "",
        )?;
        line("nodes registered", seconds(self.registering.real), "real")?;
        line("Deployments created", seconds(self.applying.real), "real")?;
        line("all pods ready, from the first Deployment", seconds(self.starting.real), "real")?;
        line("the same", seconds(self.starting.virtual_time), "virtual")?;
        let rate = pods.bound as f64 / pods.binding_real.as_secs_f64().max(1e-6);
        line("pods created and bound, one processor for all", format!("{rate:.0} per second"), "real")?;
        let [p50, p99] = pods.ready_virtual;
        line("pod created to ready, p50, p99", format!("{}, {}", short(p50), short(p99)), "virtual")?;
        let [p50, p99] = pods.ready_real;
        line("the same, everything else of the process included", format!("{}, {}", short(p50), short(p99)), "real")?;
        let share = self.resting.real.as_secs_f64() / self.resting.virtual_time.as_secs_f64().max(1e-6);
        line("cluster at rest, nodes included", format!("{:.1} % of a core", share * 100.0), "real per virtual")?;
        line("memory without nodes", format!("{} MiB", self.idle_bytes >> 20), "real")?;
        line("memory per node", kibibytes(self.node_bytes, self.idle_bytes, capacity.nodes), "real")?;
        line("memory per pod", kibibytes(self.pod_bytes, self.node_bytes, capacity.pods), "real")?;
        line("whole run", seconds(self.whole.real), "real")?;
        line("the same", seconds(self.whole.virtual_time), "virtual")?;
        writeln!(f)?;
        writeln!(f, "requests until all pods were ready; times are real processor times of the API server and store")?;
        writeln!(f, "{:<20} {:>10} {:>10} {:>10} {:>10} {:>10}", "", "count", "p50", "p99", "most", "sum")?;
        for Row { kind, count, p50, p99, most, sum } in &self.requests {
            let times = [p50, p99, most, sum].map(|time| short(*time));
            let [p50, p99, most, sum] = times;
            writeln!(f, "{kind:<20} {count:>10} {p50:>10} {p99:>10} {most:>10} {sum:>10}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::capacity::{Capacity, measure};

    #[test]
    fn a_small_cluster_is_measured() {
        let capacity = Capacity { nodes: 3, pods: 7, deployments: 2, services: true, ..Capacity::default() };
        let report = measure(&capacity, |_| ()).unwrap();
        assert_eq!(report.pods.bound, 7);
        let text = report.to_string();
        for part in ["3, 2, 7", "% of a core", "create", "watch, its begin"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(report.starting.virtual_time.as_secs() < 60, "{text}");
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let capacity = Capacity { nodes: 1, pods: 200, ..Capacity::default() };
        assert!(measure(&capacity, |_| ()).unwrap_err().to_string().contains("have no room for 200"));
    }
}
