//! Broken input for the tests of decoders: samples cut, repeated, mixed and with bytes changed, the same at every run.
//!
//! A decoder of outside bytes must refuse what it cannot read: it never panics, never takes long, never makes much out
//! of little. A test gives [`feed`] samples that are right, so that the broken ones get far into the decoder.

use serde_json::Value;
use std::time::{Duration, Instant};

/// Longer than any decoder takes for one small input, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// Broken input stays below this many bytes.
const LONGEST: usize = 16 << 10;
/// Bytes that mean something to most formats, or are at the edge of a number.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xc0\xff\"'\\{}[](),:;=!<>/@.-+*?%&~|# \t\r\n019aeEzZ";
const EDGES: [u32; 7] = [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// A source of numbers that look random (xorshift).
#[derive(Clone, Debug)]
pub struct Noise(u64);

/// Gives `decode` each sample, `rounds` broken forms of it, and random bytes. When `decode` panics, the input is shown.
pub fn feed(samples: &[&[u8]], rounds: usize, mut decode: impl FnMut(&[u8])) {
    let mut noise = Noise::new(rounds as u64);
    let mut give = |input: &[u8]| {
        let shown = Shown(input);
        let start = Instant::now();
        decode(input);
        assert!(start.elapsed() < PATIENCE, "decoding {shown:?} took {:?}", start.elapsed());
    };
    for sample in samples {
        give(sample);
        for _ in 0..rounds {
            let other = samples[noise.below(samples.len())];
            give(&noise.broken(sample, other));
            give(&noise.bytes(64));
        }
    }
}

/// [`feed`] for decoders of text.
pub fn feed_text(samples: &[&str], rounds: usize, mut decode: impl FnMut(&str)) {
    let samples: Vec<&[u8]> = samples.iter().map(|sample| sample.as_bytes()).collect();
    feed(&samples, rounds, |bytes| decode(&String::from_utf8_lossy(bytes)));
}

impl Noise {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() >> 11) as usize % limit.max(1)
    }

    /// Random bytes, fewer than `limit`.
    pub fn bytes(&mut self, limit: usize) -> Vec<u8> {
        (0..self.below(limit)).map(|_| self.number() as u8).collect()
    }

    /// A sample with one to four things wrong; some of them come from another sample.
    pub fn broken(&mut self, sample: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = sample.to_vec();
        for _ in 0..=self.below(4) {
            self.damage(&mut bytes, other);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        let until = (at + self.below(32)).min(bytes.len());
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..until)),
            2 => bytes.insert(at, self.telling()),
            3 => {
                let piece = bytes[at..until].repeat(1 + self.below(30));
                bytes.splice(at..at, piece);
            }
            4 => {
                let from = self.below(other.len());
                let length = self.below(64).min(other.len() - from);
                bytes.splice(at..until, other[from..from + length].iter().copied());
            }
            5 => {
                let edge = EDGES[self.below(EDGES.len())].to_be_bytes();
                bytes.iter_mut().skip(at).zip(edge).for_each(|(byte, edge)| *byte = edge);
            }
            6 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = self.telling()),
        }
    }

    fn telling(&mut self) -> u8 {
        TELLING[self.below(TELLING.len())]
    }

    /// A tree with one to four nodes replaced: by a scalar, by an empty or nested value, or by another node.
    pub fn broken_value(&mut self, sample: &Value) -> Value {
        let mut value = sample.clone();
        for _ in 0..=self.below(4) {
            let new = self.node(sample);
            *pick(&mut value, &mut |limit| self.below(limit)) = new;
        }
        value
    }

    fn node(&mut self, sample: &Value) -> Value {
        match self.below(10) {
            0 => Value::Null,
            1 => Value::Bool(true),
            2 => Value::from(i64::MAX),
            3 => Value::from(-0.5),
            4 => Value::String(String::new()),
            5 => Value::String("\u{0}é/~1-".into()),
            6 => Value::Array(Vec::new()),
            7 => serde_json::json!({}),
            8 => serde_json::json!([[{"": null}]]),
            _ => pick(&mut sample.clone(), &mut |limit| self.below(limit)).clone(),
        }
    }
}

/// A node somewhere below `value`, or that itself.
fn pick<'a>(value: &'a mut Value, below: &mut dyn FnMut(usize) -> usize) -> &'a mut Value {
    let length = match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if length == 0 || below(6) == 0 {
        return value;
    }
    let at = below(length);
    let child = match value {
        Value::Array(items) => items.get_mut(at),
        Value::Object(fields) => fields.values_mut().nth(at),
        _ => None,
    };
    pick(child.expect("it has that many children"), below)
}

/// An input that is printed when the decoder panics over it.
struct Shown<'a>(&'a [u8]);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl Drop for Shown<'_> {
    #[allow(clippy::print_stderr, reason = "for the person who reads why the test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was {self:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn input_is_varied_bounded_and_the_same_every_time() {
        let run = || {
            let mut seen = Vec::new();
            feed(&[b"{\"a\": [1, 2]}", b""], 300, |input| seen.push(input.to_vec()));
            seen
        };
        let seen = run();
        assert_eq!(seen, run());
        assert!(seen.iter().all(|input| input.len() <= LONGEST));
        assert!(seen.iter().collect::<HashSet<_>>().len() > 500);
    }

    #[test]
    fn trees_break_in_many_places() {
        let (mut noise, sample) = (Noise::new(1), serde_json::json!({"a": [1, {"b": "c"}], "d": null}));
        let broken: HashSet<String> = (0..300).map(|_| noise.broken_value(&sample).to_string()).collect();
        assert!(broken.len() > 100, "{}", broken.len());
    }
}
