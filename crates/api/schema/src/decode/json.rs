//! A JSON parser that is bounded in depth, tells duplicate keys by path, and errs in Go's words.

use super::{DecodeError, Decoded};
use serde_json::{Map, Number, Value};

pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    path: Vec<Step>,
    duplicates: Vec<String>,
}

enum Step {
    Key(String),
    Index(usize),
}

/// More duplicates than this are not told one by one.
const MAX_DUPLICATES: usize = 100;

type Result<T> = std::result::Result<T, DecodeError>;

impl<'a> Parser<'a> {
    pub(super) fn new(bytes: &'a [u8], max_depth: usize) -> Self {
        Self { bytes, at: 0, depth: max_depth, path: Vec::new(), duplicates: Vec::new() }
    }

    pub(super) fn document(mut self) -> Result<Decoded> {
        let value = self.value()?;
        match self.next_token() {
            None => Ok(Decoded { value, duplicates: self.duplicates }),
            Some(byte) => Err(self.invalid(byte, "after top-level value")),
        }
    }

    /// The next byte that is no white space, not consumed.
    fn next_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn end() -> DecodeError {
        DecodeError::Json("unexpected end of JSON input".into())
    }

    fn invalid(&self, byte: u8, context: &str) -> DecodeError {
        let shown = match byte {
            b'\'' => r"'\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            b'\n' => r"'\n'".to_owned(),
            b'\r' => r"'\r'".to_owned(),
            b'\t' => r"'\t'".to_owned(),
            0x20..=0x7e => format!("'{}'", byte as char),
            0xa1.. if byte != 0xad => format!("'{}'", char::from(byte)),
            _ if byte < 0x80 => format!("'\\x{byte:02x}'"),
            _ => format!("'\\u{byte:04x}'"),
        };
        DecodeError::Json(format!("invalid character {shown} {context}"))
    }

    fn value(&mut self) -> Result<Value> {
        match self.next_token().ok_or_else(Self::end)? {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'"' => self.string().map(Value::String),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            b'n' => self.literal("null", Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            byte => Err(self.invalid(byte, "looking for beginning of value")),
        }
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Result<Value>) -> Result<Value> {
        self.depth = self.depth.checked_sub(1).ok_or(DecodeError::Depth)?;
        self.at += 1;
        let value = parse(self);
        self.depth += 1;
        value
    }

    fn object(&mut self) -> Result<Value> {
        let mut map = Map::new();
        if self.next_token() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            match self.next_token().ok_or_else(Self::end)? {
                b'"' => {}
                byte => return Err(self.invalid(byte, "looking for beginning of object key string")),
            }
            let key = self.string()?;
            self.separator(b':', "after object key")?;
            self.path.push(Step::Key(key));
            let value = self.value()?;
            if let Some(Step::Key(key)) = self.path.last() {
                if map.contains_key(key) && self.duplicates.len() < MAX_DUPLICATES {
                    self.duplicates.push(self.shown_path());
                }
                if let Some(Step::Key(key)) = self.path.pop() {
                    map.insert(key, value);
                }
            }
            match self.next_token().ok_or_else(Self::end)? {
                b',' => self.at += 1,
                b'}' => break,
                byte => return Err(self.invalid(byte, "after object key:value pair")),
            }
        }
        self.at += 1;
        Ok(Value::Object(map))
    }

    fn array(&mut self) -> Result<Value> {
        let mut items = Vec::new();
        if self.next_token() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.path.push(Step::Index(items.len()));
            items.push(self.value()?);
            self.path.pop();
            match self.next_token().ok_or_else(Self::end)? {
                b',' => self.at += 1,
                b']' => break,
                byte => return Err(self.invalid(byte, "after array element")),
            }
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn separator(&mut self, wanted: u8, context: &str) -> Result<()> {
        match self.next_token().ok_or_else(Self::end)? {
            byte if byte == wanted => {
                self.at += 1;
                Ok(())
            }
            byte => Err(self.invalid(byte, context)),
        }
    }

    fn literal(&mut self, text: &str, value: Value) -> Result<Value> {
        for wanted in text.bytes() {
            match self.bytes.get(self.at).copied() {
                None => return Err(Self::end()),
                Some(byte) if byte == wanted => self.at += 1,
                Some(byte) => {
                    return Err(self.invalid(byte, &format!("in literal {text} (expecting '{}')", wanted as char)));
                }
            }
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Value> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        let mut whole = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            whole = false;
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        // Only ASCII was consumed.
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        number_value(text, whole)
    }

    fn digits(&mut self, context: &str) -> Result<()> {
        match self.bytes.get(self.at).copied() {
            None => return Err(Self::end()),
            Some(b'0'..=b'9') => {}
            Some(byte) => return Err(self.invalid(byte, context)),
        }
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String> {
        self.at += 1;
        let mut text: Vec<u8> = Vec::new();
        loop {
            let start = self.at;
            while self.bytes.get(self.at).is_some_and(|&b| b >= 0x20 && b != b'"' && b != b'\\') {
                self.at += 1;
            }
            text.extend_from_slice(&self.bytes[start..self.at]);
            match self.bytes.get(self.at).copied() {
                None => return Err(Self::end()),
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut text)?,
                Some(byte) => return Err(self.invalid(byte, "in string literal")),
            }
        }
        self.at += 1;
        // As Go does, bytes that are no UTF-8 become the replacement character.
        Ok(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<()> {
        self.at += 1;
        let byte = self.bytes.get(self.at).copied().ok_or_else(Self::end)?;
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let character = self.unicode()?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            other => return Err(self.invalid(other, "in string escape code")),
        };
        text.push(plain);
        Ok(())
    }

    /// What follows `\u`: one unit, or two that are a surrogate pair. Lone surrogates become U+FFFD.
    fn unicode(&mut self) -> Result<char> {
        let first = self.hex()?;
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Result<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.bytes.get(self.at).copied().ok_or_else(Self::end)?;
            let digit =
                (byte as char).to_digit(16).ok_or_else(|| self.invalid(byte, "in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn shown_path(&self) -> String {
        let mut shown = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if shown.is_empty() => shown.push_str(key),
                Step::Key(key) => shown.extend([".", key]),
                Step::Index(index) => shown.push_str(&format!("[{index}]")),
            }
        }
        shown
    }
}

/// Whole numbers are exact as far as 64 bits go; all others are floats.
fn number_value(text: &str, whole: bool) -> Result<Value> {
    if whole {
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Value::from(number));
        }
        if let Ok(number) = text.parse::<u64>() {
            return Ok(Value::from(number));
        }
    }
    let float = text.parse::<f64>().ok().and_then(Number::from_f64);
    float
        .map(Value::Number)
        .ok_or_else(|| DecodeError::Json(format!("json: cannot unmarshal number {text} into Go value of type float64")))
}
