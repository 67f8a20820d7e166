//! Every verb of kubectl, of the oldest and the newest version on the machine, says what its documentation shows.
//!
//! The commands and what they print are in the folder beside this file, a transcript for each group of verbs.

use pintle_e2e::{Case, Cluster, play, suite_of};
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

/// The transcripts by name.
fn transcripts() -> io::Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        found.push((name.unwrap_or_default(), fs::read_to_string(path)?));
    }
    found.sort();
    Ok(found)
}

#[allow(clippy::print_stderr)]
fn main() -> ExitCode {
    let (transcripts, versions) = match (transcripts(), Cluster::kubectl_versions()) {
        (Ok(transcripts), Ok(versions)) => (transcripts, versions),
        (Err(error), _) => {
            eprintln!("the transcripts cannot be read: {error}");
            return ExitCode::FAILURE;
        }
        (_, Err(error)) => {
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
