//! What goes wrong: issues of an expression's text and types, with the place they are at, and errors of evaluation.

use std::fmt;

/// Errors that evaluation ends with. `Display` gives the texts that clients of Kubernetes know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("no such overload")]
    NoSuchOverload,
    /// A function for which no overload takes these types: `_+_(int, string)`.
    #[error("no such overload: {0}")]
    NoOverload(Box<str>),
    #[error("no such key: {0}")]
    NoSuchKey(Box<str>),
    #[error("no such attribute(s): {0}")]
    NoSuchAttribute(Box<str>),
    #[error("index out of bounds: {0}")]
    IndexOutOfBounds(i64),
    #[error("division by zero")]
    DivisionByZero,
    #[error("modulus by zero")]
    ModulusByZero,
    #[error("integer overflow")]
    IntegerOverflow,
    #[error("unsigned integer overflow")]
    UnsignedOverflow,
    #[error("{0}")]
    Other(Box<str>),
    /// One evaluation cost more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// The evaluations that share a budget cost more than they may.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
    #[error("operation interrupted")]
    Interrupted,
}

impl EvalError {
    pub fn other(message: impl Into<String>) -> Self {
        EvalError::Other(message.into().into_boxed_str())
    }

    /// Whether `&&`, `||` and macros must not hide it.
    pub fn is_fatal(&self) -> bool {
        matches!(self, EvalError::CostLimit | EvalError::OutOfBudget | EvalError::Interrupted)
    }
}

/// What is wrong with an expression, at least one issue. `Display` is the text that compilers of CEL print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    pub issues: Vec<Issue>,
    /// How many more there were.
    truncated: usize,
    source: Box<str>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1; -1 where there is no place.
    pub line: i32,
    /// In characters, from 0.
    pub column: i32,
    pub message: String,
}

/// cel-go shows no more than this many.
pub(crate) const SHOWN: usize = 100;
/// Longer lines (in bytes) are not shown.
const LONGEST_SNIPPET: usize = 16384;

impl Issues {
    /// One issue without a place.
    pub(crate) fn nowhere(source: &str, message: impl Into<String>) -> Self {
        Self::new(source, vec![Issue { line: -1, column: -1, message: message.into() }])
    }

    pub(crate) fn new(source: &str, issues: Vec<Issue>) -> Self {
        Self::truncated(source, issues, 0)
    }

    /// The first issues that were found, and how many more there were.
    pub(crate) fn truncated(source: &str, mut issues: Vec<Issue>, more: usize) -> Self {
        let truncated = more + issues.len().saturating_sub(SHOWN);
        issues.truncate(SHOWN);
        issues.sort_by_key(|issue| (issue.line, issue.column));
        Self { issues, truncated, source: source.into() }
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, issue) in self.issues.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write_issue(f, issue, &self.source)?;
        }
        match self.truncated {
            0 => Ok(()),
            more => write!(f, "\n{more} more errors were truncated"),
        }
    }
}

impl std::error::Error for Issues {}

impl Issue {
    /// An issue at a character of `source`.
    pub(crate) fn at(source: &str, at: u32, message: impl Into<String>) -> Self {
        let (mut line, mut column) = (1, 0);
        for c in source.chars().take(at as usize) {
            (line, column) = if c == '\n' { (line + 1, 0) } else { (line, column + 1) };
        }
        Self { line, column, message: message.into() }
    }
}

fn write_issue(f: &mut fmt::Formatter<'_>, issue: &Issue, source: &str) -> fmt::Result {
    write!(f, "ERROR: <input>:{}:{}: {}", issue.line, issue.column + 1, issue.message)?;
    let Some(text) = source.split('\n').nth(issue.line.max(1) as usize - 1).filter(|_| issue.line > 0) else {
        return Ok(());
    };
    if source.is_empty() || text.len() > LONGEST_SNIPPET {
        return Ok(());
    }
    let text = text.replace('\t', " ");
    write!(f, "\n | {text}\n | ")?;
    for c in text.chars().take(issue.column.max(0) as usize) {
        f.write_str(if is_wide(c) { "．" } else { "." })?;
    }
    let marked = text.chars().nth(issue.column.max(0) as usize);
    f.write_str(if marked.is_some_and(is_wide) { "＾" } else { "^" })
}

/// Characters of more than one byte: they take two columns in most terminals.
fn is_wide(c: char) -> bool {
    c.len_utf8() > 1
}
