//! Takes the query of a URL apart.

use percent_encoding::percent_decode_str;

/// The decoded names and values of a query, in order, of the first `most` parameters. A name can be there several
/// times; what is no UTF-8 is replaced.
pub fn pairs(query: &str, most: usize) -> impl Iterator<Item = (String, String)> {
    let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.split('&').filter(|part| !part.is_empty()).take(most).map(move |part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn parameters_are_decoded_in_order() {
        let found: Vec<_> = pairs("command=sh&&command=echo+a%20b&empty&odd=%zz%ff", 4).collect();
        let expected = [("command", "sh"), ("command", "echo a b"), ("empty", ""), ("odd", "%zz\u{fffd}")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(pairs("a&b&c", 2).count(), 2);
    }
}
