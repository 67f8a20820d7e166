//! Texts to tokens, each as long as it can be; what is no token is an issue and left out.

/// What a token is, in the order that messages list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Equals,
    NotEquals,
    In,
    Less,
    LessEquals,
    GreaterEquals,
    Greater,
    And,
    Or,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    OpenParen,
    CloseParen,
    Dot,
    Comma,
    Minus,
    Not,
    Question,
    Colon,
    Plus,
    Star,
    Slash,
    Percent,
    True,
    False,
    Null,
    Float,
    Int,
    Uint,
    String,
    Bytes,
    Ident,
    EscapedIdent,
    End,
}

/// How messages name kinds, by their number.
const NAMES: [&str; 36] = [
    "'=='",
    "'!='",
    "'in'",
    "'<'",
    "'<='",
    "'>='",
    "'>'",
    "'&&'",
    "'||'",
    "'['",
    "']'",
    "'{'",
    "'}'",
    "'('",
    "')'",
    "'.'",
    "','",
    "'-'",
    "'!'",
    "'?'",
    "':'",
    "'+'",
    "'*'",
    "'/'",
    "'%'",
    "'true'",
    "'false'",
    "'null'",
    "NUM_FLOAT",
    "NUM_INT",
    "NUM_UINT",
    "STRING",
    "BYTES",
    "IDENTIFIER",
    "ESC_IDENTIFIER",
    "<EOF>",
];

/// Kinds as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds(pub u64);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'t> {
    pub kind: Kind,
    pub text: &'t str,
    /// In characters.
    pub at: u32,
}

/// A text that is no token.
pub(crate) struct LexIssue {
    pub at: u32,
    pub text: String,
}

impl Kinds {
    pub const fn of(kinds: &[Kind]) -> Kinds {
        let mut bits = 0;
        let mut at = 0;
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u8;
            at += 1;
        }
        Kinds(bits)
    }

    pub const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// `')'`, or `{'[', '{'}`.
impl std::fmt::Display for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = NAMES.iter().enumerate().filter(|(n, _)| self.0 & (1 << n) != 0).map(|n| *n.1).collect();
        match names.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "{{{}}}", many.join(", ")),
        }
    }
}

/// All tokens, the last of them `End`, and what is none.
pub(crate) fn tokens(source: &str) -> (Vec<Token<'_>>, Vec<LexIssue>) {
    let mut lexer = Lexer { source, byte: 0, at: 0, tokens: Vec::new(), issues: Vec::new() };
    while lexer.byte < source.len() {
        lexer.step();
    }
    lexer.tokens.push(Token { kind: Kind::End, text: "<EOF>", at: lexer.at });
    (lexer.tokens, lexer.issues)
}

struct Lexer<'t> {
    source: &'t str,
    byte: usize,
    at: u32,
    tokens: Vec<Token<'t>>,
    issues: Vec<LexIssue>,
}

/// What begins at a place: a token of so many bytes, something to skip, or nothing, seen after so many bytes.
enum Found {
    Token(Kind, usize),
    Skip(usize),
    Nothing(usize),
}

impl<'t> Lexer<'t> {
    fn step(&mut self) {
        let rest = &self.source[self.byte..];
        match find(rest) {
            Found::Token(kind, length) => {
                self.tokens.push(Token { kind, text: &rest[..length], at: self.at });
                self.advance(length);
            }
            Found::Skip(length) => self.advance(length),
            Found::Nothing(length) => {
                // The character that shows that it is no token belongs to the text that is told.
                let shown = length + rest[length..].chars().next().map_or(0, char::len_utf8);
                self.issues.push(LexIssue { at: self.at, text: rest[..shown].to_owned() });
                self.advance(shown);
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.at += self.source[self.byte..self.byte + bytes].chars().count() as u32;
        self.byte += bytes;
    }
}

fn find(rest: &str) -> Found {
    let bytes = rest.as_bytes();
    let second = bytes.get(1).copied().unwrap_or(0);
    match bytes[0] {
        b'\t' | b' ' | b'\r' | b'\n' | 0x0c => {
            Found::Skip(rest.find(|c| !matches!(c, '\t' | ' ' | '\r' | '\n' | '\x0c')).unwrap_or(rest.len()))
        }
        b'/' if second == b'/' => Found::Skip(rest.find('\n').unwrap_or(rest.len())),
        b'=' | b'&' | b'|' if second != bytes[0] => Found::Nothing(1),
        b'=' => Found::Token(Kind::Equals, 2),
        b'&' => Found::Token(Kind::And, 2),
        b'|' => Found::Token(Kind::Or, 2),
        b'!' if second == b'=' => Found::Token(Kind::NotEquals, 2),
        b'<' if second == b'=' => Found::Token(Kind::LessEquals, 2),
        b'>' if second == b'=' => Found::Token(Kind::GreaterEquals, 2),
        b'.' if second.is_ascii_digit() => number(bytes),
        b'0'..=b'9' => number(bytes),
        b'"' | b'\'' => string(bytes, 0, false).map_or_else(Found::Nothing, |end| Found::Token(Kind::String, end)),
        b'`' => escaped_ident(bytes),
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => prefixed_string(bytes).unwrap_or_else(|| word(rest)),
        other => sign(other).map_or(Found::Nothing(0), |kind| Found::Token(kind, 1)),
    }
}

fn sign(byte: u8) -> Option<Kind> {
    Some(match byte {
        b'<' => Kind::Less,
        b'>' => Kind::Greater,
        b'[' => Kind::OpenBracket,
        b']' => Kind::CloseBracket,
        b'{' => Kind::OpenBrace,
        b'}' => Kind::CloseBrace,
        b'(' => Kind::OpenParen,
        b')' => Kind::CloseParen,
        b'.' => Kind::Dot,
        b',' => Kind::Comma,
        b'-' => Kind::Minus,
        b'!' => Kind::Not,
        b'?' => Kind::Question,
        b':' => Kind::Colon,
        b'+' => Kind::Plus,
        b'*' => Kind::Star,
        b'/' => Kind::Slash,
        b'%' => Kind::Percent,
        _ => return None,
    })
}

fn word(rest: &str) -> Found {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let kind = match &rest[..end] {
        "in" => Kind::In,
        "true" => Kind::True,
        "false" => Kind::False,
        "null" => Kind::Null,
        _ => Kind::Ident,
    };
    Found::Token(kind, end)
}

fn digits(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn number(bytes: &[u8]) -> Found {
    if bytes.starts_with(b"0x") {
        let hex = bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if hex > 0 {
            return unsigned(bytes, 2 + hex);
        }
    }
    let mut end = digits(bytes, 0);
    let mut float = false;
    if bytes.get(end) == Some(&b'.') && digits(bytes, end + 1) > 0 {
        end += 1 + digits(bytes, end + 1);
        float = true;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(bytes, (end + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            end += 1 + sign + exponent;
            float = true;
        }
    }
    if float { Found::Token(Kind::Float, end) } else { unsigned(bytes, end) }
}

fn unsigned(bytes: &[u8], end: usize) -> Found {
    match bytes.get(end) {
        Some(b'u' | b'U') => Found::Token(Kind::Uint, end + 1),
        _ => Found::Token(Kind::Int, end),
    }
}

fn escaped_ident(bytes: &[u8]) -> Found {
    let inner = bytes[1..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/' | b' '))
        .count();
    if inner > 0 && bytes.get(1 + inner) == Some(&b'`') {
        return Found::Token(Kind::EscapedIdent, inner + 2);
    }
    Found::Nothing(1 + inner)
}

/// `r"…"`, `b'…'`, `br"…"`. What does not end is a word that begins with those letters.
fn prefixed_string(bytes: &[u8]) -> Option<Found> {
    let is = |at: usize, letters: &[u8]| bytes.get(at).is_some_and(|byte| letters.contains(byte));
    let binary = is(0, b"bB");
    let at = usize::from(binary);
    let raw = is(at, b"rR");
    let at = at + usize::from(raw);
    if at == 0 || !is(at, b"\"'") {
        return None;
    }
    let end = string(bytes, at, raw).ok()?;
    Some(Found::Token(if binary { Kind::Bytes } else { Kind::String }, end))
}

/// The end of the string whose quote is at `start`, or where it turns out not to be one.
fn string(bytes: &[u8], start: usize, raw: bool) -> Result<usize, usize> {
    let quote = bytes[start];
    let triple = [quote; 3];
    if bytes[start..].starts_with(&triple) {
        // What does not end is an empty string before something else.
        return quoted(bytes, start + 3, &triple, raw, true).or(Ok(start + 2));
    }
    quoted(bytes, start + 1, &triple[..1], raw, false)
}

fn quoted(bytes: &[u8], from: usize, quote: &[u8], raw: bool, lines: bool) -> Result<usize, usize> {
    let mut at = from;
    while at < bytes.len() {
        if bytes[at..].starts_with(quote) {
            return Ok(at + quote.len());
        }
        match bytes[at] {
            b'\n' | b'\r' if !lines => return Err(at),
            b'\\' if !raw => at = escape_end(bytes, at)?,
            _ => at += 1,
        }
    }
    Err(at)
}

/// The end of the escape sequence at `at`, or the place of the byte that is wrong in it.
fn escape_end(bytes: &[u8], at: usize) -> Result<usize, usize> {
    let digits = |count: usize, is: fn(&u8) -> bool| match (1..=count).find(|n| !bytes.get(at + 1 + n).is_some_and(is))
    {
        Some(n) => Err((at + 1 + n).min(bytes.len())),
        None => Ok(at + 2 + count),
    };
    match bytes.get(at + 1) {
        Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`') => Ok(at + 2),
        Some(b'0'..=b'3') => digits(2, |byte| (b'0'..=b'7').contains(byte)),
        Some(b'x' | b'X') => digits(2, u8::is_ascii_hexdigit),
        Some(b'u') => digits(4, u8::is_ascii_hexdigit),
        Some(b'U') => digits(8, u8::is_ascii_hexdigit),
        _ => Err((at + 1).min(bytes.len())),
    }
}
