//! Durations as upstream's messages print them.

use std::time::Duration;

/// Go's form: `10s`, `1m20s`, `5m0s`, `1.5s`, `120ms`, `0s`.
pub fn go(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        let (unit, name) = match nanos {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{name}", fraction(nanos, unit));
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = fraction(nanos % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, m) => format!("{m}m{rest}s"),
        (h, m) => format!("{h}h{m}m{rest}s"),
    }
}

fn fraction(value: u128, unit: u128) -> String {
    let digits = unit.to_string().len() - 1;
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let tail = format!("{rest:0digits$}");
    format!("{whole}.{}", tail.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::go;
    use std::time::Duration;

    #[test]
    fn prints_as_go_does() {
        for (millis, text) in [
            (0, "0s"),
            (120, "120ms"),
            (1_500, "1.5s"),
            (10_000, "10s"),
            (80_000, "1m20s"),
            (300_000, "5m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go(Duration::from_millis(millis)), text);
        }
        assert_eq!(go(Duration::from_micros(1_234)), "1.234ms");
    }
}
