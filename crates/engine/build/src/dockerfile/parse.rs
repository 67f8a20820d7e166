//! Makes instructions and stages of the lines of a Dockerfile.

use super::instruction::{CommandLine, Copying, HealthCheck, Inline, Instruction, Stage, Step};
use super::lines::{self, chomped, heredoc};
use super::words::Raw;
use super::{Dockerfile, MAX_STAGES};
use pintle_docker::go_format::{parse_duration, quote};

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads a Dockerfile; `name` is what it is called in messages.
///
/// # Errors
/// In Docker's words, with the line where it is known.
pub fn parse(bytes: &[u8], name: &str) -> Result<Dockerfile, String> {
    if bytes.is_empty() {
        return Err(format!("the Dockerfile ({name}) cannot be empty"));
    }
    let lines = lines::read(bytes).map_err(|e| format!("failed to parse {name}: {e}"))?;
    let (mut arguments, mut stages) = (Vec::new(), Vec::<Stage>::new());
    for raw in lines.instructions {
        let at_line = |e| format!("dockerfile parse error on line {}: {e}", raw.line);
        let code = raw.original.trim().to_owned();
        if raw.name.eq_ignore_ascii_case("from") {
            stages.push(stage(&raw, code).map_err(at_line)?);
            if stages.len() > MAX_STAGES {
                return Err(at_line(format!("there are more than {MAX_STAGES} stages")));
            }
            continue;
        }
        let step = Step { instruction: instruction(&raw).map_err(at_line)?, code };
        match stages.last_mut() {
            Some(stage) => stage.steps.push(step),
            None if matches!(step.instruction, Instruction::Arg(_)) => arguments.push(step),
            None => return Err("no build stage in current context".into()),
        }
    }
    Ok(Dockerfile { arguments, stages, escape: lines.escape, warnings: lines.warnings })
}

/// Reads one instruction, such as one that waited behind ONBUILD.
///
/// # Errors
/// When it is not exactly one, or is a wrong one.
pub fn parse_command(text: &str) -> Result<Step, String> {
    let lines = lines::read(text.as_bytes())?;
    let [raw] = lines.instructions.as_slice() else {
        return Err("onbuild trigger should be a single expression".into());
    };
    Ok(Step { instruction: instruction(raw)?, code: raw.original.trim().to_owned() })
}

fn stage(raw: &Raw, code: String) -> Result<Stage, String> {
    let name = match raw.words.as_slice() {
        [_] => String::new(),
        [_, as_word, name] if as_word.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
            if !lower.starts_with(|c: char| c.is_ascii_lowercase()) || !lower.chars().all(plain) {
                let name = quote(name);
                return Err(format!(
                    "invalid name for build stage: {name}, name can't start with a number or contain symbols"
                ));
            }
            lower
        }
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    let flags = Flags::read(raw, &["platform"], &[], &[])?;
    let platform = flags.text("platform");
    Ok(Stage { base: raw.words[0].clone(), name, code, platform, steps: Vec::new() })
}

fn instruction(raw: &Raw) -> Result<Instruction, String> {
    let name = raw.name.to_ascii_uppercase();
    let words = &raw.words;
    let exactly_one = || match words.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(format!("{name} requires exactly one argument")),
    };
    let none = || Flags::read(raw, &[], &[], &[]).map(|_| ());
    let at_least_one = || if words.is_empty() { Err(format!("{name} requires at least one argument")) } else { Ok(()) };
    Ok(match name.as_str() {
        "ENV" => Instruction::Env(none().and_then(|()| pairs(raw, "ENV"))?),
        "LABEL" => Instruction::Label { pairs: none().and_then(|()| pairs(raw, "LABEL"))?, literal: false },
        "MAINTAINER" => Instruction::Maintainer(exactly_one().and_then(|m| none().map(|()| m))?),
        "WORKDIR" => Instruction::WorkDir(exactly_one().and_then(|w| none().map(|()| w))?),
        "USER" => Instruction::User(exactly_one().and_then(|u| none().map(|()| u))?),
        "STOPSIGNAL" => Instruction::StopSignal(exactly_one()?),
        "ADD" => Instruction::Add(copying(raw, "ADD")?),
        "COPY" => Instruction::Copy(copying(raw, "COPY")?),
        "ONBUILD" => at_least_one().and_then(|()| on_build(raw))?,
        "RUN" => run(raw)?,
        "CMD" => Instruction::Cmd(none().map(|()| command_line(raw))?),
        "ENTRYPOINT" => Instruction::Entrypoint(none().map(|()| command_line(raw))?),
        "HEALTHCHECK" => Instruction::HealthCheck(at_least_one().and_then(|()| health_check(raw))?),
        "EXPOSE" => {
            at_least_one().and_then(|()| none())?;
            let mut ports = words.clone();
            ports.sort_unstable();
            Instruction::Expose(ports)
        }
        "VOLUME" => {
            at_least_one().and_then(|()| none())?;
            let volumes: Vec<String> = words.iter().map(|v| v.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            Instruction::Volume(volumes)
        }
        "ARG" => Instruction::Arg(at_least_one().and_then(|()| arguments(words))?),
        "SHELL" => {
            none()?;
            at_least_one()?;
            if !raw.json {
                return Err(format!("SHELL requires the arguments to be in JSON form, not {}", raw.original));
            }
            Instruction::Shell(words.clone())
        }
        _ => return Err(with_suggestion(format!("unknown instruction: {}", raw.name), &raw.name, &NAMES, false)),
    })
}

fn pairs(raw: &Raw, name: &str) -> Result<Vec<(String, String)>, String> {
    if raw.words.is_empty() {
        return Err(format!("{name} requires at least one argument"));
    }
    let pair = |words: &[String]| match words {
        [key, ..] if key.is_empty() => Err(format!("{name} names can not be blank")),
        [key, value, ..] => Ok((key.clone(), value.clone())),
        _ => Err(format!("Bad input to {name}, too many arguments")),
    };
    raw.words.chunks(3).map(pair).collect()
}

fn arguments(words: &[String]) -> Result<Vec<(String, Option<String>)>, String> {
    let argument = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
        None => Ok((word.clone(), None)),
    };
    words.iter().map(argument).collect()
}

fn command_line(raw: &Raw) -> CommandLine {
    CommandLine { words: raw.command_words(&raw.words), shell: !raw.json }
}

/// A command line with documents goes to the shell with them, or, when it is nothing but a document, is its text.
fn run(raw: &Raw) -> Result<Instruction, String> {
    let flags = Flags::read(raw, &["network", "security"], &["device", "mount"], &[])?;
    let mut line = command_line(raw);
    let content = |h: &lines::Heredoc| if h.chomp { chomped(&h.content) } else { h.content.clone() };
    match (raw.heredocs.as_slice(), line.words.first_mut()) {
        ([only], Some(text)) if heredoc(text).is_ok_and(|found| found.is_some()) => *text = content(only),
        (documents, Some(text)) => {
            for document in documents {
                *text = format!("{text}\n{}{}", document.content, document.name);
            }
        }
        _ => {}
    }
    Ok(Instruction::Run { line, flags: flags.used })
}

fn on_build(raw: &Raw) -> Result<Instruction, String> {
    Flags::read(raw, &[], &[], &[])?;
    match raw.words[0].trim().to_uppercase().as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        trigger @ ("MAINTAINER" | "FROM") => return Err(format!("{trigger} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    let mut expression = raw.original.trim_start().get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for document in &raw.heredocs {
        expression.push_str(&format!("\n{}{}", document.content, document.name));
    }
    Ok(Instruction::OnBuild(expression))
}

fn copying(raw: &Raw, name: &str) -> Result<Copying, String> {
    let [sources @ .., destination] = raw.words.as_slice() else { return Err(no_destination(name)) };
    if sources.is_empty() {
        return Err(no_destination(name));
    }
    let flags = if name == "ADD" {
        Flags::read(raw, &["chown", "chmod", "checksum"], &["exclude"], &["link", "keep-git-dir", "unpack"])?
    } else {
        Flags::read(raw, &["chown", "chmod", "from"], &["exclude"], &["link", "parents"])?
    };
    let is_document = |word: &str| heredoc(word).ok().flatten();
    if is_document(destination).is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    let refused = ["exclude", "keep-git-dir", "parents", "unpack"];
    let mut copying = Copying {
        destination: destination.clone(),
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        checksum: flags.text("checksum"),
        link: flags.text("link") == "true",
        refused: refused.into_iter().filter(|name| flags.used.iter().any(|used| used == name)).collect(),
        ..Copying::default()
    };
    for source in sources {
        let Some(word) = is_document(source) else {
            copying.sources.push(source.clone());
            continue;
        };
        let content = raw.heredocs.iter().find(|h| h.name == word.name).map_or("", |h| &h.content);
        let content = if word.chomp { chomped(content) } else { content.to_owned() };
        copying.inline.push(Inline { name: word.name, content, expand: word.expand });
    }
    Ok(copying)
}

fn no_destination(name: &str) -> String {
    format!("{name} requires at least two arguments, but only one was provided. Destination could not be determined")
}

fn health_check(raw: &Raw) -> Result<HealthCheck, String> {
    let kind = raw.words[0].to_uppercase();
    let rest = &raw.words[1..];
    if kind == "NONE" {
        if !rest.is_empty() {
            return Err("HEALTHCHECK NONE takes no arguments".into());
        }
        return Ok(HealthCheck { test: vec![kind], ..HealthCheck::default() });
    }
    let texts = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::read(raw, &texts, &[], &[])?;
    if kind != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind)));
    }
    let command = raw.command_words(rest);
    if command.is_empty() {
        return Err("Missing command after HEALTHCHECK CMD".into());
    }
    let kind = if raw.json { kind } else { "CMD-SHELL".to_owned() };
    let retries = flags.text("retries");
    let invalid = |why| format!("strconv.ParseInt: parsing {}: {why}", quote(&retries));
    let count = match retries.as_str() {
        "" => 0,
        text if text.parse::<i32>().is_err() => {
            let number = text.strip_prefix(['-', '+']).unwrap_or(text);
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            return Err(invalid(if digits { "value out of range" } else { "invalid syntax" }));
        }
        text => text.parse::<i64>().unwrap_or_default(),
    };
    if count < 0 {
        return Err(format!("--retries cannot be negative ({count})"));
    }
    Ok(HealthCheck {
        test: [vec![kind], command].concat(),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: count,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, String> {
    match flags.text(name).as_str() {
        "" => Ok(0),
        text => match parse_duration(text)? {
            0 => Ok(0),
            nanos if nanos < 1_000_000 => Err(format!("Interval {} cannot be less than 1ms", quote(name))),
            nanos => Ok(nanos),
        },
    }
}

/// The flags of an instruction.
struct Flags {
    /// Names, each once, in the order in which they were given.
    used: Vec<String>,
    values: Vec<(String, String)>,
}

impl Flags {
    /// Checks the flags of an instruction that knows those that take a text, once or often, and those that are yes or no.
    fn read(raw: &Raw, texts: &[&str], many: &[&str], switches: &[&str]) -> Result<Self, String> {
        let mut flags = Self { used: Vec::new(), values: Vec::new() };
        for flag in &raw.flags {
            let (written, value) = flag.split_once('=').map_or((flag.as_str(), None), |(n, v)| (n, Some(v)));
            let name = written.strip_prefix("--").ok_or_else(|| format!("arg should start with -- : {flag}"))?;
            let known = |list: &[&str]| list.contains(&name);
            if !known(texts) && !known(many) && !known(switches) {
                let all = [texts, many, switches].concat();
                return Err(with_suggestion(format!("unknown flag: {written}"), name, &all, true));
            }
            if flags.used.iter().any(|used| used == name) && !known(many) {
                return Err(format!("duplicate flag specified: {written}"));
            }
            let value = if known(switches) {
                switch(written, value)?
            } else {
                value.ok_or_else(|| format!("missing a value on flag: {written}"))?.to_owned()
            };
            flags.values.push((name.to_owned(), value));
            if !flags.used.iter().any(|used| used == name) {
                flags.used.push(name.to_owned());
            }
        }
        Ok(flags)
    }

    fn text(&self, name: &str) -> String {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }
}

fn switch(written: &str, value: Option<&str>) -> Result<String, String> {
    match value.map(str::to_lowercase).as_deref() {
        Some("") => Err(format!("missing a value on flag: {written}")),
        None | Some("true") => Ok("true".into()),
        Some("false") => Ok("false".into()),
        Some(_) => Err(format!("expecting boolean value for flag {written}, not: {}", value.unwrap_or_default())),
    }
}

/// Adds what may have been meant, when it is at most two letters away.
fn with_suggestion(message: String, written: &str, options: &[&str], case_counts: bool) -> String {
    let folded = |text: &str| if case_counts { text.to_owned() } else { text.to_lowercase() };
    let wanted = folded(written);
    let nearest = options.iter().map(|o| (distance(&wanted, &folded(o)), o)).min_by_key(|(distance, _)| *distance);
    let Some((1..3, nearest)) = nearest else { return message };
    let nearest = match () {
        () if case_counts => (*nearest).to_owned(),
        () if written == written.to_lowercase() => nearest.to_lowercase(),
        () if written == written.to_uppercase() => nearest.to_uppercase(),
        () => nearest.to_lowercase(),
    };
    format!("{message} (did you mean {nearest}?)")
}

/// Letters to put in, take out or change (Levenshtein); long words are just far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 8 || a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
