//! Splits a Dockerfile into its instructions: directives, comments, continued lines, heredocs.

use super::expand::Lex;
use super::words::{self, Raw};
use super::{MAX_BYTES, MAX_INSTRUCTIONS};

/// The most bytes of one line.
const MAX_LINE_BYTES: usize = 65535;
const NO_VARIABLES: [String; 0] = [];

/// A document that follows its instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Variables in it are to be expanded: its name was not quoted.
    pub expand: bool,
    /// Tabs at the beginning of its lines go.
    pub chomp: bool,
    pub content: String,
}

/// All instructions of a Dockerfile in their order.
#[derive(Clone, Debug)]
pub struct Lines {
    pub instructions: Vec<Raw>,
    pub escape: char,
    pub warnings: Vec<String>,
}

/// Reads the lines of a Dockerfile.
///
/// # Errors
/// In Docker's words, without the name of the file.
pub fn read(bytes: &[u8]) -> Result<Lines, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("the Dockerfile is larger than {MAX_BYTES} bytes"));
    }
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut reader = Reader { lines: text.split_inclusive('\n'), number: 0, directives: Directives::default() };
    let mut lines = Lines { instructions: Vec::new(), escape: '\\', warnings: Vec::new() };
    while let Some(first) = reader.next()? {
        reader.instruction(first, &mut lines)?;
        if lines.instructions.len() > MAX_INSTRUCTIONS {
            return Err(format!("the Dockerfile has more than {MAX_INSTRUCTIONS} instructions"));
        }
    }
    if lines.instructions.is_empty() {
        return Err("file with no instructions".into());
    }
    if !lines.warnings.is_empty() {
        lines.warnings.push("[WARNING]: Empty continuation lines will become errors in a future release.".into());
    }
    lines.escape = reader.directives.escape;
    Ok(lines)
}

struct Reader<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    /// Of the line that was read last, from 1.
    number: usize,
    directives: Directives,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, String> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        self.number += 1;
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}"));
        }
        Ok(Some(line))
    }

    fn instruction(&mut self, first: &str, lines: &mut Lines) -> Result<(), String> {
        let line = self.cleaned(first, true)?;
        let start = self.number;
        let (part, mut continued) = without_continuation(line, self.directives.escape);
        if !continued && part.is_empty() {
            return Ok(());
        }
        let mut text = part.to_owned();
        let mut has_empty = false;
        while continued {
            let Some(next) = self.next()? else { break };
            if is_comment(next) {
                self.directives.take(next)?;
                continue;
            }
            let line = self.cleaned(next, false)?;
            if line.trim_start().is_empty() {
                has_empty = true;
                continue;
            }
            let part;
            (part, continued) = without_continuation(line, self.directives.escape);
            text.push_str(part);
        }
        if has_empty {
            lines.warnings.push(format!("[WARNING]: Empty continuation line found in: {text}"));
        }
        let mut raw = words::read(&text, self.directives.escape)?;
        raw.line = start;
        if raw.may_have_heredocs() && text.contains("<<") {
            for heredoc in heredocs_of(&text)? {
                raw.heredocs.push(self.document(heredoc)?);
            }
        }
        lines.instructions.push(raw);
        Ok(())
    }

    /// The line without its end, and without what is a comment.
    fn cleaned<'b>(&mut self, line: &'b str, at_start: bool) -> Result<&'b str, String> {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if at_start { line.trim_start() } else { line };
        self.directives.take(line)?;
        Ok(if is_comment(line) { "" } else { line })
    }

    fn document(&mut self, mut heredoc: Heredoc) -> Result<Heredoc, String> {
        while let Some(line) = self.next()? {
            let end = line.trim_end_matches(['\r', '\n']);
            let end = if heredoc.chomp { end.trim_start_matches('\t') } else { end };
            if end == heredoc.name {
                return Ok(heredoc);
            }
            heredoc.content.push_str(line);
        }
        Err("unterminated heredoc".into())
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Takes the sign of continuation off a line, when it ends with one that is not escaped itself.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

/// `# escape=…` and its like, which count only before everything else.
struct Directives {
    escape: char,
    done: bool,
    seen: Vec<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', done: false, seen: Vec::new() }
    }
}

impl Directives {
    fn take(&mut self, line: &str) -> Result<(), String> {
        if self.done {
            return Ok(());
        }
        let Some((name, value)) = line.strip_prefix('#').and_then(directive) else {
            self.done = true;
            return Ok(());
        };
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        if name == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => return Err(format!("invalid escape token '{other}' does not match ` or \\")),
            };
        }
        self.seen.push(name);
        Ok(())
    }
}

fn directive(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    (matches!(name.as_str(), "syntax" | "escape" | "check") && !value.is_empty()).then_some((name, value))
}

fn heredocs_of(line: &str) -> Result<Vec<Heredoc>, String> {
    let lex = Lex { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lex::new('\\') };
    // What cannot be split has none.
    let words = lex.words(line, &NO_VARIABLES[..]).unwrap_or_default();
    words.iter().filter_map(|word| heredoc(word).transpose()).collect()
}

/// Reads a word such as `<<EOF` or `3<<-"EOF"`; none when it is something else.
pub fn heredoc(word: &str) -> Result<Option<Heredoc>, String> {
    let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let lex = Lex { skip_unset: true, ..Lex::new('\\') };
    let plain = lex.words(rest, &NO_VARIABLES[..])?;
    let [name] = plain.as_slice() else { return Ok(None) };
    let raw = Lex { raw_quotes: true, ..lex }.words(rest, &NO_VARIABLES[..])?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = raw.first().is_some_and(|raw| quotes(raw) == quotes(name));
    Ok(Some(Heredoc { name: name.clone(), expand, chomp, content: String::new() }))
}

/// Takes the tabs at the beginning of lines away.
pub fn chomped(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
