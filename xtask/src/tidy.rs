//! Checks what no compiler checks: which plane uses which, how files begin, how large things grow, and that the
//! documented flows are the ones in the code.

mod flows;
mod planes;
mod sizes;

use anyhow::{Context, Result, bail};
use std::fs;
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
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", sources.len());
        return Ok(());
    }
    for finding in &findings {
        println!("{finding}");
    }
    bail!("tidy: {} findings", findings.len())
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
        !first.strip_prefix("//! ").is_some_and(|sentence| sentence.len() > 10)
    });
    silent.map(|s| format!("{}:1: does not begin with a `//!` sentence", s.path.display())).collect()
}
