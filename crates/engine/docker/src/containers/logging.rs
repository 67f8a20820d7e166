//! What a container's log options say: how large its files become, and what stands beside its lines.

use super::record::Record;
use super::validate::bytes;
use crate::error::{DockerError, Result};
use std::collections::BTreeMap;

/// Bytes of a log file of the driver `local`, and how many are kept, unless options say otherwise.
const LOCAL: (u64, u32) = (20_000_000, 5);
/// Bytes that wait for the disk, unless `max-buffer-size` says otherwise.
const RING: u64 = 1_000_000;

/// Bytes of a log file (0 is any number) and how many are kept, from `max-size`, `max-file` and `compress`.
///
/// # Errors
/// In Docker's words, which come when a container is started.
pub(super) fn rotation(record: &Record) -> Result<(u64, u32)> {
    let failed = |why: String| {
        DockerError::internal(format!(
            "failed to create task for container: failed to initialize logging driver: {why}"
        ))
    };
    let read = if record.host.log_config.kind == "local" { local } else { json_file };
    read(&record.host.log_config.config).map_err(failed)
}

/// How many bytes of lines may wait for the disk where the container may not (`mode=non-blocking`).
pub(super) fn ring(record: &Record) -> Option<u64> {
    let options = &record.host.log_config.config;
    let waits = options.get("mode").is_none_or(|mode| mode != "non-blocking");
    (!waits).then(|| options.get("max-buffer-size").and_then(|size| bytes(size)).unwrap_or(RING))
}

type Texts = BTreeMap<String, String>;

fn json_file(options: &Texts) -> std::result::Result<(u64, u32), String> {
    let size = match options.get("max-size") {
        Some(text) => human_size(text).ok_or_else(|| format!("invalid size: '{text}'"))?,
        None => 0,
    };
    if size == 0 && options.contains_key("max-size") {
        return Err("max-size must be a positive number".to_owned());
    }
    let files = options.get("max-file").map_or(Ok(1), |text| number(text))?;
    if files < 1 {
        return Err("max-file cannot be less than 1".to_owned());
    }
    if compressed(options)? && (files == 1 || size == 0) {
        return Err("compress cannot be true when max-file is less than 2 or max-size is not set".to_owned());
    }
    Ok((size, u32::try_from(files).unwrap_or(u32::MAX)))
}

fn local(options: &Texts) -> std::result::Result<(u64, u32), String> {
    let size = match options.get("max-size") {
        Some(text) => {
            human_size(text).ok_or_else(|| format!("invalid value for max-size: {text}: invalid size: '{text}'"))?
        }
        None => LOCAL.0,
    };
    let files = match options.get("max-file") {
        Some(text) => number(text).map_err(|why| format!("invalid value for max-file: {text}: {why}"))?,
        None => LOCAL.1.into(),
    };
    let compressed = match options.contains_key("compress") {
        true => compressed(options).map_err(|why| format!("error reading compress log option: {why}"))?,
        false => true,
    };
    if files < 0 {
        return Err("max file count cannot be less than 0".to_owned());
    }
    if compressed && files <= 1 {
        return Err("compression cannot be enabled when max file count is 1".to_owned());
    }
    Ok((size, u32::try_from(files.max(1)).unwrap_or(u32::MAX)))
}

fn number(text: &str) -> std::result::Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

fn compressed(options: &Texts) -> std::result::Result<bool, String> {
    match options.get("compress").map(String::as_str) {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(other) => Err(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
    }
}

/// Bytes of `10m`, `1.5GB`: here units are powers of a thousand.
fn human_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let power = match unit.trim().trim_end_matches('b') {
        "" => 0,
        one if one.len() == 1 => "kmgtp".find(one)? + 1,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * 1000_f64.powi(i32::try_from(power).ok()?);
    (bytes < 9e18).then_some(bytes as u64)
}

/// What `--details` shows beside each line: chosen labels and variables, and the tag.
pub(crate) fn details(record: &Record) -> String {
    let options = &record.host.log_config.config;
    let chosen = |option: &str| -> Vec<String> {
        options.get(option).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let mut all = Texts::new();
    let labels = record.config.labels.as_ref();
    for name in chosen("labels") {
        if let Some(value) = labels.and_then(|labels| labels.get(&name)) {
            all.insert(name, value.clone());
        }
    }
    for name in chosen("env") {
        let mut latest_first = record.config.env.iter().flatten().rev().filter_map(|v| v.split_once('='));
        if let Some((_, value)) = latest_first.find(|(own, _)| *own == name) {
            all.insert(name, value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        all.insert("tag".to_owned(), filled(tag, record));
    }
    let pairs: Vec<String> = all.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    pairs.join(",")
}

/// A tag with what its fields stand for.
fn filled(tag: &str, record: &Record) -> String {
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let command = std::iter::once(&record.program).chain(&record.args).cloned().collect::<Vec<_>>().join(" ");
    let fields = [
        ("ID", short(&record.id)),
        ("FullID", record.id.clone()),
        ("Name", record.name.clone()),
        ("ImageID", short(&record.image_id)),
        ("ImageFullID", record.image_id.clone()),
        ("ImageName", record.config.image.clone()),
        ("DaemonName", "docker".to_owned()),
        ("Command", command),
    ];
    fields.iter().fold(tag.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{.{name}}}}}"), value).replace(&format!("{{{{ .{name} }}}}"), value)
    })
}

/// As in the query of an address: what is no letter, digit or one of `-_.~` by its bytes, a space as `+`.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, HostConfig, LogConfig};

    fn with(kind: &str, options: &[(&str, &str)]) -> Record {
        let config = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let log_config = LogConfig { kind: kind.to_owned(), config };
        Record { host: HostConfig { log_config, ..HostConfig::default() }, ..Record::default() }
    }

    #[test]
    fn sizes_are_decimal_and_mistakes_are_dockers() {
        for (options, expected) in [
            (&[][..], Ok((0, 1))),
            (&[("max-size", "1k"), ("max-file", "3")], Ok((1000, 3))),
            (&[("max-size", "1.5MB")], Ok((1_500_000, 1))),
            (&[("max-size", "abc")], Err("invalid size: 'abc'")),
            (&[("max-size", "0")], Err("max-size must be a positive number")),
            (&[("max-file", "0")], Err("max-file cannot be less than 1")),
            (
                &[("compress", "true")],
                Err("compress cannot be true when max-file is less than 2 or max-size is not set"),
            ),
        ] {
            let told = rotation(&with("json-file", options)).map_err(|e| e.message);
            let start = "failed to create task for container: failed to initialize logging driver: ";
            assert_eq!(told, expected.map_err(|why| format!("{start}{why}")), "{options:?}");
        }
        assert_eq!(rotation(&with("local", &[])), Ok(LOCAL));
        assert!(rotation(&with("local", &[("max-file", "1")])).is_err());
    }

    #[test]
    fn lines_wait_only_where_the_container_does_not() {
        for (options, expected) in [
            (&[][..], None),
            (&[("mode", "blocking")], None),
            (&[("mode", "non-blocking")], Some(1_000_000)),
            (&[("mode", "non-blocking"), ("max-buffer-size", "4k")], Some(4096)),
            (&[("mode", "non-blocking"), ("max-buffer-size", "0")], Some(0)),
        ] {
            assert_eq!(ring(&with("local", options)), expected, "{options:?}");
        }
    }

    #[test]
    fn details_are_chosen_labels_variables_and_the_tag() {
        let mut record = with("json-file", &[("labels", "a,none"), ("env", "E"), ("tag", "{{.Name}}/{{ .ID }}")]);
        record.name = "web".to_owned();
        record.id = "0123456789abcdef".to_owned();
        record.config = Config {
            labels: Some([("a".to_owned(), "b c".to_owned())].into()),
            env: Some(vec!["E=1".to_owned(), "F=2".to_owned()]),
            ..Config::default()
        };
        assert_eq!(details(&record), "E=1,a=b+c,tag=web%2F0123456789ab");
    }
}
