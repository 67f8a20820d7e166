//! Names of signals and their numbers, as images and pods write them.

/// Names without `SIG`, by number (x86 and arm; signal(7)).
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
    "IO", "PWR", "SYS",
];

/// The number of `SIGTERM`, `TERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`; nothing when there is no such signal.
pub fn parse(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = NAMES.iter().position(|n| !n.is_empty() && *n == name) {
        return Some(number as i32);
    }
    real_time(name)
}

fn real_time(name: &str) -> Option<i32> {
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => 34,
        (_, Some("")) => 64,
        (Some(offset), _) => 34_i32.checked_add(offset.strip_prefix('+')?.parse::<u8>().ok()?.into())?,
        (_, Some(offset)) => 64_i32.checked_sub(offset.strip_prefix('-')?.parse::<u8>().ok()?.into())?,
        (None, None) => return None,
    };
    (34..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_and_numbers_are_understood() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN+99", None),
            ("0", None),
            ("SIG", None),
            ("", None),
            ("NOPE", None),
        ];
        for (text, expected) in cases {
            assert_eq!(super::parse(text), expected, "{text:?}");
        }
    }
}
