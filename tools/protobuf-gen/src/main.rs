//! Writes `crates/api/schema/data/protobuf.txt`: the field numbers of every definition.
//!
//! `protobuf-gen MESSAGES DATA-DIR`. MESSAGES is a JSON table: message name to field number to `[name, type]`, as
//! upstream's `generated.proto` files declare them. DATA-DIR holds `structure.txt`, which `schema-gen` writes: run that
//! first. Only the definitions in it are kept. The form of the result is described in
//! crates/api/schema/src/protobuf/table.rs. It is committed; building pintle does not need this tool.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [messages, data] = args.as_slice() else { bail!("usage: protobuf-gen MESSAGES DATA-DIR") };
    let text = std::fs::read_to_string(messages).with_context(|| format!("can't read {messages}"))?;
    let messages = Messages(serde_json::from_str(&text).with_context(|| format!("{messages} is no JSON object"))?);
    let structure = Path::new(data).join("structure.txt");
    let structure = std::fs::read_to_string(&structure).with_context(|| format!("can't read {structure:?}"))?;
    let mut out = String::new();
    for definition in definitions(&structure) {
        definition.emit(&messages, &mut out)?;
    }
    std::fs::write(Path::new(data).join("protobuf.txt"), out)?;
    Ok(())
}

/// A struct of the structure table: its field names and the words for their types.
struct Definition<'a> {
    name: &'a str,
    fields: BTreeMap<&'a str, &'a str>,
}

fn definitions(structure: &str) -> Vec<Definition<'_>> {
    let mut found: Vec<Definition<'_>> = Vec::new();
    for line in structure.lines() {
        let mut words = line.trim_start().split(' ');
        let name = words.next().unwrap_or_default();
        match found.last_mut() {
            Some(definition) if line.starts_with(' ') => {
                definition.fields.insert(name, words.next().unwrap_or_default());
            }
            _ if words.any(|word| word.starts_with("is=") && word != "is=struct") => {}
            _ => found.push(Definition { name, fields: BTreeMap::new() }),
        }
    }
    found
}

/// Message name to field number to name and type.
struct Messages(Map<String, Value>);

impl Messages {
    /// The fields of a message by number.
    fn fields(&self, name: &str) -> Option<BTreeMap<u16, (&str, &str)>> {
        let fields = self.0.get(name)?.as_object()?.iter();
        fields.map(|(number, field)| Some((number.parse().ok()?, (field[0].as_str()?, field[1].as_str()?)))).collect()
    }
}

impl Definition<'_> {
    fn emit(&self, messages: &Messages, out: &mut String) -> Result<()> {
        let message = self.name.trim_start_matches("io.k8s.").replacen("-", "_", 1);
        if messages.fields(&message).is_none() {
            println!("no message for {}", self.name);
            return Ok(());
        }
        let mut left = self.fields.clone();
        let mut line = self.name.to_owned();
        self.message(messages, &message, "", &mut left, &mut line)?;
        left.retain(|field, _| !matches!(*field, "apiVersion" | "kind"));
        if !left.is_empty() {
            bail!("{} has fields without numbers: {left:?}", self.name);
        }
        writeln!(out, "{line}")?;
        Ok(())
    }

    /// Adds a message's fields; `left` are those of the definition that have no number yet.
    fn message(
        &self,
        messages: &Messages,
        message: &str,
        prefix: &str,
        left: &mut BTreeMap<&str, &str>,
        line: &mut String,
    ) -> Result<()> {
        let fields = messages.fields(message).with_context(|| format!("there is no message {message}"))?;
        for (number, (name, ty)) in fields {
            let found = left.iter().find(|(field, _)| plain(field) == plain(name)).map(|(f, ty)| (*f, *ty));
            match found {
                Some((field, known)) => {
                    check(self.name, field, known, ty)?;
                    write!(line, " {field}={prefix}{number}{}", form(ty))?;
                    left.remove(field);
                }
                // A Go struct that is embedded: its fields are the definition's own in JSON.
                None => self.message(messages, &full(message, ty), &format!("{prefix}{number}."), left, line)?,
            }
        }
        Ok(())
    }
}

/// A name without what differs between the two: `xKubernetesMapType` is `x-kubernetes-map-type`, `uID` is `uid`.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The full name of a type that is named in a message.
fn full(message: &str, ty: &str) -> String {
    let package = message.rsplit_once('.').map_or("", |(package, _)| package);
    ty.strip_prefix('.').map_or_else(|| format!("{package}.{ty}"), str::to_owned)
}

/// The type of a field, or of its items or values.
fn inner(ty: &str) -> &str {
    let ty = ty.strip_prefix("[]").unwrap_or(ty);
    ty.strip_prefix("map<string, ").map_or(ty, |rest| rest.trim_end_matches('>'))
}

/// Messages that stand for something that is none in JSON.
fn form(ty: &str) -> &'static str {
    match inner(ty).rsplit('.').next().unwrap_or_default() {
        "Verbs" | "ExtraValue" => "w",
        "JSONSchemaPropsOrArray" => "a",
        "JSONSchemaPropsOrBool" => "b",
        "JSONSchemaPropsOrStringArray" => "s",
        _ => "",
    }
}

/// The numbers are read by the type that the structure table tells: both must agree.
fn check(definition: &str, field: &str, known: &str, ty: &str) -> Result<()> {
    let shape = |list: bool, map: bool| {
        if list {
            "list"
        } else if map {
            "map"
        } else {
            ""
        }
    };
    let wrapped = form(ty) == "w";
    let own = known.strip_prefix("{}").filter(|_| wrapped).unwrap_or(known);
    let known_shape = if wrapped { "" } else { shape(known.starts_with("[]"), known.starts_with("{}")) };
    let shape = if wrapped { "" } else { shape(ty.starts_with("[]"), ty.starts_with("map<")) };
    let scalar = inner(ty);
    let expected = match own.trim_start_matches("[]").trim_start_matches("{}") {
        "string" if wrapped => scalar,
        "number" => "double",
        "quantity" => "Quantity",
        "intorstring" => "IntOrString",
        "time" => "Time",
        "microtime" => "MicroTime",
        "fields" => "FieldsV1",
        "any" if scalar.ends_with("JSON") => "JSON",
        "any" => "RawExtension",
        scalar @ ("string" | "int32" | "int64" | "bool" | "bytes") => scalar,
        name => name.rsplit('.').next().unwrap_or_default(),
    };
    if shape != known_shape || scalar.rsplit('.').next() != expected.rsplit('.').next() {
        bail!("{definition}.{field} is {known} here and {ty} there");
    }
    Ok(())
}
