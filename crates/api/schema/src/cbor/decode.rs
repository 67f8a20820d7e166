//! Documents into trees, within bounds: nothing is reserved on the word of a length alone.

use super::{CborError, SELF_DESCRIBED};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

type Result<T> = std::result::Result<T, CborError>;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

/// The head of an item: its major type and its argument; none is an indefinite length.
struct Head {
    major: u8,
    argument: Option<u64>,
    /// The five low bits of the first byte.
    information: u8,
    at: usize,
}

/// How the bytes of a byte string become text.
#[derive(Clone, Copy)]
enum Text {
    Utf8,
    Base64,
    Base64Url,
    Hex,
}

impl<'a> Reader<'a> {
    /// The tag that most documents begin with is no level of nesting.
    pub fn new(bytes: &'a [u8], max_depth: usize) -> Self {
        let at = if bytes.starts_with(&super::MAGIC) { super::MAGIC.len() } else { 0 };
        Self { bytes, at, depth: max_depth }
    }

    pub fn document(mut self) -> Result<Value> {
        let value = self.value()?;
        let rest = self.bytes.len() - self.at;
        if rest > 0 { Err(CborError::Trailing(rest, self.at)) } else { Ok(value) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let (taken, _) = rest.split_at_checked(length).ok_or(CborError::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let first = self.bytes[self.at..].first_chunk().ok_or(CborError::Truncated)?;
        self.at += N;
        Ok(*first)
    }

    fn head(&mut self) -> Result<Head> {
        let at = self.at;
        let [first] = self.array()?;
        let (major, information) = (first >> 5, first & 0x1f);
        let argument = match information {
            0..24 => Some(u64::from(information)),
            24 => Some(self.array::<1>()?[0].into()),
            25 => Some(u16::from_be_bytes(self.array()?).into()),
            26 => Some(u32::from_be_bytes(self.array()?).into()),
            27 => Some(u64::from_be_bytes(self.array()?)),
            31 if matches!(major, 2..=5 | 7) => None,
            _ => return Err(CborError::Information(information, at)),
        };
        Ok(Head { major, argument, information, at })
    }

    fn value(&mut self) -> Result<Value> {
        let head = self.head()?;
        self.rest_of(head, Text::Utf8)
    }

    fn rest_of(&mut self, head: Head, text: Text) -> Result<Value> {
        match (head.major, head.argument) {
            (0, Some(number)) => i64::try_from(number).map(Value::from).map_err(|_| CborError::Integer(head.at)),
            (1, Some(number)) => {
                i64::try_from(number).map(|n| (-1 - n).into()).map_err(|_| CborError::Integer(head.at))
            }
            (2 | 3, _) => self.text(&head, text).map(Value::String),
            (4, length) => self.nested(|reader| reader.list(length)),
            (5, length) => self.nested(|reader| reader.map(length)),
            (6, Some(tag)) => self.tagged(tag, &head),
            (7, None) => Err(CborError::Break(head.at)),
            _ => simple(&head),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Value>) -> Result<Value> {
        self.depth = self.depth.checked_sub(1).ok_or(CborError::Depth)?;
        let value = read(self);
        self.depth += 1;
        value
    }

    /// Whether there is another item; the length counts down, an indefinite one ends with a break.
    fn more(&mut self, left: &mut Option<u64>) -> Result<bool> {
        match left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.bytes.get(self.at) == Some(&0xff) => {
                self.at += 1;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn list(&mut self, mut left: Option<u64>) -> Result<Value> {
        let mut items = Vec::new();
        while self.more(&mut left)? {
            items.push(self.value()?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, mut left: Option<u64>) -> Result<Value> {
        let mut map = Map::new();
        while self.more(&mut left)? {
            let head = self.head()?;
            if !matches!(head.major, 2 | 3) {
                return Err(CborError::Key(head.at));
            }
            let key = self.text(&head, Text::Utf8)?;
            let value = self.value()?;
            match map.entry(key) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(found) => {
                    return Err(CborError::Duplicate { key: found.key().clone(), at: head.at });
                }
            }
        }
        Ok(Value::Object(map))
    }

    fn tagged(&mut self, tag: u64, head: &Head) -> Result<Value> {
        let text = match tag {
            // Tags in tags are nesting, too.
            SELF_DESCRIBED => return self.nested(Self::value),
            21 => Text::Base64Url,
            22 => Text::Base64,
            23 => Text::Hex,
            _ => return Err(CborError::Tag { tag, at: head.at }),
        };
        let inner = self.head()?;
        if inner.major != 2 {
            return Err(CborError::Tag { tag, at: head.at });
        }
        self.rest_of(inner, text)
    }

    fn text(&mut self, head: &Head, text: Text) -> Result<String> {
        let whole;
        let bytes = match head.argument {
            Some(length) => self.chunk(length)?,
            None => {
                whole = self.chunks(head.major)?;
                &whole
            }
        };
        Ok(match text {
            Text::Utf8 => std::str::from_utf8(bytes).map_err(|_| CborError::Utf8(head.at))?.to_owned(),
            Text::Base64 => STANDARD.encode(bytes),
            Text::Base64Url => URL_SAFE.encode(bytes),
            Text::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    fn chunk(&mut self, length: u64) -> Result<&'a [u8]> {
        self.take(usize::try_from(length).map_err(|_| CborError::Truncated)?)
    }

    fn chunks(&mut self, major: u8) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while self.more(&mut None)? {
            let head = self.head()?;
            match head.argument.filter(|_| head.major == major) {
                Some(length) => whole.extend_from_slice(self.chunk(length)?),
                None => return Err(CborError::Chunk(head.at)),
            }
        }
        Ok(whole)
    }
}

/// Numbers with fractions, and what has no argument.
fn simple(head: &Head) -> Result<Value> {
    let bits = head.argument.unwrap_or_default();
    let float = match head.information {
        20 => return Ok(false.into()),
        21 => return Ok(true.into()),
        22 => return Ok(Value::Null),
        25 => half(bits as u16),
        26 => f32::from_bits(bits as u32).into(),
        27 => f64::from_bits(bits),
        _ => return Err(CborError::Simple { value: bits as u8, at: head.at }),
    };
    Number::from_f64(float).map(Value::Number).ok_or(CborError::Float(head.at))
}

/// A number of 16 bits (IEEE 754 binary16): a sign, five bits of exponent, ten of fraction.
pub(super) fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 0x1f, f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(i32::from(exponent) - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}
