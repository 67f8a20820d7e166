//! The parts of timestamps, in UTC or another zone, and of durations.

use super::{function, member, no_overload, text};
use crate::error::EvalError;
use crate::function::{CallContext, CallFn, Function};
use crate::time;
use crate::types::Type::{Duration, Int, String, Timestamp};
use crate::value::{Span, Value};

type Part = fn(jiff::civil::DateTime) -> i64;

/// A function, the identities of its overloads without and with a zone, and of that for durations.
struct Accessor {
    name: &'static str,
    ids: [&'static str; 2],
    duration: Option<(&'static str, CallFn)>,
    call: CallFn,
}

/// A call that takes a part of a timestamp, in the zone of the second argument if there is one.
fn part<'a>(arguments: &[Value<'a>], part: Part) -> Result<Value<'a>, EvalError> {
    let Value::Timestamp(time) = &arguments[0] else { return no_overload() };
    let zone = if arguments.len() > 1 { text(arguments, 1)? } else { "UTC" };
    Ok(Value::Int(part(time::in_zone(*time, zone)?)))
}

fn units<'a>(arguments: &[Value<'a>], nanoseconds: i64) -> Result<Value<'a>, EvalError> {
    match &arguments[0] {
        Value::Duration(Span(span)) => Ok(Value::Int(span / nanoseconds)),
        _ => no_overload(),
    }
}

fn hours<'a>(_: &mut CallContext<'_>, a: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    units(a, 3_600_000_000_000)
}

fn minutes<'a>(_: &mut CallContext<'_>, a: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    units(a, 60_000_000_000)
}

fn seconds<'a>(_: &mut CallContext<'_>, a: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    units(a, 1_000_000_000)
}

fn milliseconds<'a>(_: &mut CallContext<'_>, a: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    units(a, 1_000_000)
}

const ACCESSORS: [Accessor; 10] = [
    Accessor {
        name: "getFullYear",
        ids: ["timestamp_to_year", "timestamp_to_year_with_tz"],
        duration: None,
        call: |_, a| part(a, |time| time.year().into()),
    },
    Accessor {
        name: "getMonth",
        ids: ["timestamp_to_month", "timestamp_to_month_with_tz"],
        duration: None,
        call: |_, a| part(a, |time| i64::from(time.month()) - 1),
    },
    Accessor {
        name: "getDayOfYear",
        ids: ["timestamp_to_day_of_year", "timestamp_to_day_of_year_with_tz"],
        duration: None,
        call: |_, a| part(a, |time| i64::from(time.day_of_year()) - 1),
    },
    Accessor {
        name: "getDayOfMonth",
        ids: ["timestamp_to_day_of_month", "timestamp_to_day_of_month_with_tz"],
        duration: None,
        call: |_, a| part(a, |time| i64::from(time.day()) - 1),
    },
    Accessor {
        name: "getDate",
        ids: ["timestamp_to_day_of_month_1_based", "timestamp_to_day_of_month_1_based_with_tz"],
        duration: None,
        call: |_, a| part(a, |time| time.day().into()),
    },
    Accessor {
        name: "getDayOfWeek",
        ids: ["timestamp_to_day_of_week", "timestamp_to_day_of_week_with_tz"],
        duration: None,
        call: |_, a| part(a, |time| time.weekday().to_sunday_zero_offset().into()),
    },
    Accessor {
        name: "getHours",
        ids: ["timestamp_to_hours", "timestamp_to_hours_with_tz"],
        duration: Some(("duration_to_hours", hours)),
        call: |_, a| part(a, |time| time.hour().into()),
    },
    Accessor {
        name: "getMinutes",
        ids: ["timestamp_to_minutes", "timestamp_to_minutes_with_tz"],
        duration: Some(("duration_to_minutes", minutes)),
        call: |_, a| part(a, |time| time.minute().into()),
    },
    Accessor {
        name: "getSeconds",
        ids: ["timestamp_to_seconds", "timestamp_to_seconds_tz"],
        duration: Some(("duration_to_seconds", seconds)),
        call: |_, a| part(a, |time| time.second().into()),
    },
    Accessor {
        name: "getMilliseconds",
        ids: ["timestamp_to_milliseconds", "timestamp_to_milliseconds_with_tz"],
        duration: Some(("duration_to_milliseconds", milliseconds)),
        call: |_, a| part(a, |time| time.millisecond().into()),
    },
];

pub(super) fn functions() -> Vec<Function> {
    let accessor = |accessor: &Accessor| {
        let mut overloads = vec![
            member(accessor.ids[0], &[Timestamp], Int, accessor.call),
            member(accessor.ids[1], &[Timestamp, String], Int, accessor.call),
        ];
        overloads.extend(accessor.duration.map(|(id, call)| member(id, &[Duration], Int, call)));
        function(accessor.name, overloads)
    };
    ACCESSORS.iter().map(accessor).collect()
}
