//! Every verb of kubectl, of the oldest and the newest version on the machine, says what its documentation shows.
//!
//! The commands and what they print are in the folder beside this file, a transcript for each group of verbs.

use pintle_e2e::{Case, Cluster, play, suite_of, transcripts};
use std::process::ExitCode;

#[allow(clippy::print_stderr)]
fn main() -> ExitCode {
    let (transcripts, versions) = match (transcripts("kubectl"), Cluster::kubectl_versions()) {
        (Ok(transcripts), Ok(versions)) => (transcripts, versions),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut cases = Vec::new();
    for (name, text) in transcripts {
        for kubectl in versions.clone() {
            let (topic, text) = (name.clone(), text.clone());
            let version = kubectl.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let run = Box::new(move |cluster: &Cluster| play(cluster, &topic, &text, &kubectl));
            cases.push(Case { name: format!("{name} with {version}"), run });
        }
    }
    suite_of(&cases)
}
