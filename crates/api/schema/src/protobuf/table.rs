//! The numbers of the fields of every definition.
//!
//! A line of `data/protobuf.txt` is a definition: its full name, then words `field=number`. Dots in a number are a Go
//! struct that is embedded: its fields are the definition's own in JSON, but in a message of that number here. A letter
//! behind the number is a message that stands for something else in JSON ([`Form`]). `tools/protobuf-gen` writes it.

use crate::{FieldRef, Schema, TypeRef};
use std::sync::LazyLock;

/// Messages that are no objects in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// `{items}` around a list of texts.
    Wrapped,
    /// A schema, or a list of them.
    SchemaOrList,
    /// A schema, or true or false.
    SchemaOrBool,
    /// A schema, or a list of names.
    SchemaOrNames,
}

/// Numbers from the outer message to the field, then zeros.
pub(super) type Path = [u8; MAX_LEVELS];
/// Structs are embedded in embedded ones, but not deeper.
pub(super) const MAX_LEVELS: usize = 3;

#[derive(Debug)]
pub(super) struct Entry {
    pub path: Path,
    pub form: Form,
    pub field: FieldRef<'static>,
}

/// What a number in a message is.
pub(super) enum Found<'a> {
    Field(&'a Entry),
    /// An embedded struct with that path.
    Embedded(Path),
    Unknown,
}

/// The fields of one definition, sorted by path.
#[derive(Debug)]
pub(super) struct Layout {
    pub entries: Box<[Entry]>,
}

impl Layout {
    /// Looks up a number in the message at `prefix`, `level` messages deep.
    pub fn find(&self, prefix: Path, level: usize, number: u32) -> Found<'_> {
        let (Ok(number), true) = (u8::try_from(number), level < MAX_LEVELS) else { return Found::Unknown };
        let mut path = prefix;
        path[level] = number;
        let at = self.entries.partition_point(|entry| entry.path < path);
        match self.entries.get(at) {
            Some(entry) if entry.path == path => Found::Field(entry),
            Some(entry) if entry.path[..=level] == path[..=level] => Found::Embedded(path),
            _ => Found::Unknown,
        }
    }
}

/// The layout of an object type's message; none for types that have no message.
pub(super) fn layout(ty: TypeRef<'_>) -> Option<&'static Layout> {
    // By the number of the definition: every message of every object asks.
    static TABLE: LazyLock<Vec<Option<Layout>>> = LazyLock::new(load);
    TABLE.get(ty.definition_number()?)?.as_ref()
}

/// The type of schemas in definitions of custom resources, which [`Form`]s hold.
pub(super) fn schema_type() -> Option<TypeRef<'static>> {
    Schema::builtin().definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
}

/// Definitions and fields that the schema lacks are left out; a test tells that there are none.
fn load() -> Vec<Option<Layout>> {
    let mut table = Vec::new();
    for (name, layout) in include_str!("../../data/protobuf.txt").lines().filter_map(definition) {
        let Some(number) = Schema::builtin().definition(name).and_then(|ty| ty.definition_number()) else { continue };
        if table.len() <= number {
            table.resize_with(number + 1, || None);
        }
        table[number] = Some(layout);
    }
    table
}

fn definition(line: &'static str) -> Option<(&'static str, Layout)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let ty = Schema::builtin().definition(name)?;
    let mut entries: Vec<Entry> = words.filter_map(|word| entry(ty, word)).collect();
    entries.sort_unstable_by_key(|entry| entry.path);
    Some((name, Layout { entries: entries.into() }))
}

fn entry(ty: TypeRef<'static>, word: &str) -> Option<Entry> {
    let (name, place) = word.split_once('=')?;
    let numbers = place.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let form = match &place[numbers.len()..] {
        "" => Form::Plain,
        "w" => Form::Wrapped,
        "a" => Form::SchemaOrList,
        "b" => Form::SchemaOrBool,
        "s" => Form::SchemaOrNames,
        _ => return None,
    };
    let mut path = [0; MAX_LEVELS];
    for (index, number) in numbers.split('.').enumerate() {
        *path.get_mut(index)? = number.parse().ok()?;
    }
    Some(Entry { path, form, field: ty.field(name)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        for line in include_str!("../../data/protobuf.txt").lines() {
            let (name, layout) = definition(line).unwrap_or_else(|| unreachable!("{line}"));
            assert_eq!(layout.entries.len(), line.split(' ').count() - 1, "{name}");
            assert!(layout.entries.windows(2).all(|pair| pair[0].path < pair[1].path), "{name}");
        }
    }
}
