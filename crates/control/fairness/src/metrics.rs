//! What priority and fairness counts, under upstream's names (`apiserver_flowcontrol_*`).

use crate::fairness::Fairness;
use pintle_metrics::{Counter, Family, Gauge, Histogram, Registry, Text};
use std::sync::Arc;
use std::time::Duration;

const LABELS: &[&str] = &["priority_level", "flow_schema"];
const DURATIONS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 10.0];

pub(crate) struct Metrics {
    rejected: Arc<Family<Counter>>,
    dispatched: Arc<Family<Counter>>,
    inqueue: Arc<Family<Gauge>>,
    executing: Arc<Family<Gauge>>,
    executing_seats: Arc<Family<Gauge>>,
    lengths: Arc<Family<Histogram>>,
    waits: Arc<Family<Histogram>>,
    durations: Arc<Family<Histogram>>,
    seats: Arc<Family<Histogram>>,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        Self {
            rejected: registry.counters(
                "apiserver_flowcontrol_rejected_requests_total",
                "[BETA] Number of requests rejected by API Priority and Fairness subsystem",
                &["priority_level", "flow_schema", "reason"],
            ),
            dispatched: registry.counters(
                "apiserver_flowcontrol_dispatched_requests_total",
                "[BETA] Number of requests executed by API Priority and Fairness subsystem",
                LABELS,
            ),
            inqueue: registry.gauges(
                "apiserver_flowcontrol_current_inqueue_requests",
                "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
                LABELS,
            ),
            executing: registry.gauges(
                "apiserver_flowcontrol_current_executing_requests",
                "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the \
                 API Priority and Fairness subsystem",
                LABELS,
            ),
            executing_seats: registry.gauges(
                "apiserver_flowcontrol_current_executing_seats",
                "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, \
                 any stage otherwise) requests in the API Priority and Fairness subsystem",
                LABELS,
            ),
            lengths: registry.histograms(
                "apiserver_flowcontrol_request_queue_length_after_enqueue",
                "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it \
                 is enqueued",
                LABELS,
                LENGTHS,
            ),
            waits: registry.histograms(
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "[BETA] Length of time a request spent waiting in its queue",
                &["priority_level", "flow_schema", "execute"],
                DURATIONS,
            ),
            durations: registry.histograms(
                "apiserver_flowcontrol_request_execution_seconds",
                "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution \
                 in the API Priority and Fairness subsystem",
                LABELS,
                DURATIONS,
            ),
            seats: registry.histograms(
                "apiserver_flowcontrol_work_estimated_seats",
                "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in \
                 API Priority and Fairness",
                LABELS,
                SEATS,
            ),
        }
    }

    /// The series of one schema, found once.
    pub fn counts(&self, level: &str, schema: &str) -> Counts {
        let labels = &[level, schema];
        Counts {
            names: [level.to_owned(), schema.to_owned()],
            rejected: self.rejected.clone(),
            dispatched: self.dispatched.with(labels),
            inqueue: self.inqueue.with(labels),
            executing: self.executing.with(labels),
            executing_seats: self.executing_seats.with(labels),
            lengths: self.lengths.with(labels),
            waits: self.waits.with(&[level, schema, "true"]),
            durations: self.durations.with(labels),
            seats: self.seats.with(labels),
        }
    }
}

pub(crate) struct Counts {
    names: [String; 2],
    rejected: Arc<Family<Counter>>,
    dispatched: Arc<Counter>,
    inqueue: Arc<Gauge>,
    executing: Arc<Gauge>,
    executing_seats: Arc<Gauge>,
    lengths: Arc<Histogram>,
    waits: Arc<Histogram>,
    durations: Arc<Histogram>,
    seats: Arc<Histogram>,
}

impl Counts {
    pub fn rejected(&self, reason: &str) {
        self.rejected.with(&[&self.names[0], &self.names[1], reason]).inc();
    }

    pub fn queued(&self, length: usize) {
        self.inqueue.inc();
        self.lengths.observe(length as f64);
    }

    pub fn left_queue(&self) {
        self.inqueue.dec();
    }

    pub fn started(&self, seats: u32, waited: Duration) {
        self.dispatched.inc();
        self.executing.inc();
        self.executing_seats.add(f64::from(seats));
        self.waits.observe(waited.as_secs_f64());
        self.seats.observe(f64::from(seats));
    }

    pub fn finished(&self, seats: u32, seconds: f64) {
        self.executing.dec();
        self.executing_seats.add(-f64::from(seats));
        self.durations.observe(seconds);
    }
}

impl Fairness {
    /// The limits of the levels, told when asked.
    pub(crate) fn show(&self, text: &mut Text) {
        let rules = self.rules.load();
        let mut gauge = |name: &str, help: &str, value: &dyn Fn(&crate::fairness::LevelState) -> f64| {
            text.family(name, "gauge", help);
            for level in &rules.levels {
                text.labelled(name, &[("priority_level", &level.name)], value(level));
            }
        };
        gauge(
            "apiserver_flowcontrol_nominal_limit_seats",
            "[BETA] Nominal number of execution seats configured for each priority level",
            &|l| l.claim.nominal,
        );
        gauge(
            "apiserver_flowcontrol_lower_limit_seats",
            "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
            &|l| l.claim.least,
        );
        gauge(
            "apiserver_flowcontrol_current_limit_seats",
            "[ALPHA] current derived number of execution seats available to each priority level",
            &|l| {
                if l.exempt { l.claim.nominal } else { f64::from(l.core.lock().level.limit) }
            },
        );
        gauge("apiserver_flowcontrol_current_r", "[ALPHA] R(time of last change)", &|l| {
            l.core.lock().level.virtual_time
        });
    }
}
