//! The descriptions of definitions and fields.
//!
//! Packed: a line per definition, its full name, a tab, and the text as a JSON string; then a line per field, after a
//! space the name, a tab and the text.

use std::collections::HashMap;

static PACKED: &[u8] = include_bytes!("../../data/descriptions.zst");

/// The text of all descriptions, about a megabyte.
pub(super) fn unpack() -> String {
    let bytes = zstd::decode_all(PACKED).expect("the built-in descriptions are whole");
    String::from_utf8(bytes).expect("the built-in descriptions are UTF-8")
}

/// Where the descriptions of each definition are in the text.
pub(super) struct Descriptions<'a> {
    definitions: HashMap<&'a str, &'a str>,
}

/// The descriptions of one definition.
#[derive(Clone, Copy)]
pub(super) struct Described<'a>(&'a str);

impl<'a> Descriptions<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let mut definitions = HashMap::new();
        let mut start = 0;
        while start < text.len() {
            let rest = &text[start..];
            let end = next_definition(rest);
            let block = &rest[..end];
            definitions.insert(block.split('\t').next().unwrap_or_default(), block);
            start += end;
        }
        Self { definitions }
    }

    pub(super) fn get(&self, definition: &str) -> Described<'a> {
        Described(self.definitions.get(definition).copied().unwrap_or_default())
    }
}

/// The length of the block at the start of the text.
fn next_definition(text: &str) -> usize {
    let mut at = 0;
    loop {
        match text[at..].find('\n') {
            None => return text.len(),
            Some(end) => at += end + 1,
        }
        if !text[at..].starts_with(' ') {
            return at;
        }
    }
}

impl<'a> Described<'a> {
    /// The definition's own description, as a JSON string; none when it is empty.
    pub(super) fn own(self) -> Option<&'a str> {
        self.0.lines().next().and_then(text_of)
    }

    /// A field's description, as a JSON string.
    pub(super) fn field(self, name: &str) -> Option<&'a str> {
        let mut lines = self.0.lines().skip(1);
        let is_it = |line: &&str| line[1..].split('\t').next() == Some(name);
        lines.find(is_it).and_then(text_of)
    }
}

fn text_of(line: &str) -> Option<&str> {
    line.split_once('\t').map(|(_, text)| text).filter(|text| *text != "\"\"")
}
