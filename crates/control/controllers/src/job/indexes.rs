//! Sets of completion indexes in the form that a status tells them: `0-2,5`.

use std::collections::BTreeSet;

/// More indexes than this are not read from a text, which could name billions in a few characters.
const MOST: usize = 100_000;

/// Reads a set; what can't be read is left out.
pub fn parse(text: &str) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
        indexes.extend((first..=last).take(MOST.saturating_sub(indexes.len())));
    }
    indexes
}

/// Writes a set.
pub fn format(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let text = |(first, last): &(i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_writing_and_reading() {
        for (text, count) in [("", 0), ("0", 1), ("0,1", 2), ("0-2,5", 4), ("1,3,5-9", 7)] {
            let indexes = parse(text);
            assert_eq!(indexes.len(), count, "{text}");
            assert_eq!(format(&indexes), text);
        }
        assert_eq!(parse("x,1-,0-2147483647").len(), MOST);
    }
}
