//! Finds the keys in a terminal's input by which a client leaves a container.

use crate::answer::Result;
use pintle_docker::DockerError;

/// `ctrl-p,ctrl-q`
const DEFAULT: [u8; 2] = [16, 17];

/// The bytes of `ctrl-x,y,…`; nothing is the default.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>> {
    if text.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    let key = |name: &str| match name.as_bytes() {
        [one] => Some(*one),
        _ => match name.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
            Some([b'@']) => Some(0),
            Some([sign @ b'['..=b'_']) => Some(sign - b'@'),
            _ => None,
        },
    };
    let bad = |name: &str| {
        DockerError::invalid(format!("Invalid detach keys ({text}) provided: Unknown character: '{name}'"))
    };
    text.split(',').take(64).map(|name| key(name).ok_or_else(|| bad(name))).collect()
}

/// How much of the keys has been typed.
pub(crate) struct Keys {
    keys: Vec<u8>,
    seen: usize,
}

impl Keys {
    /// Without keys nothing is held back.
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, seen: 0 }
    }

    /// What of the input goes on, and whether the keys are complete. Keys that turn out to be others go on late.
    pub(crate) fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len() + self.seen);
        for byte in input {
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(self.keys.first() == Some(byte));
            if self.seen == 0 {
                passed.push(*byte);
            } else if self.keys.len() == 1 {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_over_several_reads() {
        let mut keys = Keys::new(parse("").unwrap());
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"b\x10"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"\x11c"), (Vec::new(), true));
        assert_eq!(Keys::new(Vec::new()).filter(b"xyz"), (b"xyz".to_vec(), false));
        assert_eq!(Keys::new(vec![b'q']).filter(b"xq"), (b"x".to_vec(), true));
    }

    #[test]
    fn names_of_keys_are_read() {
        assert_eq!(parse("ctrl-a,x,ctrl-[").unwrap(), [1, b'x', 27]);
        for bad in ["ctrl-1", "xy", "a,,b"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
