//! Tests the health of containers that run, as their HEALTHCHECK says.

use crate::containers::{Container, rfc3339};
use crate::daemon::Daemon;
use crate::model::{Health, HealthConfig, HealthResult, HealthStatus};
use pintle_cri::{ByteReader, ExecRequest, ExitOutcome};
use pintle_runtime::options::ExecOptions;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Bytes of a test's output that are kept.
const MAX_OUTPUT: u64 = 4096;
/// Results that are kept.
const KEPT: usize = 5;
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// The shell of `CMD-SHELL`.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What is run and how often.
#[derive(Clone, Debug)]
struct Plan {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Plan {
    /// Nothing when there is nothing to test.
    fn of(config: &HealthConfig, shell: Option<&[String]>) -> Option<Self> {
        let (kind, rest) = config.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => {
                let default = || SHELL.iter().map(|w| (*w).to_owned()).collect();
                let mut words: Vec<String> = shell.map_or_else(default, <[String]>::to_vec);
                words.extend(rest.first().cloned());
                words
            }
            _ => return None,
        };
        let or = |nanos: i64, default| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => default,
        };
        (!command.is_empty()).then_some(Self {
            command,
            interval: or(config.interval, INTERVAL),
            timeout: or(config.timeout, TIMEOUT),
            start_period: or(config.start_period, Duration::ZERO),
            start_interval: or(config.start_interval, START_INTERVAL),
            retries: if config.retries > 0 { config.retries } else { RETRIES },
        })
    }
}

impl Daemon {
    /// Begins to test a container that has just started, if it says how.
    pub(crate) fn begin_tests(self: &Arc<Self>, container: &Arc<Container>) {
        let plan =
            container.look(|r| r.config.healthcheck.as_ref().and_then(|h| Plan::of(h, r.config.shell.as_deref())));
        let health = plan.as_ref().map(|_| Health::default());
        self.note(container, |r| r.state.health = health);
        let Some(plan) = plan else { return };
        let (daemon, tested) = (Arc::downgrade(self), Arc::downgrade(container));
        let task = tokio::spawn(async move { test(&daemon, &tested, plan).await });
        if let Some(old) = container.tester.lock().replace(task.abort_handle()) {
            old.abort();
        }
    }

    /// It has ended: one that was being tested is not healthy any more.
    pub(crate) fn end_tests(&self, container: &Container) {
        if let Some(task) = container.tester.lock().take() {
            task.abort();
        }
        self.note(container, |r| {
            if let Some(health) = &mut r.state.health {
                health.status = HealthStatus::Unhealthy;
            }
        });
    }

    fn note_result(&self, container: &Container, result: HealthResult, plan: &Plan, starting: bool) {
        let (before, after) = match self.change(container, |r| {
            let health = r.state.health.get_or_insert_default();
            let before = health.status;
            take_result(health, result, plan.retries, starting);
            (before, health.status)
        }) {
            Ok(statuses) => statuses,
            Err(error) => {
                tracing::warn!(container = %container.id, %error, "the health of a container is not saved");
                return;
            }
        };
        if before != after {
            self.tell_of(container, &format!("health_status: {}", after.text()), &[]);
        }
    }

    /// Runs the test once.
    async fn test_once(&self, container: &Container, plan: &Plan) -> HealthResult {
        let begun = self.now();
        let run = run(self, container, plan);
        let (exit_code, output) = match tokio::time::timeout(plan.timeout, run).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let nanos = i64::try_from(plan.timeout.as_nanos()).unwrap_or(i64::MAX);
                let message = format!("Health check exceeded timeout ({})", crate::go_format::duration(nanos));
                (-1, message)
            }
        };
        HealthResult { start: rfc3339(begun), end: rfc3339(self.now()), exit_code, output }
    }
}

/// What one more result makes of a container's health.
fn take_result(health: &mut Health, result: HealthResult, retries: i64, starting: bool) {
    if result.exit_code == 0 {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if !(starting && health.status == HealthStatus::Starting) {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    while health.log.len() >= KEPT {
        health.log.pop_front();
    }
    health.log.push_back(result);
}

async fn test(daemon: &Weak<Daemon>, container: &Weak<Container>, plan: Plan) {
    let begun = tokio::time::Instant::now();
    loop {
        let is_starting =
            |c: &Container| c.look(|r| r.state.health.as_ref().is_some_and(|h| h.status == HealthStatus::Starting));
        let in_start = begun.elapsed() < plan.start_period;
        let pause = match container.upgrade() {
            Some(c) if in_start && is_starting(&c) => plan.start_interval,
            Some(_) => plan.interval,
            None => return,
        };
        tokio::time::sleep(pause).await;
        let (Some(daemon), Some(container)) = (daemon.upgrade(), container.upgrade()) else { return };
        let result = daemon.test_once(&container, &plan).await;
        let in_start = begun.elapsed() < plan.start_period;
        daemon.note_result(&container, result, &plan, in_start);
    }
}

async fn run(daemon: &Daemon, container: &Container, plan: &Plan) -> (i32, String) {
    let request = ExecRequest {
        container_id: container.id.clone(),
        command: plan.command.clone(),
        stdout: true,
        stderr: true,
        ..ExecRequest::default()
    };
    let id = crate::containers::new_id();
    let told = plan.command.join(" ");
    daemon.tell_of(container, &format!("exec_create: {told}"), &[("execID", &id)]);
    daemon.tell_of(container, &format!("exec_start: {told}"), &[("execID", &id)]);
    let session = match daemon.engine.exec_with(request, &ExecOptions::default()).await {
        Ok((session, _)) => session,
        Err(error) => return (-1, error.to_string()),
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let read = async { tokio::join!(keep(session.stdout, &mut stdout), keep(session.stderr, &mut stderr)) };
    let (_, exit) = tokio::join!(read, session.exit);
    stdout.append(&mut stderr);
    stdout.truncate(usize::try_from(MAX_OUTPUT).unwrap_or(usize::MAX));
    let code = match exit {
        Ok(ExitOutcome::Code(code)) => code,
        _ => -1,
    };
    daemon.tell_of(container, "exec_die", &[("execID", &id), ("exitCode", &code.to_string())]);
    (code, String::from_utf8_lossy(&stdout).into_owned())
}

/// What is more than the most is read and dropped, so that the test can end.
async fn keep(reader: Option<ByteReader>, kept: &mut Vec<u8>) {
    let Some(mut reader) = reader else { return };
    // A broken pipe is an end like another.
    let _ = (&mut reader).take(MAX_OUTPUT).read_to_end(kept).await;
    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results by their exit codes, and the health after all of them.
    fn check(codes: &[i32], starting: bool, expected: (HealthStatus, i64)) {
        let mut health = Health::default();
        for code in codes {
            take_result(&mut health, HealthResult { exit_code: *code, ..Default::default() }, 3, starting);
        }
        assert_eq!((health.status, health.failing_streak), expected, "{codes:?}");
        assert!(health.log.len() <= KEPT);
    }

    #[test]
    fn failures_count_only_when_there_are_enough_of_them() {
        check(&[1, 1], false, (HealthStatus::Starting, 2));
        check(&[1, 1, 1], false, (HealthStatus::Unhealthy, 3));
        check(&[1, 1, 1], true, (HealthStatus::Starting, 0));
        check(&[1, 1, 1, 0], false, (HealthStatus::Healthy, 0));
        check(&[0, 1, 1, 1, 1, 1, 1], true, (HealthStatus::Unhealthy, 6));
    }

    #[test]
    fn tests_are_commands_or_words_for_a_shell() {
        let config = |words: &[&str]| HealthConfig {
            test: words.iter().map(|w| (*w).to_owned()).collect(),
            ..Default::default()
        };
        assert_eq!(Plan::of(&config(&["CMD", "a", "b"]), None).unwrap().command, ["a", "b"]);
        assert_eq!(Plan::of(&config(&["CMD-SHELL", "a b"]), None).unwrap().command, ["/bin/sh", "-c", "a b"]);
        assert!(Plan::of(&config(&["NONE"]), None).is_none());
        assert!(Plan::of(&config(&[]), None).is_none());
    }
}
