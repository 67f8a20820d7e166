//! Trees into documents: the shortest forms, keys in the order of their bytes.

use super::decode::half;
use serde_json::{Map, Value};

pub(super) fn value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(set) => out.push(0xf4 + u8::from(*set)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => head(0, number, out),
            (None, Some(number)) => head(1, !(number as u64), out),
            (None, None) => float(number.as_f64().unwrap_or_default(), out),
        },
        Value::String(text) => bytes(text, out),
        Value::Array(items) => {
            head(4, items.len() as u64, out);
            items.iter().for_each(|item| self::value(item, out));
        }
        Value::Object(fields) => map(fields, out),
    }
}

/// Keys are shorter first, because the length is the first of their bytes.
fn map(fields: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| (key.len(), *key));
    head(5, sorted.len() as u64, out);
    for (key, field) in sorted {
        bytes(key, out);
        value(field, out);
    }
}

fn bytes(text: &str, out: &mut Vec<u8>) {
    head(2, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let first = major << 5;
    match argument {
        0..24 => out.push(first | argument as u8),
        24..0x100 => out.extend([first | 24, argument as u8]),
        0x100..0x1_0000 => {
            out.push(first | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(first | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(first | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}

/// The shortest of the three sizes that keeps the number.
fn float(number: f64, out: &mut Vec<u8>) {
    let single = number as f32;
    if f64::from(single) != number {
        out.push(0xfb);
        return out.extend(number.to_be_bytes());
    }
    match to_half(single) {
        Some(bits) => {
            out.push(0xf9);
            out.extend(bits.to_be_bytes());
        }
        None => {
            out.push(0xfa);
            out.extend(single.to_be_bytes());
        }
    }
}

/// The number in 16 bits, if nothing of it is lost: its bits are moved to their places and it is looked at what they
/// are there.
fn to_half(number: f32) -> Option<u16> {
    let bits = number.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    let half_bits = match exponent {
        -127 if fraction == 0 => sign,
        -14..=15 => sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16,
        -24..=-15 => sign | ((fraction | 0x80_0000) >> (-1 - exponent)) as u16,
        _ => return None,
    };
    (half(half_bits) == f64::from(number)).then_some(half_bits)
}
