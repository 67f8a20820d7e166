//! Splits one instruction into its name, its flags and its words.

use super::lines::Heredoc;
use serde_json::Value;

/// An instruction whose words are not understood yet.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    pub name: String,
    /// `--name=value`, without quotes.
    pub flags: Vec<String>,
    pub words: Vec<String>,
    /// The words came as a JSON array.
    pub json: bool,
    /// The whole line, continued lines joined.
    pub original: String,
    pub heredocs: Vec<Heredoc>,
    /// Where it begins, from 1.
    pub line: usize,
    /// What is behind ONBUILD.
    inner: Option<(String, bool)>,
}

impl Raw {
    pub fn may_have_heredocs(&self) -> bool {
        let (name, json) = match &self.inner {
            Some((name, json)) => (name.as_str(), *json),
            None => (self.name.as_str(), self.json),
        };
        !json && ["add", "copy", "run"].iter().any(|able| name.eq_ignore_ascii_case(able))
    }
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at the first spaces.
fn split_once(text: &str) -> (&str, Option<&str>) {
    match text.find(is_space) {
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(is_space))),
        None => (text, None),
    }
}

/// Reads one line.
///
/// # Errors
/// What Docker says of words that are wrong by themselves.
pub fn read(line: &str, escape: char) -> Result<Raw, String> {
    let (name, rest) = split_once(line.trim());
    let (flags, rest) = rest.map_or((Vec::new(), ""), |rest| flags_of(rest, escape));
    let rest = rest.trim();
    let mut raw = Raw { name: name.to_owned(), flags, original: line.to_owned(), ..Raw::default() };
    match name.to_ascii_lowercase().as_str() {
        "add" | "copy" | "volume" => match json(rest)? {
            Some(words) => (raw.words, raw.json) = (words, true),
            None => raw.words = spaced(rest),
        },
        "cmd" | "entrypoint" | "run" | "shell" => raw.maybe_json(rest)?,
        "env" => raw.words = pairs(rest, "ENV", escape)?,
        "label" => raw.words = pairs(rest, "LABEL", escape)?,
        "expose" | "from" => raw.words = spaced(rest),
        "arg" => raw.words = quoted_words(rest, escape),
        "maintainer" | "stopsignal" | "user" | "workdir" => raw.words = whole(rest),
        "healthcheck" => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            if end > 0 {
                raw.maybe_json(rest[end..].trim_start())?;
                raw.words.insert(0, rest[..end].to_owned());
            }
        }
        "onbuild" if !rest.is_empty() => {
            let inner = if deep(rest) { Raw::default() } else { read(rest, escape)? };
            raw.words = vec![split_once(rest).0.to_owned()];
            raw.inner = Some((inner.name, inner.json));
        }
        _ => {}
    }
    Ok(raw)
}

/// ONBUILD of an ONBUILD is refused later: it need not be read.
fn deep(rest: &str) -> bool {
    split_once(rest).0.eq_ignore_ascii_case("onbuild")
}

fn whole(rest: &str) -> Vec<String> {
    if rest.is_empty() { Vec::new() } else { vec![rest.to_owned()] }
}

impl Raw {
    fn maybe_json(&mut self, rest: &str) -> Result<(), String> {
        match json(rest)? {
            Some(words) => (self.words, self.json) = (words, true),
            None => self.words = whole(rest),
        }
        Ok(())
    }

    /// The words of a command line: those of the array, or all as one.
    pub fn command_words(&self, words: &[String]) -> Vec<String> {
        if self.json || words.is_empty() { words.to_vec() } else { vec![words.join(" ")] }
    }
}

/// The strings of a JSON array; none when it is something else.
fn json(rest: &str) -> Result<Option<Vec<String>>, String> {
    if !rest.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(rest) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

fn spaced(rest: &str) -> Vec<String> {
    rest.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Name, value and `=` of each pair; the third is empty in the old form with a space.
fn pairs(rest: &str, name: &str, escape: char) -> Result<Vec<String>, String> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        return match split_once(rest) {
            (key, Some(value)) => Ok(vec![key.to_owned(), value.to_owned(), String::new()]),
            _ => Err(format!("{name} must have two arguments")),
        };
    }
    let mut out = Vec::with_capacity(3 * words.len());
    for word in &words {
        let Some((key, value)) = word.split_once('=') else {
            let word = pintle_docker::go_format::quote(word);
            return Err(format!("Syntax error - can't find = in {word}. Must be of the form: name=value"));
        };
        out.extend([key.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(out)
}

/// Words at spaces that are neither quoted nor escaped; quotes and escapes stay.
fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote, mut blank) = (Vec::new(), String::new(), None, false);
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if blank || !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            blank = false;
            continue;
        }
        match quote {
            None if matches!(c, '\'' | '"') => (quote, blank) = (Some(c), true),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // Nothing is left to escape at the end.
            let Some(escaped) = chars.next() else { break };
            word.push(c);
            word.push(escaped);
            continue;
        }
        word.push(c);
    }
    if blank || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The flags that an instruction begins with, and what follows them.
fn flags_of(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (flag, quoted, after) = flag_word(rest, escape);
        rest = after;
        if flag == "--" {
            return (flags, rest);
        }
        if quoted || !flag.is_empty() {
            flags.push(flag);
        }
    }
}

fn flag_word(line: &str, escape: char) -> (String, bool, &str) {
    let (mut word, mut quote, mut quoted) = (String::new(), None, false);
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, quoted, &line[at..]),
            None if matches!(c, '\'' | '"') => (quote, quoted) = (Some(c), true),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (word, quoted, "")
}
