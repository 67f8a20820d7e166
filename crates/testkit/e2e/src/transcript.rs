//! Runs a transcript, commands with the output that they must have, and tells where reality differs.
//!
//! ```text
//! # a comment
//! @ >=1.29                     the next command only with such versions of kubectl; also <1.29
//! $ kubectl get pods | wc -l   a command for the shell
//! > goes on                    … and its next line (documents after <<, say)
//! 3                            what it must print, line by line
//! | $1                         the same, of a line that looks like one of these
//! ! no such pod                what it must print as an error
//! ? 1                          its exit code, when that is not 0
//! ~ kubectl get pods           a command that is tried again until it does as it must
//! ```
//!
//! Spaces count as one, but for those that a line begins with. `$NS` is the namespace. In what is expected, `...` alone
//! stands for any lines, and these for parts of one: `<age>`, `<time>`, `<uid>`, `<ip>`, `<n>` (a number), `<id>` (of
//! letters, digits and dashes), `<any>` (without spaces), `<text>`.

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use std::fmt::Write;

/// One command with what it must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where it is, for a failure.
    pub line: usize,
    pub command: String,
    /// Whether it may take a while until it does as it must.
    pub eventually: bool,
    /// The versions of kubectl that it is for: from the first up to, but not with, the second.
    versions: (u32, u32),
    stdout: Vec<String>,
    stderr: Vec<String>,
    code: i32,
}

/// What a command did.
pub(crate) struct Done {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Step {
    fn new(line: usize, command: &str, eventually: bool, versions: (u32, u32)) -> Self {
        let (stdout, stderr) = (Vec::new(), Vec::new());
        Self { line, command: command.to_owned(), eventually, versions, stdout, stderr, code: 0 }
    }

    /// Whether it is for this minor version of kubectl.
    pub(crate) fn is_for(&self, minor: u32) -> bool {
        (self.versions.0..self.versions.1).contains(&minor)
    }

    /// What is not as it must be; nothing when all is.
    pub(crate) fn complaint(&self, done: &Done, namespace: &str) -> Result<Option<String>> {
        let good = matches(&self.stdout, &done.stdout, namespace)?
            && matches(&self.stderr, &done.stderr, namespace)?
            && done.code == Some(self.code);
        if good {
            return Ok(None);
        }
        let mut text = format!("line {}: $ {}\n", self.line, self.command.replace('\n', "\n> "));
        let lines = |text: &mut String, prefix: &str, lines: &mut dyn Iterator<Item = &str>| {
            lines.for_each(|line| text.push_str(&format!("{prefix}{line}\n")));
        };
        text.push_str("expected:\n");
        lines(&mut text, "    ", &mut self.stdout.iter().map(String::as_str));
        lines(&mut text, "    ! ", &mut self.stderr.iter().map(String::as_str));
        let _ = writeln!(text, "    ? {}\nbut it was:", self.code);
        lines(&mut text, "    ", &mut done.stdout.lines());
        lines(&mut text, "    ! ", &mut done.stderr.lines());
        let _ = writeln!(text, "    ? {}", done.code.map_or("ended by a signal".to_owned(), |c| c.to_string()));
        Ok(Some(text))
    }
}

/// Reads a transcript.
pub(crate) fn parse(text: &str) -> Result<Vec<Step>> {
    const ALL: (u32, u32) = (0, u32::MAX);
    let (mut steps, mut versions) = (Vec::<Step>::new(), ALL);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let begin = |command, eventually| Step::new(number, command, eventually, versions);
        let first = steps.is_empty();
        let last = steps.last_mut().with_context(|| format!("line {number}: before the first command"));
        match line.split_once(' ').unwrap_or((line, "")) {
            ("#", _) => {}
            ("@", range) => versions = parse_versions(range).with_context(|| format!("line {number}"))?,
            (kind @ ("$" | "~"), command) => {
                let step = begin(command, kind == "~");
                steps.push(step);
                versions = ALL;
            }
            (">", more) => {
                let step = last?;
                step.command.push('\n');
                step.command.push_str(more);
            }
            ("!", text) => last?.stderr.push(text.to_owned()),
            ("?", code) => last?.code = code.parse().with_context(|| format!("line {number}: an exit code"))?,
            ("|", text) => last?.stdout.push(text.to_owned()),
            _ if line.is_empty() && first => {}
            _ => last?.stdout.push(line.to_owned()),
        }
    }
    // An empty line before the next command is for readers.
    for step in &mut steps {
        while step.stdout.last().is_some_and(String::is_empty) {
            step.stdout.pop();
        }
    }
    Ok(steps)
}

fn parse_versions(range: &str) -> Result<(u32, u32)> {
    let minor = |text: &str| text.strip_prefix("1.").and_then(|minor| minor.parse().ok()).context("a version as 1.29");
    match (range.strip_prefix(">="), range.strip_prefix('<')) {
        (Some(from), _) => Ok((minor(from)?, u32::MAX)),
        (_, Some(before)) => Ok((0, minor(before)?)),
        _ => bail!("neither >= nor < of a version: {range:?}"),
    }
}

/// Whether lines are as they must be.
fn matches(expected: &[String], found: &str, namespace: &str) -> Result<bool> {
    let mut pattern = String::from("(?s)^");
    for line in expected {
        match line.as_str() {
            "..." => pattern.push_str("(?:[^\n]*\n)*?"),
            line => {
                pattern.push_str(&line_pattern(&squeezed(&line.replace("$NS", namespace))));
                pattern.push('\n');
            }
        }
    }
    pattern.push('$');
    let mut text: String = found.lines().map(|line| squeezed(line) + "\n").collect();
    // As in expectations, empty lines at the end don't count.
    while text.ends_with("\n\n") || text == "\n" {
        text.pop();
    }
    let regex = Regex::new(&pattern).with_context(|| format!("a pattern of {expected:?}"))?;
    Ok(regex.is_match(&text))
}

/// The line with one space in place of several, but for those that it begins with.
fn squeezed(line: &str) -> String {
    let rest = line.trim_start();
    let words: Vec<&str> = rest.split_whitespace().collect();
    format!("{}{}", &line[..line.len() - rest.len()], words.join(" "))
}

const PARTS: [(&str, &str); 8] = [
    ("<age>", r"(?:[0-9]+[ywdhms])+(?:[0-9]+ms)?|[0-9.]+s"),
    ("<time>", r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z"),
    ("<uid>", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    ("<ip>", r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+"),
    ("<n>", r"[0-9]+"),
    ("<id>", r"[A-Za-z0-9.-]+"),
    ("<any>", r"[^ \n]+"),
    ("<text>", r"[^\n]*"),
];

fn line_pattern(line: &str) -> String {
    let escaped = regex::escape(line);
    PARTS.iter().fold(escaped, |text, (name, pattern)| text.replace(&regex::escape(name), &format!("(?:{pattern})")))
}

/// The minor version that `kubectl version --client -o json` tells.
pub(crate) fn minor_version(told: &str) -> Result<u32> {
    let told: serde_json::Value = serde_json::from_str(told).context("kubectl's version")?;
    let minor = told["clientVersion"]["minor"].as_str().unwrap_or_default();
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    ensure!(!digits.is_empty(), "kubectl tells no minor version: {told}");
    Ok(digits.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(stdout: &str, stderr: &str, code: i32) -> Done {
        Done { stdout: stdout.to_owned(), stderr: stderr.to_owned(), code: Some(code) }
    }

    #[test]
    fn steps_are_read() {
        let text = "# what\n\n@ <1.30\n$ cat <<E\n> two\n> E\ntwo\n\n~ false\n! no\n? 1\n";
        let steps = parse(text).unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].line, steps[0].command.as_str()), (4, "cat <<E\ntwo\nE"));
        assert!(steps[0].is_for(29) && !steps[0].is_for(30) && steps[1].is_for(30));
        assert_eq!(steps[0].stdout, ["two"]);
        assert!(steps[1].eventually && steps[1].code == 1 && steps[1].stderr == ["no"]);
        assert!(parse("lost\n").is_err() && parse("@ 1.2\n").is_err() && parse("$ x\n? y\n").is_err());
    }

    #[test]
    fn outputs_are_compared() {
        for (expected, found, same) in [
            ("NAME   AGE\na <age>", "NAME         AGE\na  1m5s\n", true),
            ("a <age>", "a <unknown>", false),
            ("...\nb", "a\nb\n", true),
            ("a\n...", "a\n", true),
            ("a\n...\nc", "a\nb\nd\n", false),
            ("  a", " a", false),
            ("configmap/$NS-x", "configmap/space-0-x", true),
            ("web-<id> <ip> <none>", "web-5d4-x 10.0.0.1 <none>", true),
            ("a.b", "axb", false),
            ("", "", true),
            ("", "a", false),
        ] {
            let lines: Vec<String> = expected.lines().map(str::to_owned).collect();
            assert_eq!(matches(&lines, found, "space-0").unwrap(), same, "{expected:?} {found:?}");
        }
    }

    #[test]
    fn every_difference_is_told() {
        let step = &parse("$ x\nout\n! err\n? 2\n").unwrap()[0];
        assert_eq!(step.complaint(&done("out\n", "err\n", 2), "").unwrap(), None);
        for bad in [done("", "err", 2), done("out", "", 2), done("out", "err", 0)] {
            assert!(step.complaint(&bad, "").unwrap().unwrap().contains("line 1: $ x"));
        }
    }
}
