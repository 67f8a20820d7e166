//! Reads the ports of EXPOSE and the signals of STOPSIGNAL.

/// The ports that a word such as `80`, `53/udp` or `8000-8005/tcp` names, as `port/protocol`.
///
/// # Errors
/// In Docker's words.
pub(crate) fn parse(word: &str) -> Result<Vec<String>, String> {
    let container = word.rsplit(':').next().unwrap_or_default();
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(format!("no port specified: {word}<empty>"));
    }
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect()),
        _ => Err(format!("invalid containerPort: {range}")),
    }
}

/// Whether a signal's name or number is one.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check_signal(signal: &str) -> Result<(), String> {
    pintle_linux::signal::parse(signal).map(drop).ok_or_else(|| format!("invalid signal: {signal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!(parse("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("1:53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(parse("8000-8002/sctp").unwrap(), ["8000/sctp", "8001/sctp", "8002/sctp"]);
        for (word, error) in [
            ("x", "invalid containerPort: x"),
            ("80/foo", "invalid proto: foo"),
            ("/tcp", "no port specified: /tcp<empty>"),
            ("9-8", "invalid containerPort: 9-8"),
            ("70000", "invalid containerPort: 70000"),
        ] {
            assert_eq!(parse(word).unwrap_err(), error);
        }
    }

    #[test]
    fn signals_are_checked() {
        for good in ["9", "SIGINT", "term", "RTMIN+3", "SIGRTMAX-15"] {
            check_signal(good).unwrap();
        }
        for bad in ["0", "SIGNOPE", "", "RTMIN+x"] {
            assert_eq!(check_signal(bad).unwrap_err(), format!("invalid signal: {bad}"));
        }
    }
}
