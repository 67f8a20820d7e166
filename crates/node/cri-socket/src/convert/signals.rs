//! Signals by their numbers in CRI, which are not Linux'.

use super::{Converted, unknown};

/// In the order of their numbers; the first is the runtime's own choice.
const FIRST: [&str; 36] = [
    "",
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGRTMIN",
];
const MIN: i32 = 35;
const LAST_AFTER_MIN: i32 = 50;
const MAX: i32 = 65;

/// The name, such as `SIGQUIT` or `SIGRTMIN+3`; empty is the runtime's choice.
pub(super) fn name(number: i32) -> Converted<String> {
    Ok(match number {
        0..=MIN => FIRST[number as usize].to_owned(),
        36..=LAST_AFTER_MIN => format!("SIGRTMIN+{}", number - MIN),
        51..MAX => format!("SIGRTMAX-{}", MAX - number),
        MAX => "SIGRTMAX".to_owned(),
        _ => return Err(unknown("signal", number)),
    })
}

/// The number of a name; a name that CRI does not have is the runtime's choice.
pub(super) fn number(name: &str) -> i32 {
    (0..=MAX).find(|number| self::name(*number).is_ok_and(|known| known == name)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_upstreams_numbers() {
        for (shown, expected) in [
            ("", 0),
            ("SIGKILL", 13),
            ("SIGTERM", 23),
            ("SIGXFSZ", 34),
            ("SIGRTMIN", 35),
            ("SIGRTMIN+15", 50),
            ("SIGRTMAX-14", 51),
            ("SIGRTMAX-1", 64),
            ("SIGRTMAX", 65),
        ] {
            assert_eq!(number(shown), expected, "{shown}");
            assert_eq!(name(expected).unwrap(), shown);
        }
        assert!(name(66).is_err() && name(-1).is_err());
    }
}
