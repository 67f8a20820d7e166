//! Stored objects are written anew in the version that is stored now, on a server that serves the kind which asks for it.

use anyhow::Result;
use pintle_e2e::{Case, Cluster, Subject, play, suite_of, transcripts};
use std::process::ExitCode;

/// A cluster whose server serves a version that is off by default.
struct Serving(Cluster);

impl Subject for Serving {
    fn start() -> Result<Self> {
        Cluster::start_with_flags(&["--runtime-config", "storagemigration.k8s.io/v1beta1=true"]).map(Self)
    }

    fn log(&self) -> String {
        self.0.server_log()
    }

    fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

#[allow(clippy::print_stderr)]
fn main() -> ExitCode {
    let (transcripts, mut versions) = match (transcripts("migration"), Cluster::kubectl_versions()) {
        (Ok(transcripts), Ok(versions)) => (transcripts, versions),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let Some(kubectl) = versions.pop() else { return ExitCode::FAILURE };
    let case = |(name, text): (String, String)| {
        let (topic, kubectl) = (name.clone(), kubectl.clone());
        Case { name, run: Box::new(move |serving: &Serving| play(&serving.0, &topic, &text, &kubectl)) }
    };
    suite_of(&transcripts.into_iter().map(case).collect::<Vec<_>>())
}
