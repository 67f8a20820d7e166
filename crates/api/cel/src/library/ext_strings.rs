//! Texts as cel-go extends them (version 2): `charAt`, `indexOf`, `join`, `replace`, `split`, `format` and others.

use super::argument::*;
use super::format_text;
use crate::cost::STRING_TRAVERSAL_FACTOR;
use crate::{
    CallEstimate, CallFn, CostEstimate, EstimateArg, EvalError, Function, Library, Overload, SizeEstimate, Type, Value,
};

fn out_of_range(at: i64) -> EvalError {
    failed(format!("index out of range: {at}"))
}

fn count(text: &str) -> i64 {
    text.chars().count() as i64
}

/// The byte at which a character begins; the end of the text counts as one.
fn place(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    text.char_indices().map(|(byte, _)| byte).chain(std::iter::once(text.len())).nth(at)
}

fn char_at<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (text, at) = (text(arguments, 0)?, int(arguments, 1)?);
    let start = place(text, at).ok_or_else(|| out_of_range(at))?;
    Ok(text[start..].chars().next().map(String::from).unwrap_or_default().into())
}

fn index_of(text: &str, part: &str, from: i64) -> Result<i64, EvalError> {
    if from < 0 {
        return Err(out_of_range(from));
    }
    if part.is_empty() {
        return Ok(from.min(count(text)));
    }
    let Some(start) = place(text, from) else { return Ok(-1) };
    Ok(text[start..].find(part).map_or(-1, |at| from + count(&text[start..start + at])))
}

fn last_index_of(text: &str, part: &str, from: Option<i64>) -> Result<i64, EvalError> {
    let length = count(text);
    let from = match from {
        None if part.is_empty() => return Ok(length),
        None => length - 1,
        Some(from) if from < 0 => return Err(out_of_range(from)),
        Some(from) if part.is_empty() => return Ok(from.min(length)),
        Some(from) if from >= length => return Ok(-1),
        Some(from) => from,
    };
    // The part may begin at `from` at the latest.
    let end = place(text, from).map_or(text.len(), |start| (start + part.len()).min(text.len()));
    let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
    let found = text[..end].rfind(part).map(|at| count(&text[..at])).filter(|at| *at <= from);
    Ok(found.unwrap_or(-1))
}

fn substring<'a>(text: &str, start: i64, end: i64) -> Result<Value<'a>, EvalError> {
    if start > end {
        return Err(failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let first = place(text, start).ok_or_else(|| out_of_range(start))?;
    let last = place(text, end).ok_or_else(|| out_of_range(end))?;
    Ok(text[first..last].to_owned().into())
}

fn replace(text: &str, old: &str, new: &str, limit: i64) -> String {
    match usize::try_from(limit) {
        Ok(limit) => text.replacen(old, new, limit),
        Err(_) => text.replace(old, new),
    }
}

/// Go's `SplitN`: no limit below zero, no parts for zero; an empty separator parts the characters.
fn split<'a>(text: &str, separator: &str, limit: i64) -> Value<'a> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return texts([]);
    }
    if !separator.is_empty() {
        return texts(text.splitn(limit, separator).map(str::to_owned));
    }
    let mut parts: Vec<String> = text.chars().take(limit - 1).map(String::from).collect();
    let rest: String = text.chars().skip(limit - 1).collect();
    if !rest.is_empty() {
        parts.push(rest);
    }
    texts(parts)
}

fn join<'a>(arguments: &[Value<'a>], separator: &str) -> Result<Value<'a>, EvalError> {
    let mut joined = String::new();
    for (i, item) in list(arguments, 0)?.iter().enumerate() {
        if i > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item.as_str().ok_or_else(|| failed(format!("join: invalid input: {item:?}")))?);
    }
    Ok(joined.into())
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn estimate_replace(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let size = |at: usize| arguments.get(at).map_or(SizeEstimate::UNKNOWN, |argument| argument.size);
    let (text, old, new) = (size(0), size(1), size(2));
    let share = |size: u64, by: u64| (size as f64 / by as f64).ceil() as u64;
    // How often at most, and what is left of the text: an empty old text is found around every character.
    let (most, kept_most) = match old.min {
        0 => (text.max.saturating_add(1), text.max),
        least if new.max <= least => (0, text.max),
        least => (share(text.max, least), 0),
    };
    let (fewest, kept_least) = match old.max {
        0 => (text.min.saturating_add(1), text.min),
        longest if longest <= new.min => (0, text.min),
        longest => (share(text.min, longest), 0),
    };
    let result = SizeEstimate { min: fewest, max: most }.times(new);
    let result = result.plus(SizeEstimate { min: kept_least, max: kept_most });
    sized(text.cost(2.0 * STRING_TRAVERSAL_FACTOR), result)
}

/// Two quotation marks are added, and each character may be escaped.
fn estimate_quote(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let size = first_size(arguments);
    let result = SizeEstimate { min: size.min.saturating_add(2), max: size.max.saturating_mul(2).saturating_add(2) };
    sized(size.cost(STRING_TRAVERSAL_FACTOR), result)
}

fn estimate_split(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let size = first_size(arguments);
    let limit = arguments.get(2).and_then(|limit| limit.literal_int);
    let most = limit.map_or(size.max, |limit| limit as u64);
    sized(size.cost(2.0 * STRING_TRAVERSAL_FACTOR), SizeEstimate { min: 0, max: most })
}

fn estimate_join(arguments: &[EstimateArg<'_>]) -> CallEstimate {
    let Some(list) = arguments.first() else { return estimate(CostEstimate::ONE) };
    let mut size = match list.value {
        Type::List(_) => list.size.times(list.element_size),
        _ => SizeEstimate::fixed(0),
    };
    if let Some(separator) = arguments.get(1) {
        let gaps = SizeEstimate { min: list.size.min.saturating_sub(1), max: list.size.max.saturating_sub(1) };
        size = size.plus(separator.size.times(gaps));
    }
    sized(size.cost(STRING_TRAVERSAL_FACTOR), size)
}

/// The costs of a function, of those that many here have.
#[derive(Clone, Copy)]
enum Cost {
    One,
    Traversed,
    Searched,
    Replaced,
    Split,
}

fn with_cost(cost: Cost, overload: Overload) -> Overload {
    match cost {
        Cost::One => overload,
        Cost::Traversed => overload.cost(first_traversed).estimate(estimate_traversed_sized),
        Cost::Searched => overload.cost(super::lists::cost).estimate(super::lists::estimate_elements),
        Cost::Replaced => overload.cost(first_traversed_twice).estimate(estimate_replace),
        Cost::Split => overload.cost(first_traversed_twice).estimate(estimate_split),
    }
}

/// A function on texts: its arguments after the text, by overload.
fn function(name: &str, cost: Cost, result: Type, overloads: &[(&'static str, &[Type], CallFn)]) -> Function {
    let overloads: Vec<Overload> = overloads
        .iter()
        .map(|(id, more, call)| {
            let arguments: Vec<Type> = std::iter::once(Type::String).chain(more.iter().cloned()).collect();
            with_cost(cost, Overload::member(id, arguments, result.clone(), *call))
        })
        .collect();
    Function::new(name, overloads)
}

pub(super) fn library() -> Library {
    let mut functions = searching();
    functions.extend(parting());
    functions.extend(whole());
    Library { functions, ..Library::default() }
}

fn searching() -> Vec<Function> {
    use Type::{Int, String as Str};
    vec![
        function("charAt", Cost::One, Str, &[("string_char_at_int", &[Int], |_, a| char_at(a))]),
        function(
            "indexOf",
            Cost::Searched,
            Int,
            &[
                ("string_index_of_string", &[Str], |_, a| index_of(text(a, 0)?, text(a, 1)?, 0).map(Value::Int)),
                ("string_index_of_string_int", &[Str, Int], |_, a| {
                    index_of(text(a, 0)?, text(a, 1)?, int(a, 2)?).map(Value::Int)
                }),
            ],
        ),
        function(
            "lastIndexOf",
            Cost::Searched,
            Int,
            &[
                ("string_last_index_of_string", &[Str], |_, a| {
                    last_index_of(text(a, 0)?, text(a, 1)?, None).map(Value::Int)
                }),
                ("string_last_index_of_string_int", &[Str, Int], |_, a| {
                    last_index_of(text(a, 0)?, text(a, 1)?, Some(int(a, 2)?)).map(Value::Int)
                }),
            ],
        ),
    ]
}

fn parting() -> Vec<Function> {
    use Type::{Int, String as Str};
    vec![
        function(
            "replace",
            Cost::Replaced,
            Str,
            &[
                ("string_replace_string_string", &[Str, Str], |_, a| {
                    Ok(replace(text(a, 0)?, text(a, 1)?, text(a, 2)?, -1).into())
                }),
                ("string_replace_string_string_int", &[Str, Str, Int], |_, a| {
                    Ok(replace(text(a, 0)?, text(a, 1)?, text(a, 2)?, int(a, 3)?).into())
                }),
            ],
        ),
        function(
            "split",
            Cost::Split,
            Type::list(Str),
            &[
                ("string_split_string", &[Str], |_, a| Ok(split(text(a, 0)?, text(a, 1)?, -1))),
                ("string_split_string_int", &[Str, Int], |_, a| Ok(split(text(a, 0)?, text(a, 1)?, int(a, 2)?))),
            ],
        ),
        function(
            "substring",
            Cost::Traversed,
            Str,
            &[
                ("string_substring_int", &[Int], |_, a| {
                    let (text, start) = (text(a, 0)?, int(a, 1)?);
                    let first = place(text, start).ok_or_else(|| out_of_range(start))?;
                    Ok(text[first..].to_owned().into())
                }),
                ("string_substring_int_int", &[Int, Int], |_, a| substring(text(a, 0)?, int(a, 1)?, int(a, 2)?)),
            ],
        ),
        joining(),
    ]
}

fn joining() -> Function {
    use Type::String as Str;
    let costing = |overload: Overload| {
        let cost =
            |_: &[Value<'_>], result: &Value<'_>| crate::cost::scale(result.size(), 2.0 * STRING_TRAVERSAL_FACTOR);
        overload.cost(cost).estimate(estimate_join)
    };
    Function::new(
        "join",
        [
            costing(Overload::member("list_join", [Type::list(Str)], Str, |_, a| join(a, ""))),
            costing(Overload::member("list_join_string", [Type::list(Str), Str], Str, |_, a| join(a, text(a, 1)?))),
        ],
    )
}

fn whole() -> Vec<Function> {
    use Type::String as Str;
    let quoted: CallFn = |_, a| Ok(quote(text(a, 0)?).into());
    let formatted: CallFn = |_, a| format_text::format(text(a, 0)?, list(a, 1)?).map(Value::from);
    vec![
        function(
            "lowerAscii",
            Cost::Traversed,
            Str,
            &[("string_lower_ascii", &[], |_, a| Ok(text(a, 0)?.to_ascii_lowercase().into()))],
        ),
        function(
            "upperAscii",
            Cost::Traversed,
            Str,
            &[("string_upper_ascii", &[], |_, a| Ok(text(a, 0)?.to_ascii_uppercase().into()))],
        ),
        function(
            "trim",
            Cost::Traversed,
            Str,
            &[("string_trim", &[], |_, a| Ok(text(a, 0)?.trim().to_owned().into()))],
        ),
        Function::new(
            "format",
            [Overload::member("string_format", [Str, Type::list(Type::Dyn)], Str, formatted)
                .cost(first_traversed)
                .estimate(estimate_traversed)],
        ),
        Function::new(
            "strings.quote",
            [Overload::global("strings_quote", [Str], Str, quoted).cost(first_traversed).estimate(estimate_quote)],
        ),
    ]
}
