//! Generated names: a prefix and five random characters.

use rand::Rng;

/// No vowels and nothing that looks alike, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const RANDOM: usize = 5;
const MAX_BASE: usize = 63 - RANDOM;

/// A name that begins with `prefix`, at most 63 bytes long.
pub(super) fn generate(prefix: &str) -> String {
    let mut end = prefix.len().min(MAX_BASE);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    let mut random = rand::rng();
    name.extend((0..RANDOM).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_into_a_label() {
        for (prefix, length) in [("web-", 9), (&*"x".repeat(80), 63), ("", 5)] {
            let name = generate(prefix);
            assert_eq!(name.len(), length);
            assert!(name.bytes().rev().take(RANDOM).all(|b| ALPHABET.contains(&b)), "{name}");
        }
        assert_ne!(generate("a-"), generate("a-"));
    }
}
