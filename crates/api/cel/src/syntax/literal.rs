//! The values of literals: numbers, and strings with their escapes.

use super::ast::Literal;

pub(crate) fn int(text: &str, negative: bool) -> Option<Literal> {
    let (digits, base) = radix(text);
    let magnitude = i128::from_str_radix(digits, base).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok().map(Literal::Int)
}

pub(crate) fn uint(text: &str) -> Option<Literal> {
    let (digits, base) = radix(&text[..text.len() - 1]);
    u64::from_str_radix(digits, base).ok().map(Literal::Uint)
}

/// Numbers too large for a double are none.
pub(crate) fn double(text: &str, negative: bool) -> Option<Literal> {
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some(Literal::Double(if negative { -value } else { value }))
}

fn radix(text: &str) -> (&str, u32) {
    match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    }
}

/// The text of a string's token.
pub(crate) fn string(token: &str) -> Result<Literal, &'static str> {
    let (body, raw) = body(token);
    let mut text = String::with_capacity(body.len());
    unescape(body, raw, false, &mut |code| match code {
        Unit::Text(part) => {
            text.push_str(part);
            Ok(())
        }
        Unit::Code(code) => {
            text.push(char::from_u32(code).ok_or("invalid unicode code point")?);
            Ok(())
        }
    })?;
    Ok(Literal::String(text.into()))
}

/// The bytes of a token `b"…"`.
pub(crate) fn bytes(token: &str) -> Result<Literal, &'static str> {
    let (body, raw) = body(&token[1..]);
    let mut bytes = Vec::with_capacity(body.len());
    unescape(body, raw, true, &mut |code| {
        match code {
            Unit::Text(part) => bytes.extend_from_slice(part.as_bytes()),
            Unit::Code(code) => bytes.push(code as u8),
        }
        Ok(())
    })?;
    Ok(Literal::Bytes(bytes.into()))
}

fn body(token: &str) -> (&str, bool) {
    let raw = token.starts_with(['r', 'R']);
    let quoted = if raw { &token[1..] } else { token };
    let quotes = if quoted.len() >= 6 && (quoted.starts_with("\"\"\"") || quoted.starts_with("'''")) { 3 } else { 1 };
    (&quoted[quotes..quoted.len() - quotes], raw)
}

enum Unit<'t> {
    Text(&'t str),
    Code(u32),
}

type Push<'p> = &'p mut dyn FnMut(Unit<'_>) -> Result<(), &'static str>;

fn unescape(body: &str, raw: bool, binary: bool, push: Push<'_>) -> Result<(), &'static str> {
    let mut rest = body;
    while let Some(at) = rest.find('\\').filter(|_| !raw) {
        push(Unit::Text(&rest[..at]))?;
        let escape = &rest[at + 1..];
        let kind = escape.chars().next().ok_or("unable to unescape string, found '\\' as last character")?;
        let used = match kind {
            'x' | 'X' => 3,
            'u' => 5,
            'U' => 9,
            '0'..='3' => 3,
            _ => 1,
        };
        let digits = |from: usize, base| u32::from_str_radix(escape.get(from..used).unwrap_or(""), base);
        let code = match kind {
            'u' | 'U' if binary => return Err("unable to unescape string"),
            'x' | 'X' | 'u' | 'U' => digits(1, 16).map_err(|_| "unable to unescape string")?,
            '0'..='3' => digits(0, 8).map_err(|_| "unable to unescape octal sequence in string")?,
            other => simple(other),
        };
        push(Unit::Code(code))?;
        rest = escape.get(used..).unwrap_or("");
    }
    // Line ends are as on every system.
    if rest.contains('\r') {
        return push(Unit::Text(&rest.replace("\r\n", "\n").replace('\r', "\n")));
    }
    push(Unit::Text(rest))
}

fn simple(kind: char) -> u32 {
    match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        other => other as u32,
    }
}
