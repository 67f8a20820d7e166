//! What a running container uses at one moment.

use super::kill::not_running;
use crate::daemon::Daemon;
use crate::error::Result;
use pintle_linux::cgroup::Stats;
use std::collections::BTreeMap;

/// Bytes, packets, errors and drops of an interface, received and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received: [u64; 4],
    pub sent: [u64; 4],
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds since the epoch.
    pub read_at: i64,
    pub usage: Stats,
    /// Nanoseconds of all processors, idle ones too.
    pub system_cpu_nanos: u64,
    pub processors: u32,
    pub networks: BTreeMap<String, Traffic>,
    /// The container's limit, else the machine's memory.
    pub memory_limit: u64,
}

impl Daemon {
    /// # Errors
    /// 409 when it does not run.
    pub async fn sample(&self, id: &str) -> Result<Sample> {
        let (id, pid, limit) = match self.container(id) {
            Ok(container) => {
                let look = |r: &super::Record| (r.state.status.is_running(), r.state.pid, r.host.memory);
                let (running, pid, limit) = container.look(look);
                if !running {
                    return Err(not_running(&container.id));
                }
                (container.id.clone(), pid, limit)
            }
            Err(missing) => {
                let view = self.pod_container(id).ok_or(missing)??;
                (view.id, view.pid, 0)
            }
        };
        let usage = self.engine.usage(&id).await?;
        let machine = machine_memory();
        let limit = u64::try_from(limit).ok().filter(|l| *l > 0).unwrap_or(machine);
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let dev = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Sample {
            read_at: self.now(),
            usage,
            system_cpu_nanos: system_nanos(&stat),
            processors: u32::try_from(processors).unwrap_or(1),
            networks: traffic(&dev),
            memory_limit: limit.min(machine.max(1)),
        })
    }
}

/// Bytes of this machine.
pub(crate) fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// The first line of /proc/stat, in ticks of a hundredth of a second (proc_stat(5)).
fn system_nanos(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: u64 = line.split_whitespace().skip(1).take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks.saturating_mul(10_000_000)
}

/// /proc/net/dev without the loopback (proc_pid_net(5)).
fn traffic(text: &str) -> BTreeMap<String, Traffic> {
    let lines = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let interfaces = lines.filter(|(name, _)| name.trim() != "lo").take(256);
    interfaces
        .map(|(name, numbers)| {
            let all: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let four = |from: usize| std::array::from_fn(|i| all.get(from + i).copied().unwrap_or_default());
            (name.trim().to_owned(), Traffic { received: four(0), sent: four(8) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(system_nanos("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"), 280_000_000);
        let text =
            "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 1 0 0 0 0 20 3 0 0 0 0 0 0\n";
        let all = traffic(text);
        assert_eq!(all.len(), 1);
        assert_eq!(all["eth0"], Traffic { received: [10, 2, 0, 1], sent: [20, 3, 0, 0] });
    }
}
