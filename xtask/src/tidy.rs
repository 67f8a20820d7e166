//! Checks what no compiler checks: which plane uses which, how files begin, how large things grow, and that the
//! documented flows are the ones in the code.

mod flows;
mod planes;
mod sizes;

use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A source file of the workspace.
pub(crate) struct Source {
    /// From the root of the workspace.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Runs every check, prints all findings, and fails when there is one.
pub(crate) fn run(root: &Path) -> Result<()> {
    let sources = sources(root)?;
    let mut findings = planes::check(root)?;
    findings.extend(headers(&sources));
    findings.extend(sizes::check(&sources));
    findings.extend(flows::check(root, &sources)?);
    report(&findings, sources.len(), std::io::stdout().lock());
    ensure!(findings.is_empty(), "tidy: {} findings", findings.len());
    Ok(())
}

/// A reader that has seen enough (`| head`) closes the pipe: that is no reason to panic, as `println!` does, and
/// whether there are findings is told by the exit code all the same.
fn report(findings: &[String], files: usize, mut out: impl Write) {
    if findings.is_empty() {
        let _ = writeln!(out, "tidy: {files} files, nothing to say");
    }
    let _ = findings.iter().try_for_each(|finding| writeln!(out, "{finding}"));
}

fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for folder in ["crates", "xtask"] {
        collect(root, &root.join(folder), &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, found)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            found.push(Source { path: path.strip_prefix(root).unwrap_or(&path).to_owned(), text });
        }
    }
    Ok(())
}

/// Line 1 of every file says what the module does.
fn headers(sources: &[Source]) -> Vec<String> {
    let silent = sources.iter().filter(|s| {
        let first = s.text.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_none_or(|sentence| sentence.len() <= 10)
    });
    silent.map(|s| format!("{}:1: does not begin with a `//!` sentence", s.path.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_leaves_early_is_no_panic() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        report(&vec!["x".repeat(100); 1000], 1, &writer);
        report(&[], 1, writer);
    }

    #[test]
    fn a_file_that_does_not_say_what_it_does_is_found() {
        let source = |text: &str| Source { path: "x.rs".into(), text: text.into() };
        let sources = [source("//! Says what it does.\n"), source("use x;\n"), source("//! No.\n"), source("")];
        assert_eq!(headers(&sources).len(), 3);
    }
}
