//! What the scheduler and the controllers do by themselves, watched from outside with kubectl: what upstream's conformance
//! tests of applications, scheduling, quotas and garbage collection look at, and autoscaling.
//!
//! A transcript for each kind of thing is in the folder beside this file; docs/conformance.md says which line is where.

use pintle_e2e::{Case, Cluster, play, suite_of, transcripts};
use std::process::ExitCode;

#[allow(clippy::print_stderr)]
fn main() -> ExitCode {
    let (transcripts, mut versions) = match (transcripts("controllers"), Cluster::kubectl_versions()) {
        (Ok(transcripts), Ok(versions)) => (transcripts, versions),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    // What controllers do does not depend on kubectl: the newest is enough.
    let Some(kubectl) = versions.pop() else { return ExitCode::FAILURE };
    let case = |(name, text): (String, String)| {
        let (topic, kubectl) = (name.clone(), kubectl.clone());
        Case { name, run: Box::new(move |cluster: &Cluster| play(cluster, &topic, &text, &kubectl)) }
    };
    suite_of(&transcripts.into_iter().map(case).collect::<Vec<_>>())
}
