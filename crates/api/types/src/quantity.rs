//! Quantities of resources: `100m`, `1.5Gi`, `2e3`, kept exactly to a billionth.
//!
//! Source: the `resource.Quantity` type of apimachinery. Values finer than a nano are rounded up, values beyond
//! 2^63-1 are capped, as upstream does.

use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

/// The family of suffixes in which a quantity was written and is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `n`, `u`, `m`, none, `k`, `M`, …
    DecimalSi,
    /// `e3`, `E6`, …
    DecimalExponent,
}

/// An exact amount with the format in which it prints.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text that is no quantity. The message is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANO, format }
    }
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }
    /// Whole units, rounded up.
    pub fn units(&self) -> i64 {
        ceil_div(self.nanos, NANO) as i64
    }
    /// Thousandths, rounded up.
    pub fn milli(&self) -> i64 {
        ceil_div(self.nanos, NANO / 1000).clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
    /// Billionths: the exact amount.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    /// Whether it is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }
    pub fn format(&self) -> Format {
        self.format
    }
}

fn ceil_div(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl std::ops::Add for Quantity {
    type Output = Self;
    /// The sum prints in the format of the left side, or of the right one when the left is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
}
impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + Self { nanos: -other.nanos, format: other.format }
    }
}

/// What a suffix multiplies by: `base^exponent`, and the format that it belongs to.
fn suffix(text: &str) -> Option<(Format, i32)> {
    let si = |exponent| Some((Format::DecimalSi, exponent));
    let binary = |exponent| Some((Format::BinarySi, exponent));
    match text {
        "" => si(0),
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let digits = text.strip_prefix(['e', 'E'])?;
            let exponent: i32 = digits.parse().ok()?;
            Some((Format::DecimalExponent, exponent.clamp(-99, 99)))
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let (format, exponent) = suffix(tail).ok_or(ParseQuantityError)?;
        let nanos = scaled(whole, fraction, format, exponent);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// `whole.fraction` times the suffix, in nanos: rounded up when finer, capped when larger.
fn scaled(whole: &str, fraction: &str, format: Format, exponent: i32) -> i128 {
    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let mut tens = 9 - fraction.len() as i32;
    let mut factor: i128 = 1;
    match format {
        Format::BinarySi => factor = 1 << exponent,
        Format::DecimalSi | Format::DecimalExponent => tens += exponent,
    }
    // More than 38 digits overflow an i128; such a number is beyond the cap or below a nano in all but its head.
    let kept = &digits[..digits.len().min(30)];
    tens += (digits.len() - kept.len()) as i32;
    let value: i128 = kept.parse().unwrap_or(MAX);
    if tens >= 0 {
        let power = 10i128.checked_pow(tens as u32);
        return power
            .and_then(|p| value.checked_mul(p))
            .and_then(|v| v.checked_mul(factor))
            .map_or(MAX, |v| v.min(MAX));
    }
    let Some(value) = value.checked_mul(factor) else { return MAX };
    10i128.checked_pow(tens.unsigned_abs()).map_or(1, |p| ceil_div(value, p)).min(MAX)
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix with which no digits after a point are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && !small {
            let mut value = self.nanos / NANO;
            let mut step = 0;
            while value % 1024 == 0 && step < 6 {
                value /= 1024;
                step += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let mut value = self.nanos;
        let mut exponent = -9;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{value}"),
            (Format::DecimalExponent, exponent) => write!(f, "{value}e{exponent}"),
            (_, exponent) => {
                write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize])
            }
        }
    }
}

impl From<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    /// Stored quantities were validated; what is none counts as zero.
    fn from(q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Self {
        q.0.parse().unwrap_or(Self::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_canonically() {
        for (written, printed) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("1000k", "1M"),
            ("2e3", "2e3"),
            ("1500e-3", "1500e-3"),
            ("-1.5", "-1500m"),
            ("1.0000000001", "1000000001n"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
        ] {
            let parsed: Quantity = written.parse().unwrap();
            assert_eq!(parsed.to_string(), printed, "{written}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "-", ".", "1.2.3", "1x", "1 Gi", "Gi", "1e", "--1"] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn huge_and_tiny_numbers_are_capped_and_rounded_up() {
        let huge: Quantity = "99999999999999999999999999999999999999999999Ei".parse().unwrap();
        assert_eq!(huge.units(), i64::MAX);
        let tiny: Quantity = "0.00000000000000000000000000000000001".parse().unwrap();
        assert_eq!(tiny.to_string(), "1n");
        assert_eq!("1500m".parse::<Quantity>().unwrap().units(), 2);
    }
}
