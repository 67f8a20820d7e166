//! What the kernel knows of this process, as every Prometheus client tells it.

use crate::text::Text;

/// The unit of times in `/proc/PID/stat` on every architecture that Linux shows them on, in seconds.
const TICK: f64 = 0.01;
const PAGE_BYTES: f64 = 4096.0;

/// Writes the `process_*` family of metrics; what `/proc` does not tell is left out. For [`crate::Registry::on_scrape`].
pub fn process(text: &mut Text) {
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
        of_stat(text, &stat);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        text.gauge("process_open_fds", "[ALPHA] Number of open file descriptors.", entries.count() as f64);
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    if let Some(max) = files.and_then(|max| max.parse().ok()) {
        text.gauge("process_max_fds", "[ALPHA] Maximum number of open file descriptors.", max);
    }
}

fn of_stat(text: &mut Text, stat: &str) {
    // The name in brackets may hold anything; what follows it is numbers, the state being field 3.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return };
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.trim().parse::<f64>().ok()).unwrap_or_default();
    let seconds = (field(14) + field(15)) * TICK;
    text.counter("process_cpu_seconds_total", "[ALPHA] Total user and system CPU time spent in seconds.", seconds);
    text.gauge("process_virtual_memory_bytes", "[ALPHA] Virtual memory size in bytes.", field(23));
    text.gauge("process_resident_memory_bytes", "[ALPHA] Resident memory size in bytes.", field(24) * PAGE_BYTES);
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    if let Some(boot) = boot {
        let help = "[STABLE] Start time of the process since unix epoch in seconds.";
        text.gauge("process_start_time_seconds", help, boot + field(22) * TICK);
    }
}
