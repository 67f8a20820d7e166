//! Image configurations: what a new image's says, and changes to it in the words of a Dockerfile.
//!
//! Source: OCI image specification, "Image Configuration"; `docker commit --change`, `docker import --change`.

use crate::assemble::oci_architecture;
use crate::{ImageError, Result};
use serde_json::{Map, Value, json};

/// The digest of an archive without entries: a layer that changes nothing.
pub(crate) const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What is new in an image.
pub(crate) struct Addition<'a> {
    /// The uncompressed digest of the new layer; nothing for an empty one.
    pub(crate) diff_id: Option<&'a str>,
    pub(crate) created: &'a str,
    pub(crate) created_by: &'a str,
    pub(crate) author: &'a str,
    pub(crate) comment: &'a str,
    pub(crate) config: &'a Value,
    /// More members of the configuration, such as `container` and `docker_version`.
    pub(crate) extra: &'a Value,
}

/// The configuration of an image on top of another, or on none.
pub(crate) fn child(parent: Option<&Value>, new: &Addition<'_>) -> Value {
    let list = |pointer: &str| parent.and_then(|p| p.pointer(pointer)).and_then(Value::as_array).cloned();
    let mut history = list("/history").unwrap_or_default();
    let mut diff_ids = list("/rootfs/diff_ids").unwrap_or_default();
    history.push(history_entry(new));
    diff_ids.extend(new.diff_id.map(Value::from));
    let inherited = |name: &str, default: &str| {
        parent.and_then(|p| p[name].as_str()).filter(|s| !s.is_empty()).unwrap_or(default).to_owned()
    };
    let mut made = Map::new();
    made.insert("architecture".into(), inherited("architecture", oci_architecture()).into());
    made.insert("os".into(), inherited("os", "linux").into());
    let variant = inherited("variant", "");
    for (name, value) in [("variant", variant.as_str()), ("author", new.author), ("comment", new.comment)] {
        if !value.is_empty() {
            made.insert(name.into(), value.into());
        }
    }
    made.insert("created".into(), new.created.into());
    made.insert("config".into(), new.config.clone());
    made.insert("history".into(), history.into());
    made.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    if let Some(extra) = new.extra.as_object() {
        made.extend(extra.clone());
    }
    Value::Object(made)
}

fn history_entry(new: &Addition<'_>) -> Value {
    let mut entry = Map::new();
    entry.insert("created".into(), new.created.into());
    for (name, value) in [("author", new.author), ("created_by", new.created_by), ("comment", new.comment)] {
        if !value.is_empty() {
            entry.insert(name.into(), value.into());
        }
    }
    if new.diff_id.is_none() {
        entry.insert("empty_layer".into(), true.into());
    }
    Value::Object(entry)
}

/// Changes a `Config` object by instructions such as `CMD ["sh"]` and `ENV A=b`.
///
/// # Errors
/// For an instruction that cannot be applied to a configuration alone, or that does not read well.
pub fn apply_changes(config: &mut Value, changes: &[String]) -> Result<()> {
    if !config.is_object() {
        *config = json!({});
    }
    for change in changes.iter().flat_map(|c| c.lines()).map(str::trim).filter(|c| !c.is_empty()) {
        let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
        apply(config, &word.to_ascii_uppercase(), rest.trim())?;
    }
    Ok(())
}

fn apply(config: &mut Value, word: &str, rest: &str) -> Result<()> {
    match word {
        "CMD" => config["Cmd"] = command(rest),
        "ENTRYPOINT" => config["Entrypoint"] = command(rest),
        "USER" => config["User"] = rest.into(),
        "WORKDIR" => config["WorkingDir"] = directory(config["WorkingDir"].as_str().unwrap_or_default(), rest).into(),
        "STOPSIGNAL" => config["StopSignal"] = rest.into(),
        "ENV" => {
            for (key, value) in pairs(word, rest)? {
                set_variable(config, &key, &value);
            }
        }
        "LABEL" => {
            for (key, value) in pairs(word, rest)? {
                config["Labels"][key] = value.into();
            }
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = if port.contains('/') { port.to_ascii_lowercase() } else { format!("{port}/tcp") };
                config["ExposedPorts"][port] = json!({});
            }
        }
        "VOLUME" => {
            for volume in list(rest) {
                config["Volumes"][volume] = json!({});
            }
        }
        "ONBUILD" => match &mut config["OnBuild"] {
            Value::Array(all) => all.push(rest.into()),
            other => *other = json!([rest]),
        },
        _ => return Err(ImageError::Invalid(format!("{} is not a valid change command", word.to_lowercase()))),
    }
    Ok(())
}

/// A JSON array, or a line for the shell.
fn command(rest: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(words) if words.is_empty() => Value::Null,
        Ok(words) => words.into(),
        Err(_) => json!(["/bin/sh", "-c", rest]),
    }
}

fn list(rest: &str) -> Vec<String> {
    let words = || rest.split_whitespace().map(str::to_owned).collect();
    serde_json::from_str(rest).unwrap_or_else(|_| words())
}

fn directory(before: &str, rest: &str) -> String {
    let joined = std::path::Path::new(if before.is_empty() { "/" } else { before }).join(rest);
    joined.display().to_string()
}

fn set_variable(config: &mut Value, key: &str, value: &str) {
    let entry = Value::from(format!("{key}={value}"));
    if !config["Env"].is_array() {
        config["Env"] = json!([]);
    }
    let Some(all) = config["Env"].as_array_mut() else { return };
    let prefix = format!("{key}=");
    match all.iter_mut().find(|e| e.as_str().is_some_and(|e| e.starts_with(&prefix))) {
        Some(present) => *present = entry,
        None => all.push(entry),
    }
}

/// `key=value "other key"='other value'`, or the old form `key the rest`.
fn pairs(word: &str, rest: &str) -> Result<Vec<(String, String)>> {
    let words = unquoted(rest);
    if let Some((key, value)) = rest.split_once(char::is_whitespace).filter(|(key, _)| !key.contains('=')) {
        return Ok(vec![(key.to_owned(), unquoted(value.trim()).join(" "))]);
    }
    let pair = |text: String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(ImageError::Invalid(format!(
            "Syntax error - can't find = in {text:?}. Must be of the form: name=value"
        ))),
    };
    if words.is_empty() {
        return Err(ImageError::Invalid(format!("{word} requires at least one argument")));
    }
    words.into_iter().map(pair).collect()
}

/// Splits at spaces outside of quotes, and takes quotes and backslashes away.
fn unquoted(text: &str) -> Vec<String> {
    let (mut words, mut current, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => current.extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => (quote, begun) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if begun || !current.is_empty() {
                    words.push(std::mem::take(&mut current));
                }
                begun = false;
            }
            (c, _) => current.push(c),
        }
    }
    if begun || !current.is_empty() {
        words.push(current);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_applied_as_dockerfiles_say() {
        let mut config = json!({ "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/w" });
        let changes = [
            "CMD [\"sh\", \"-c\"]",
            "ENTRYPOINT echo hi",
            "ENV A=2 B=\"two words\"",
            "ENV OLD some text",
            "LABEL l=m 'a b'=c",
            "EXPOSE 80 53/UDP",
            "VOLUME [\"/a\"]",
            "VOLUME /b /c",
            "USER 5",
            "WORKDIR sub",
            "ONBUILD RUN x",
        ];
        apply_changes(&mut config, &changes.map(str::to_owned)).unwrap();
        let expected = json!({
            "Cmd": ["sh", "-c"], "Entrypoint": ["/bin/sh", "-c", "echo hi"],
            "Env": ["PATH=/bin", "A=2", "B=two words", "OLD=some text"], "Labels": { "l": "m", "a b": "c" },
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Volumes": { "/a": {}, "/b": {}, "/c": {} },
            "User": "5", "WorkingDir": "/w/sub", "OnBuild": ["RUN x"],
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn what_changes_no_configuration_is_refused() {
        for bad in ["RUN true", "COPY a b", "ENV", "LABEL =x"] {
            assert!(apply_changes(&mut json!({}), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
