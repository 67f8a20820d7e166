//! Names of containers: which are allowed, and ones for those that get none.

use crate::error::{DockerError, Result};
use rand::seq::IndexedRandom;

/// Refuses names that Docker refuses.
pub(super) fn check(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let trimmed = name.strip_prefix('/').unwrap_or(name);
    let first = trimmed.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && trimmed.len() >= 2 && trimmed.chars().all(plain) {
        return Ok(());
    }
    Err(DockerError::invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// Two words; when `retry` is not 0, a digit after them.
pub(super) fn random(retry: u32) -> String {
    let mut rng = rand::rng();
    let adjective = ADJECTIVES.choose(&mut rng).unwrap_or(&"plain");
    let surname = SURNAMES.choose(&mut rng).unwrap_or(&"noether");
    let digit = if retry == 0 { String::new() } else { (retry % 10).to_string() };
    format!("{adjective}_{surname}{digit}")
}

const ADJECTIVES: [&str; 64] = [
    "agile",
    "amber",
    "ample",
    "apt",
    "astute",
    "brave",
    "breezy",
    "bright",
    "brisk",
    "calm",
    "candid",
    "careful",
    "cheerful",
    "clear",
    "clever",
    "cosmic",
    "crisp",
    "curious",
    "daring",
    "deft",
    "eager",
    "earnest",
    "fair",
    "fluent",
    "frank",
    "gentle",
    "glad",
    "golden",
    "graceful",
    "hardy",
    "honest",
    "humble",
    "inventive",
    "jolly",
    "keen",
    "kind",
    "lively",
    "loyal",
    "lucid",
    "mellow",
    "merry",
    "mindful",
    "modest",
    "neat",
    "nimble",
    "noble",
    "patient",
    "polite",
    "proud",
    "quick",
    "quiet",
    "rapid",
    "ready",
    "serene",
    "sharp",
    "silent",
    "smooth",
    "steady",
    "sunny",
    "swift",
    "tidy",
    "vivid",
    "wise",
    "witty",
];

/// Of people who made science and computing what they are.
const SURNAMES: [&str; 64] = [
    "abel",
    "ampere",
    "archimedes",
    "babbage",
    "banach",
    "bartik",
    "bernoulli",
    "bohr",
    "boole",
    "brahmagupta",
    "cantor",
    "cauchy",
    "chandrasekhar",
    "church",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "einstein",
    "engelbart",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goodall",
    "hamilton",
    "hawking",
    "hilbert",
    "hopper",
    "hypatia",
    "johnson",
    "kepler",
    "khayyam",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "leavitt",
    "leibniz",
    "lovelace",
    "maxwell",
    "mcclintock",
    "meitner",
    "mendel",
    "mirzakhani",
    "newton",
    "noether",
    "pascal",
    "pasteur",
    "poincare",
    "ramanujan",
    "riemann",
    "ritchie",
    "shannon",
    "tesla",
    "turing",
    "yonath",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_random_ones_pass() {
        for good in ["ab", "/a1", "a_b.c-d"] {
            check(good).unwrap();
        }
        for bad in ["", "a", "_a", "bad name", "a/b", "-x", "é1"] {
            assert!(check(bad).unwrap_err().message.contains(bad), "{bad:?}");
        }
        for retry in 0..20 {
            check(&random(retry)).unwrap();
        }
    }
}
