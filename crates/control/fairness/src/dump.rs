//! The tables under `/debug/api_priority_and_fairness/`, as upstream writes them.

use crate::fairness::Fairness;

const LEVELS: &[&str] =
    &["PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests"];
const QUEUES: &[&str] = &[
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: &[&str] = &[
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
];

impl Fairness {
    /// A row for each priority level.
    pub fn dump_levels(&self) -> String {
        let mut rows = vec![titles(LEVELS)];
        for state in &self.rules.load().levels {
            let level = &state.core.lock().level;
            let active = level.queues.iter().filter(|q| !q.waiting.is_empty()).count();
            rows.push(vec![
                state.name.to_string(),
                active.to_string(),
                level.idle().to_string(),
                "false".into(),
                level.waiting.to_string(),
                level.executing.to_string(),
            ]);
        }
        aligned(&rows)
    }

    /// A row for each queue.
    pub fn dump_queues(&self) -> String {
        let mut rows = vec![titles(QUEUES)];
        for state in &self.rules.load().levels {
            let level = &state.core.lock().level;
            for (index, queue) in level.queues.iter().enumerate().filter(|_| level.queuing.is_some()) {
                let seats = queue.seats_waiting().to_string();
                rows.push(vec![
                    state.name.to_string(),
                    index.to_string(),
                    queue.waiting.len().to_string(),
                    queue.executing.to_string(),
                    queue.seats.to_string(),
                    format!("{:.8}ss", queue.next),
                    seats.clone(),
                    seats,
                    format!("{:.8}ss", f64::from(queue.seats_waiting()) * 0.003),
                ]);
            }
        }
        aligned(&rows)
    }

    /// A row for each request that waits; times count from the start of the server.
    pub fn dump_requests(&self) -> String {
        let mut rows = vec![titles(REQUESTS)];
        for state in &self.rules.load().levels {
            let level = &state.core.lock().level;
            for (index, queue) in level.queues.iter().enumerate() {
                for (place, request) in queue.waiting.iter().enumerate() {
                    rows.push(vec![
                        state.name.to_string(),
                        request.schema.clone(),
                        index.to_string(),
                        place.to_string(),
                        request.flow.clone(),
                        format!("{:.6}s", request.arrived_seconds),
                        request.seats.to_string(),
                        "0".into(),
                        "0s".into(),
                    ]);
                }
            }
        }
        aligned(&rows)
    }
}

fn titles(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Cells with commas behind all but the last, each column as wide as its widest cell and a space, eight at least.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len() + 2).max().unwrap_or_default().max(8);
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == row.len() {
                true => out.push_str(cell),
                false => out.push_str(&format!("{:<1$}", format!("{cell},"), width(column))),
            }
        }
        out.push('\n');
    }
    out
}
