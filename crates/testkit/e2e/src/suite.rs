//! Runs the tests of one file on one cluster, some at a time, and checks at the end that nothing is left of it.

use crate::cluster::Cluster;
use anyhow::Result;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// As many failures have a cause in common, such as a machine that has no room: each further test would only wait.
const MOST_FAILURES: usize = 6;

/// What the tests of a file run on, all the same one.
pub trait Subject: Sized + Sync {
    /// Tests that run at the same time.
    const PARALLEL: usize = 3;

    fn start() -> Result<Self>;
    /// What it has logged, for a failure.
    fn log(&self) -> String;
    /// Takes it away and fails when anything of it is left on the machine.
    fn finish(self) -> Result<()>;
}

impl Subject for Cluster {
    fn start() -> Result<Self> {
        Self::start()
    }

    fn log(&self) -> String {
        self.server_log()
    }

    fn finish(self) -> Result<()> {
        self.finish()
    }
}

/// A test: its name, and what it does with the cluster.
pub type Test<S = Cluster> = (&'static str, fn(&S) -> Result<()>);

/// A test that was made from data.
pub struct Case<S = Cluster> {
    pub name: String,
    pub run: Box<dyn Fn(&S) -> Result<()> + Send + Sync>,
}

#[allow(clippy::print_stdout)]
pub(crate) fn tell(line: &str) {
    println!("{line}");
}

/// Why a test says nothing about what it was to run on.
#[derive(Debug)]
struct LeftOut(String);

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LeftOut {}

/// What a test returns that does not apply to what it was to run on: the suite tells the reason, and goes on.
pub fn left_out(reason: &str) -> anyhow::Error {
    LeftOut(reason.to_owned()).into()
}

struct Outcomes {
    passed: usize,
    left_out: usize,
    failures: Vec<String>,
}

impl Outcomes {
    fn hopeless(&self) -> bool {
        self.failures.len() >= MOST_FAILURES
    }
}

/// Runs the tests whose names contain the first argument, if there is one. Prints as cargo's own tests do.
pub fn suite(tests: &[Test]) -> ExitCode {
    suite_on(tests)
}

/// The same on something else than a cluster.
pub fn suite_on<S: Subject + 'static>(tests: &[Test<S>]) -> ExitCode {
    let case = |(name, run): &Test<S>| Case { name: (*name).to_owned(), run: Box::new(*run) };
    suite_of(&tests.iter().map(case).collect::<Vec<_>>())
}

/// The same, of tests that were made from data.
pub fn suite_of<S: Subject>(tests: &[Case<S>]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        tests.iter().for_each(|test| tell(&format!("{}: test", test.name)));
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|a| !a.starts_with('-')).map(String::as_str).unwrap_or_default();
    let chosen: Vec<&Case<S>> = tests.iter().filter(|test| test.name.contains(filter)).collect();
    let mut outcomes = Outcomes { passed: 0, left_out: 0, failures: Vec::new() };
    tell(&format!("\nrunning {} tests", chosen.len() + usize::from(!chosen.is_empty())));
    if !chosen.is_empty() {
        run_on_subject(&chosen, &mut outcomes);
    }
    let failed = outcomes.failures.len();
    if failed > 0 {
        tell("\nfailures:");
    }
    outcomes.failures.iter().for_each(|failure| tell(&format!("\n---- {failure}")));
    if outcomes.hopeless() {
        tell(&format!("\n---- no further tests were begun after {MOST_FAILURES} failures"));
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let (passed, ignored, others) = (outcomes.passed, outcomes.left_out, tests.len() - chosen.len());
    tell(&format!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {others} filtered out\n"
    ));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_on_subject<S: Subject>(tests: &[&Case<S>], outcomes: &mut Outcomes) {
    let subject = match S::start() {
        Ok(subject) => subject,
        Err(error) => return note(outcomes, "what is tested starts", Instant::now(), Err(error)),
    };
    let (next, shared) = (AtomicUsize::new(0), Mutex::new(outcomes));
    std::thread::scope(|scope| {
        for _ in 0..S::PARALLEL.min(tests.len()) {
            scope.spawn(|| {
                while let Some(Case { name, run }) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| run(&subject)));
                    let result =
                        result.unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", panic_text(&*panic))));
                    let mut outcomes = shared.lock().unwrap_or_else(|p| p.into_inner());
                    note(&mut outcomes, name, start, result);
                    if outcomes.hopeless() {
                        next.store(tests.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let outcomes = shared.into_inner().unwrap_or_else(|p| p.into_inner());
    if !outcomes.failures.is_empty() {
        let log = subject.log();
        let tail: Vec<&str> = log.lines().rev().take(200).collect();
        tell("\n---- the end of the server's log");
        tail.iter().rev().for_each(|line| tell(line));
    }
    let start = Instant::now();
    note(outcomes, "nothing is left behind", start, subject.finish());
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

fn note(outcomes: &mut Outcomes, name: &str, start: Instant, result: Result<()>) {
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            outcomes.passed += 1;
            tell(&format!("test {name} ... ok ({seconds:.1}s)"));
        }
        Err(error) if error.is::<LeftOut>() => {
            outcomes.left_out += 1;
            tell(&format!("test {name} ... ignored, {error}"));
        }
        Err(error) => {
            tell(&format!("test {name} ... FAILED ({seconds:.1}s)"));
            outcomes.failures.push(format!("{name}\n{error:#}"));
        }
    }
    // Whoever reads along sees each result at once.
    let _ = std::io::stdout().flush();
}
