//! Floating point numbers as texts: Go's shortest form, and the forms of English texts that `format` gives.

/// Go's `%g` with as many digits as needed: `2.5`, `1e+06`.
pub(super) fn shortest(value: f64) -> String {
    if let Some(special) = special(value) {
        return special.to_owned();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Go takes 21 for the shortest form; then it says so with an exponent.
    if (-4..21).contains(&exponent) { format!("{value}") } else { with_exponent(digits, exponent) }
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `%.3f` of an English text: `12,345.600`.
pub(super) fn fixed(value: f64, precision: usize) -> String {
    if let Some(text) = localized_special(value) {
        return text.to_owned();
    }
    let text = format!("{value:.precision$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = text.split_once('.').map_or((text, String::new()), |(w, f)| (w, format!(".{f}")));
    format!("{sign}{}{fraction}", grouped(whole))
}

/// `%e` of an English text: `1.052033 × 10⁰³` with narrow spaces.
pub(super) fn scientific(value: f64, precision: usize) -> String {
    if let Some(text) = localized_special(value) {
        return text.to_owned();
    }
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |rest| ("\u{207b}", rest));
    let raised: String = format!("{exponent:0>2}").chars().map(superscript).collect();
    format!("{digits}\u{202f}\u{d7}\u{202f}10{sign}{raised}")
}

fn localized_special(value: f64) -> Option<&'static str> {
    Some(match special(value)? {
        "+Inf" => "∞",
        "-Inf" => "-∞",
        other => other,
    })
}

fn grouped(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn superscript(digit: char) -> char {
    ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit.to_digit(10).unwrap_or(0) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_upstream() {
        assert_eq!(shortest(2.71), "2.71");
        assert_eq!(shortest(0.000_000_002), "2e-09");
        assert_eq!(shortest(1e21), "1e+21");
        assert_eq!(shortest(3.0), "3");
        assert_eq!(fixed(1.2345, 3), "1.234");
        assert_eq!(fixed(-12345.6, 2), "-12,345.60");
        assert_eq!(scientific(1052.032911275, 6), "1.052033\u{202f}\u{d7}\u{202f}10\u{2070}\u{b3}");
    }
}
