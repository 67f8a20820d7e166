//! Expands variables and takes quotes away, as the words of a Dockerfile have it.
//!
//! Source: Dockerfile reference, "Environment replacement"; POSIX shell, 2.6.2, for the modifiers.

use regex::Regex;

/// How deep substitutions may stand in each other.
const MAX_DEPTH: usize = 64;
/// The longest result, in bytes.
const MAX_RESULT: usize = 1 << 20;

/// The variables that a word may name.
pub trait Variables {
    fn get(&self, name: &str) -> Option<&str>;
}

/// Of a repeated name, the last counts.
impl Variables for [String] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find_map(|v| match v.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (v == name).then_some(""),
        })
    }
}

/// What is done beside expanding.
#[derive(Clone, Copy, Debug)]
pub struct Lex {
    /// Takes the meaning from the next character: `\` or a backtick.
    pub escape: char,
    pub raw_quotes: bool,
    pub raw_escapes: bool,
    /// Variables that are not set stay as they are written.
    pub skip_unset: bool,
}

impl Lex {
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_unset: false }
    }

    /// One word: spaces stay.
    ///
    /// # Errors
    /// `failed to process "…": …` for what is not closed or not supported.
    pub fn word(&self, source: &str, variables: &(impl Variables + ?Sized)) -> Result<String, String> {
        Ok(self.process(source, variables)?.0)
    }

    /// The words that a text has after its variables are expanded; spaces in quotes separate none.
    ///
    /// # Errors
    /// As [`Lex::word`].
    pub fn words(&self, source: &str, variables: &(impl Variables + ?Sized)) -> Result<Vec<String>, String> {
        Ok(self.process(source, variables)?.1)
    }

    fn process(&self, source: &str, variables: &(impl Variables + ?Sized)) -> Result<(String, Vec<String>), String> {
        let lookup = |name: &str| variables.get(name).map(str::to_owned);
        let mut reader =
            Reader { lex: *self, chars: source.chars().collect(), at: 0, depth: 0, lookup: &lookup, size: 0 };
        let raw = self.raw_escapes;
        reader
            .until(None, raw)
            .map_err(|e| format!("failed to process {}: {e}", pintle_docker::go_format::quote(source)))
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Reader<'a> {
    lex: Lex,
    chars: Vec<char>,
    at: usize,
    depth: usize,
    /// Of what variables gave.
    size: usize,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

type Expanded = Result<String, String>;

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn get(&mut self, name: &str) -> Result<Option<String>, String> {
        let value = (self.lookup)(name);
        self.size += value.as_ref().map_or(0, String::len);
        if self.size > MAX_RESULT {
            return Err(format!("the variables expand to more than {MAX_RESULT} bytes"));
        }
        Ok(value)
    }

    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), String> {
        let before = std::mem::replace(&mut self.lex.raw_escapes, raw_escapes);
        self.depth += 1;
        let outcome = if self.depth > MAX_DEPTH {
            Err(format!("more than {MAX_DEPTH} substitutions in each other"))
        } else {
            self.read_until(stop)
        };
        self.depth -= 1;
        self.lex.raw_escapes = before;
        outcome
    }

    fn read_until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let (mut result, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.at += 1;
                return Ok((result, words.finish()));
            }
            let special = match c {
                '$' => Some(self.dollar()?),
                '<' => Some(self.possible_heredoc()),
                '\'' => Some(self.single_quoted()?),
                '"' => Some(self.double_quoted()?),
                _ => None,
            };
            if let Some(text) = special {
                result.push_str(&text);
                if c == '$' {
                    text.chars().for_each(|c| words.add(c));
                } else {
                    words.current.push_str(&text);
                }
                continue;
            }
            self.at += 1;
            if c != self.lex.escape {
                words.add(c);
                result.push(c);
                continue;
            }
            if self.lex.raw_escapes {
                words.current.push(c);
                result.push(c);
            }
            let Some(escaped) = self.next() else { break };
            words.current.push(escaped);
            result.push(escaped);
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((result, words.finish())),
        }
    }

    fn single_quoted(&mut self) -> Expanded {
        self.at += 1;
        let mut result = String::new();
        if self.lex.raw_quotes {
            result.push('\'');
        }
        loop {
            match self.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote".into()),
                Some('\'') => {
                    if self.lex.raw_quotes {
                        result.push('\'');
                    }
                    return Ok(result);
                }
                Some(c) => result.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Expanded {
        self.at += 1;
        let mut result = String::new();
        if self.lex.raw_quotes {
            result.push('"');
        }
        loop {
            let Some(mut c) = self.peek() else {
                return Err("unexpected end of statement while looking for matching double-quote".into());
            };
            if c == '$' {
                result.push_str(&self.dollar()?);
                continue;
            }
            self.at += 1;
            if c == '"' {
                if self.lex.raw_quotes {
                    result.push('"');
                }
                return Ok(result);
            }
            if c == self.lex.escape {
                if self.lex.raw_escapes {
                    result.push(c);
                }
                match self.peek() {
                    None => continue,
                    Some(next) if matches!(next, '"' | '$') || next == self.lex.escape => {
                        c = next;
                        self.at += 1;
                    }
                    Some(_) => {}
                }
            }
            result.push(c);
        }
    }

    fn possible_heredoc(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".into();
        }
        self.at += 1;
        let mut result = String::from("<<");
        while let Some(c) = self.peek().filter(|c| matches!(c, '\t' | '\r' | ' ')) {
            result.push(c);
            self.at += 1;
        }
        result
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(c);
                    self.at += 1;
                }
                return name;
            }
            Some(c) if matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.at += 1;
                return c.to_string();
            }
            _ => {}
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn dollar(&mut self) -> Expanded {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.get(&name)? {
                None if self.lex.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.get(&name)? {
                None if self.lex.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let c = self.next();
                self.modified(&name, c, true)
            }
            Some('/') => self.replaced(&name),
            c => self.modified(&name, c, false),
        }
    }

    /// `${name:-word}` and its like; `colon` says that an empty variable counts as unset.
    fn modified(&mut self, name: &str, modifier: Option<char>, colon: bool) -> Expanded {
        let shown = modifier.unwrap_or(char::REPLACEMENT_CHARACTER);
        let written: String = colon.then_some(':').into_iter().chain([shown]).collect();
        let unsupported = || Err(format!("unsupported modifier ({written}) in substitution"));
        let pattern = matches!(modifier, Some('#' | '%'));
        let Some(modifier) = modifier.filter(|c| matches!(c, '+' | '-' | '?') || (pattern && !colon)) else {
            // What follows is read first, as its own errors count more.
            return if colon && !pattern { self.closed().and_then(|_| unsupported()) } else { unsupported() };
        };
        let word = match self.until(Some('}'), pattern) {
            Ok((word, _)) => word,
            Err(_) if self.peek().is_none() => return Err("syntax error: missing '}'".into()),
            Err(e) => return Err(e),
        };
        let value = self.get(name)?;
        if self.lex.skip_unset && value.is_none() {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let missing = value.as_ref().is_none_or(|v| colon && v.is_empty());
        match modifier {
            '-' => Ok(if missing { word } else { value.unwrap_or_default() }),
            '+' => Ok(if missing { String::new() } else { word }),
            '?' if missing => {
                let state = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                Err(format!("{name}: {}", if word.is_empty() { state } else { &word }))
            }
            '?' => Ok(value.unwrap_or_default()),
            _ => {
                let longest = word.starts_with(modifier);
                let pattern = if longest { &word[1..] } else { &word };
                let value = value.unwrap_or_default();
                if modifier == '#' {
                    without_prefix(pattern, &value, longest)
                } else {
                    without_suffix(pattern, &value, longest)
                }
            }
        }
    }

    fn closed(&mut self) -> Result<(), String> {
        match self.until(Some('}'), false) {
            Err(_) if self.peek().is_none() => Err("syntax error: missing '}'".into()),
            other => other.map(|_| ()),
        }
    }

    /// `${name/pattern/replacement}`, or `//` for all that match.
    fn replaced(&mut self, name: &str) -> Expanded {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let ended = |at_end: bool, missing: &str, e: String| if at_end { missing.to_owned() } else { e };
        let pattern = self.until(Some('/'), true);
        let (pattern, _) = pattern.map_err(|e| ended(self.peek().is_none(), "syntax error: missing '/' in ${}", e))?;
        let replacement = self.until(Some('}'), true);
        let (replacement, _) = replacement.map_err(|e| ended(self.peek().is_none(), "syntax error: missing '}'", e))?;
        let Some(value) = self.get(name)? else {
            let unset =
                if self.lex.skip_unset { format!("${{{name}/{pattern}/{replacement}}}") } else { String::new() };
            return Ok(unset);
        };
        let regex = shell_pattern(&pattern, true, false)?;
        let limit = usize::from(!all);
        let result = regex.replacen(&value, limit, regex::NoExpand(&replacement)).into_owned();
        self.size += result.len();
        if self.size > MAX_RESULT {
            Err(format!("the variables expand to more than {MAX_RESULT} bytes"))
        } else {
            Ok(result)
        }
    }
}

/// `?` is any character, `*` the shortest or longest text.
fn shell_pattern(pattern: &str, longest: bool, anchored: bool) -> Result<Regex, String> {
    let invalid = |why: String| format!("invalid pattern ({pattern}) in substitution: {why}");
    let mut out = String::from(if anchored { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if longest { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            '\\' => match chars.peek().copied() {
                // The escape is for the substitution's own sake.
                Some('}' | '/') => {}
                Some(next @ ('*' | '?' | '\\')) => {
                    out.push('\\');
                    out.push(next);
                    chars.next();
                }
                other => return Err(invalid(format!("invalid escape '\\{}'", other.unwrap_or('\u{fffd}')))),
            },
            '[' | ']' | '{' | '}' | '.' | '+' | '(' | ')' | '|' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            other => out.push_str(&regex::escape(&other.to_string())),
        }
    }
    Regex::new(&out).map_err(|e| invalid(e.to_string()))
}

fn without_prefix(pattern: &str, value: &str, longest: bool) -> Expanded {
    let regex = shell_pattern(pattern, longest, true)?;
    Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
}

/// The shortest match at the end is the shortest at the beginning of what is turned around.
fn without_suffix(pattern: &str, value: &str, longest: bool) -> Expanded {
    let mut turned: Vec<String> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let escaped = (c == '\\').then(|| chars.next()).flatten();
        turned.push([Some(c), escaped].into_iter().flatten().collect());
    }
    turned.reverse();
    let backwards: String = value.chars().rev().collect();
    let rest = without_prefix(&turned.concat(), &backwards, longest)?;
    Ok(rest.chars().rev().collect())
}

#[cfg(test)]
mod tests;
