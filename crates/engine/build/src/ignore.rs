//! Which files of a context an ignore file takes away.
//!
//! Source: Docker's documentation of `.dockerignore`: Go's `filepath.Match` with `**`, exceptions with `!`, the last
//! line that matches counts.

use crate::paths::{BadPattern, clean, matches};
use regex::Regex;

/// Lines that are read, and bytes of each.
const MAX_PATTERNS: usize = 10_000;
const MAX_PATTERN_BYTES: usize = 4096;

/// The patterns of an ignore file.
#[derive(Debug, Default)]
pub struct Ignore(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    exception: bool,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Regex(Regex),
}

impl Ignore {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// For a malformed pattern, and beyond the bounds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
        let mut patterns = Vec::new();
        for line in lines {
            if patterns.len() == MAX_PATTERNS || line.len() > MAX_PATTERN_BYTES {
                return Err(format!(
                    "more than {MAX_PATTERNS} patterns, or one of more than {MAX_PATTERN_BYTES} bytes"
                ));
            }
            let (exception, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            if pattern.is_empty() {
                return Err("illegal exclusion pattern: \"!\"".into());
            }
            let pattern = clean(pattern);
            let pattern = if pattern.len() > 1 { pattern.strip_prefix('/').unwrap_or(&pattern) } else { &pattern };
            matches(pattern, ".").map_err(|e| e.to_string())?;
            patterns.push(Pattern { exception, shape: shape(pattern).map_err(|e| e.to_string())? });
        }
        Ok(Self(patterns))
    }

    /// Whether a path of the context, or a directory above it, is taken away.
    pub fn is_ignored(&self, path: &str) -> bool {
        let path = clean(path);
        if path == "." {
            return false;
        }
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let prefixes: Vec<&str> = ends.map(|end| &path[..end]).collect();
        self.0.iter().fold(false, |ignored, pattern| {
            let counts = pattern.exception == ignored;
            if counts && prefixes.iter().any(|p| pattern.shape.matches(p)) { !pattern.exception } else { ignored }
        })
    }
}

impl Shape {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text.as_str()),
            Self::Suffix(text) => path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// What kind of text a pattern is so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

fn shape(pattern: &str) -> Result<Shape, BadPattern> {
    let mut out = String::from("^");
    let mut kind = Kind::Exact;
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                kind = if chars.peek().is_some() {
                    out.push_str("(.*/)?");
                    Kind::Regex
                } else if kind == Kind::Exact {
                    Kind::Prefix
                } else {
                    out.push_str(".*");
                    Kind::Regex
                };
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                out.push_str("[^/]*");
                kind = Kind::Regex;
            }
            '?' => {
                out.push_str("[^/]");
                kind = Kind::Regex;
            }
            '\\' => match chars.next() {
                Some(next) => {
                    out.push_str(&regex::escape(&next.to_string()));
                    kind = Kind::Regex;
                }
                None => return Err(BadPattern),
            },
            '[' | ']' => {
                out.push(c);
                kind = Kind::Regex;
            }
            '^' | '-' => out.push(c),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
        first = false;
    }
    Ok(match kind {
        Kind::Exact => Shape::Exact(pattern.to_owned()),
        Kind::Prefix => Shape::Prefix(pattern[..pattern.len() - 2].to_owned()),
        Kind::Suffix => Shape::Suffix(pattern[2..].to_owned()),
        Kind::Regex => Shape::Regex(Regex::new(&format!("(?s){out}$")).map_err(|_| BadPattern)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, path: &str, expected: bool) {
        assert_eq!(Ignore::parse(file).unwrap().is_ignored(path), expected, "{path} with {file:?}");
    }

    #[test]
    fn examples_of_the_documentation() {
        let file = "# comment\n*/temp*\n*/*/temp*\ntemp?\n";
        for (path, expected) in [
            ("somedir/temporary.txt", true),
            ("somedir/temp", true),
            ("somedir/subdir/temporary.txt", true),
            ("tempa", true),
            ("temp", false),
            ("temporary", false),
            ("a/b/c/temp", false),
            ("# comment", false),
        ] {
            check(file, path, expected);
        }
        check("*.md\n!README.md", "README.md", false);
        check("*.md\n!README.md", "CHANGES.md", true);
        check("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true);
        check("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false);
        check("**/*.go", "a/b/c.go", true);
        check("**/*.go", "c.go", true);
    }

    #[test]
    fn patterns_match_as_in_moby() {
        for (file, path, expected) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "dir/dir/file", true),
            ("**/file", "dir/file", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            (
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                true,
            ),
            ("/top", "top", true),
            ("/top", "sub/top", false),
            ("docs\n!docs/README.md", "docs/README.md", false),
            ("docs\n!docs/README.md", "docs/other", true),
            ("docs\n!docs", "docs/README.md", false),
            ("a\\*b", "a*b", true),
        ] {
            check(file, path, expected);
        }
        assert!(Ignore::parse("!").is_err());
        assert!(Ignore::parse("a[").is_err());
    }
}
