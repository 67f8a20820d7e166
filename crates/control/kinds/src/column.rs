//! Columns of the tables that `kubectl get` prints, and the words that cells are made of.

use jiff::Timestamp;
use serde_json::Value;

/// One column of a table. Priority 0 is always shown, 1 only with `-o wide`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: std::borrow::Cow<'static, str>,
    /// An OpenAPI type: `string`, `integer`, `number`, `boolean` or `date`.
    pub column_type: std::borrow::Cow<'static, str>,
    /// `name` marks the column that identifies the object; else empty.
    pub format: std::borrow::Cow<'static, str>,
    pub description: std::borrow::Cow<'static, str>,
    pub priority: i32,
}

impl Column {
    /// A column that built-in kinds declare in constants.
    pub const fn new(
        name: &'static str,
        column_type: &'static str,
        format: &'static str,
        priority: i32,
        description: &'static str,
    ) -> Self {
        use std::borrow::Cow::Borrowed;
        Self {
            name: Borrowed(name),
            column_type: Borrowed(column_type),
            format: Borrowed(format),
            description: Borrowed(description),
            priority,
        }
    }
}

/// The first column of nearly every table.
pub const NAME: Column = Column::new(
    "Name",
    "string",
    "name",
    0,
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a \
     client to request the generation of an appropriate name automatically. Name is primarily intended for creation \
     idempotence and configuration definition. Cannot be updated. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
);

const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed \
     to be set in happens-before order across separate operations. Clients may not set this value. It is represented \
     in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// How long ago the object was made.
pub const AGE: Column = Column::new("Age", "string", "", 0, CREATED);

/// What kinds without columns of their own show.
pub static GENERIC: &[Column] = &[NAME, Column::new("Created At", "date", "", 0, CREATED)];

/// The cells of [`GENERIC`].
pub fn generic_cells(object: &Value) -> Vec<Value> {
    let metadata = &object["metadata"];
    vec![text(metadata, "name").into(), text(metadata, "creationTimestamp").into()]
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The age cell: the time since creation.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

/// The time from an RFC 3339 timestamp until now in short words; `<unknown>` when there is none.
pub fn since(at: &Value, now: Timestamp) -> String {
    match at.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(at) => human_duration(now.as_second() - at.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds in the short form of tables: `5s`, `2m30s`, `8m`, `3h20m`, `2d3h`, `12d`, `2y40d`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let pair = |big: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{rest}{small}"),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => pair(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => pair(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => pair(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shortened() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (600, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 1200, "3h20m"),
            (9 * 3600, "9h"),
            (2 * 86400 + 3 * 3600, "2d3h"),
            (12 * 86400, "12d"),
            (2 * 365 * 86400 + 40 * 86400, "2y40d"),
            (9 * 365 * 86400, "9y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
