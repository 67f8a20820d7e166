//! A flow is documented hop by hop in `docs/flows/NAME.md`; each hop has its marker in the code, once.
//!
//! The document numbers its hops as `| 3 |` at the beginning of a table row; the code marks them as
//! `// flow: NAME 3/14`.

use super::Source;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub(super) fn check(root: &Path, sources: &[Source]) -> Result<Vec<String>> {
    let mut documented = BTreeMap::new();
    let folder = root.join("docs/flows");
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        documented.insert(name, hops(&text));
    }
    Ok(compare(&documented, sources))
}

fn hops(text: &str) -> Vec<usize> {
    text.lines().filter_map(|l| l.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect()
}

fn compare(documented: &BTreeMap<String, Vec<usize>>, sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut marked: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for source in sources {
        for (line, text) in source.text.lines().enumerate() {
            let Some(marker) = text.trim_start().strip_prefix("// flow: ") else { continue };
            let place = format!("{}:{}", source.path.display(), line + 1);
            let parsed = marker.split_once(' ').and_then(|(name, hop)| {
                let (number, of) = hop.split_once('/')?;
                Some((name, number.parse::<usize>().ok()?, of.parse::<usize>().ok()?))
            });
            let Some((name, number, of)) = parsed else {
                findings.push(format!("{place}: write `// flow: NAME N/TOTAL`"));
                continue;
            };
            let total = documented.get(name).map_or(0, Vec::len);
            if of != total {
                findings.push(format!("{place}: docs/flows/{name}.md has {total} hops, not {of}"));
            }
            marked.entry(name.to_owned()).or_default().push(number);
        }
    }
    for (name, hops) in documented {
        let mut found = marked.remove(name).unwrap_or_default();
        found.sort_unstable();
        if found != *hops {
            findings.push(format!("docs/flows/{name}.md documents the hops {hops:?}, the code marks {found:?}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_a_wrong_marker_are_found() {
        let documented =
            BTreeMap::from([("pod".to_owned(), hops("| hop | where |\n|---|---|\n| 1 | a |\n| 2 | b |\n"))]);
        let check = |code: &str| compare(&documented, &[Source { path: "x.rs".into(), text: code.into() }]).len();
        let marker = |hop: &str| format!("// {} pod {hop}\n", "flow:");
        assert_eq!(check(&(marker("1/2") + &marker("2/2"))), 0);
        assert_eq!(check(&marker("1/2")), 1);
        assert_eq!(check(&(marker("1/3") + &marker("2/2"))), 1);
        assert_eq!(check(&(marker("1/2") + &marker("2/2") + &marker("two"))), 1);
    }
}
