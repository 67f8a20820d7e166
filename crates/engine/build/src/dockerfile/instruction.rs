//! The instructions of a Dockerfile, and how variables expand in them.

use super::expand::{Lex, Variables};

/// A stage, from its `FROM` to the next.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What it is built on, not expanded yet.
    pub base: String,
    /// Lower case; empty without `AS`.
    pub name: String,
    /// The text of its `FROM`.
    pub code: String,
    /// Not expanded yet.
    pub platform: String,
    pub steps: Vec<Step>,
}

/// An instruction with its text.
#[derive(Clone, Debug)]
pub struct Step {
    pub code: String,
    pub instruction: Instruction,
}

/// A command line, as CMD, ENTRYPOINT and RUN have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    pub words: Vec<String>,
    /// It is one for the shell.
    pub shell: bool,
}

/// A file whose content stands in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inline {
    pub name: String,
    pub content: String,
    pub expand: bool,
}

/// What ADD and COPY copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copying {
    pub sources: Vec<String>,
    pub inline: Vec<Inline>,
    pub destination: String,
    pub from: String,
    pub chown: String,
    pub chmod: String,
    pub checksum: String,
    pub link: bool,
    /// Flags that only the newer builder has, and that change what is copied.
    pub refused: Vec<&'static str>,
}

/// A health check; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthCheck {
    pub test: Vec<String>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    Add(Copying),
    /// Names, and values where they have any.
    Arg(Vec<(String, Option<String>)>),
    Cmd(CommandLine),
    Copy(Copying),
    Entrypoint(CommandLine),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    HealthCheck(HealthCheck),
    Label {
        pairs: Vec<(String, String)>,
        /// It was given beside the Dockerfile, so nothing in it expands.
        literal: bool,
    },
    Maintainer(String),
    OnBuild(String),
    Run {
        line: CommandLine,
        /// Names of the flags that it has.
        flags: Vec<String>,
    },
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    WorkDir(String),
}

impl Instruction {
    /// Expands variables where the instruction has them expanded. EXPOSE expands by itself, to several words.
    ///
    /// # Errors
    /// Where a word is not closed, or asks for what is not set.
    pub fn expand(&mut self, lex: &Lex, variables: &(impl Variables + ?Sized)) -> Result<(), String> {
        let word = |text: &mut String| -> Result<(), String> {
            *text = lex.word(text, variables)?;
            Ok(())
        };
        match self {
            Self::Env(pairs) | Self::Label { pairs, literal: false } => {
                for (key, value) in pairs {
                    word(key)?;
                    word(value)?;
                }
            }
            Self::Arg(arguments) => {
                for (key, value) in arguments {
                    word(key)?;
                    value.as_mut().map_or(Ok(()), word)?;
                }
            }
            Self::Add(copying) | Self::Copy(copying) => {
                word(&mut copying.chown)?;
                word(&mut copying.chmod)?;
                word(&mut copying.checksum)?;
                copying.sources.iter_mut().try_for_each(word)?;
                word(&mut copying.destination)?;
                let raw = Lex { raw_quotes: true, raw_escapes: true, ..*lex };
                for inline in copying.inline.iter_mut().filter(|i| i.expand) {
                    inline.content = expanded_document(&raw, &inline.content, variables)?;
                }
            }
            Self::Volume(volumes) => volumes.iter_mut().try_for_each(word)?,
            Self::WorkDir(text) | Self::User(text) | Self::StopSignal(text) => word(text)?,
            Self::Label { literal: true, .. }
            | Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Expose(_)
            | Self::HealthCheck(_)
            | Self::Maintainer(_)
            | Self::OnBuild(_)
            | Self::Run { .. }
            | Self::Shell(_) => {}
        }
        Ok(())
    }
}

/// Expands a document line by line; quotes mean nothing in it.
fn expanded_document(lex: &Lex, content: &str, variables: &(impl Variables + ?Sized)) -> Result<String, String> {
    // A quote is hidden from the words by a character that no text has.
    const SINGLE: char = '\u{f0000}';
    const DOUBLE: char = '\u{f0001}';
    let hidden: String = content
        .chars()
        .map(|c| match c {
            '\'' => SINGLE,
            '"' => DOUBLE,
            c => c,
        })
        .collect();
    let expanded = lex.word(&hidden, variables)?;
    Ok(expanded
        .chars()
        .map(|c| match c {
            SINGLE => '\'',
            DOUBLE => '"',
            c => c,
        })
        .collect())
}
