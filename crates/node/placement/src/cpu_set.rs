//! Sets of processors and of memory nodes, in the kernel's form: `0-3,8`.
//!
//! Source: cpuset(7), "List format".

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// No machine has more.
const MAX_ID: u32 = 1 << 16;
const MAX_TEXT_BYTES: usize = 64 << 10;

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSet(BTreeSet<u32>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no list of processors such as 0-3,8")]
pub struct BadCpuSet(pub String);

impl CpuSet {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.0.iter().copied().peekable();
        let mut first = true;
        while let Some(start) = ids.next() {
            let mut end = start;
            while let Some(next) = ids.next_if(|next| *next == end + 1) {
                end = next;
            }
            if !std::mem::take(&mut first) {
                f.write_str(",")?;
            }
            if start == end { write!(f, "{start}")? } else { write!(f, "{start}-{end}")? }
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = BadCpuSet;

    fn from_str(text: &str) -> Result<Self, BadCpuSet> {
        let bad = || BadCpuSet(text.chars().take(100).collect());
        let number = |word: &str| word.trim().parse::<u32>().ok().filter(|n| *n <= MAX_ID).ok_or_else(bad);
        if text.len() > MAX_TEXT_BYTES {
            return Err(bad());
        }
        let mut ids = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (start, end) = part.split_once('-').unwrap_or((part, part));
            let (start, end) = (number(start)?, number(end)?);
            if start > end {
                return Err(bad());
            }
            ids.extend(start..=end);
        }
        Ok(Self(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for (text, same) in [("", ""), ("0", "0"), ("3,0-2", "0-3"), ("0,2,4-5\n", "0,2,4-5"), ("7-7", "7")] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), same, "{text}");
        }
        for text in ["a", "3-1", "-1", "0-99999999", "1;2"] {
            assert_eq!(text.parse::<CpuSet>(), Err(BadCpuSet(text.to_owned())));
        }
    }
}
