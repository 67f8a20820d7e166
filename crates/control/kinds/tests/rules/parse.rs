//! How rows are written: lines of a word and what belongs to it.
//!
//! ```text
//! kind v1 Pod                          begins the rows of a kind; those below are about it
//! base {"metadata": …}                 the object that each row changes; goes on in indented lines
//!
//! defaults of a probe                  a row: its fields after defaulting are told by `gives`
//!   set spec.containers[0].livenessProbe = {"grpc": {"port": 1}}
//!   gives spec.containers[0].livenessProbe.periodSeconds = 10
//! no defaults                          a row: defaulting changes nothing
//! fine without ports                   a row: nothing is wrong
//!   drop spec.ports
//! wrong image                          a row: all errors, in their order
//!   drop spec.containers[0].image
//!   error spec.containers[0].image: Required value
//! update of the image                  a row: `old` and `cut` change both objects, `set` and `drop` the new one
//!   through status                     by a subresource
//!   warns spec.x: …                    a row that is fine, or an update: all that the writer is told
//! ```
//!
//! Values are JSON; what is none is a text. `#` begins a comment.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Defaults,
    NoDefaults,
    Fine,
    Wrong,
    Update,
}

/// A path, and the value that it gets; none takes the field away.
pub type Edit = (String, Option<Value>);

pub struct Row {
    pub line: usize,
    pub name: String,
    pub act: Act,
    pub old: Vec<Edit>,
    pub new: Vec<Edit>,
    pub gives: Vec<(String, Value)>,
    pub errors: Vec<String>,
    pub through: String,
    pub warnings: Vec<String>,
}

pub struct Case {
    /// `apps/v1 Deployment`
    pub kind: String,
    pub base: Value,
    pub rows: Vec<Row>,
}

/// All cases of a file; an error names the line.
pub fn file(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let line_number = at + 1;
        let (word, mut rest) = split(line.trim());
        let base;
        if word == "base" {
            let mut all = rest.to_owned();
            while let Some((_, more)) = lines.next_if(|(_, next)| next.starts_with(' ')) {
                all.push_str(more);
            }
            base = all;
            rest = &base;
        }
        statement(&mut cases, line_number, word, rest).map_err(|why| format!("line {line_number}: {why}"))?;
    }
    Ok(cases)
}

fn split(line: &str) -> (&str, &str) {
    line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim()))
}

fn statement(cases: &mut Vec<Case>, line: usize, word: &str, rest: &str) -> Result<(), String> {
    if word.is_empty() || word.starts_with('#') {
        return Ok(());
    }
    if word == "kind" {
        cases.push(Case { kind: rest.to_owned(), base: Value::Null, rows: Vec::new() });
        return Ok(());
    }
    let case = cases.last_mut().ok_or("no kind yet")?;
    let act = match word {
        "base" => {
            case.base = serde_json::from_str(rest).map_err(|why| format!("the base is no JSON: {why}"))?;
            return Ok(());
        }
        "defaults" => Act::Defaults,
        "no" => Act::NoDefaults,
        "fine" => Act::Fine,
        "wrong" => Act::Wrong,
        "update" => Act::Update,
        _ => return detail(case.rows.last_mut().ok_or("no row yet")?, word, rest),
    };
    let row = Row {
        line,
        name: format!("{word} {rest}"),
        act,
        old: Vec::new(),
        new: Vec::new(),
        gives: Vec::new(),
        errors: Vec::new(),
        through: String::new(),
        warnings: Vec::new(),
    };
    case.rows.push(row);
    Ok(())
}

fn detail(row: &mut Row, word: &str, rest: &str) -> Result<(), String> {
    match word {
        "set" => row.new.push(assignment(rest)?),
        "drop" => row.new.push((rest.to_owned(), None)),
        "old" => row.old.push(assignment(rest)?),
        "cut" => row.old.push((rest.to_owned(), None)),
        "gives" => {
            let (path, value) = assignment(rest)?;
            row.gives.push((path, value.unwrap_or(Value::Null)));
        }
        "lacks" => row.gives.push((rest.to_owned(), Value::Null)),
        "error" => row.errors.push(rest.to_owned()),
        "through" => row.through = rest.to_owned(),
        "warns" => row.warnings.push(rest.to_owned()),
        _ => return Err(format!("unknown word {word:?}")),
    }
    Ok(())
}

fn assignment(text: &str) -> Result<Edit, String> {
    let (path, value) = text.split_once(" = ").ok_or_else(|| format!("{text:?} assigns nothing"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((path.to_owned(), Some(value)))
}
