//! Signals that containers may be stopped with, by their names and by their numbers in CRI, which are not Linux'.
//!
//! Source: `Signal` in `k8s.io/api/core/v1` and in CRI's `runtime.v1`.

/// In the order of their numbers, from 1 on; the real-time ones follow.
const FIRST: [&str; 34] = [
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
];
const MIN: i32 = 35;
const LAST_AFTER_MIN: i32 = 50;
const MAX: i32 = 65;

/// The name, such as `SIGQUIT` or `SIGRTMIN+3`.
pub fn name(number: i32) -> Option<String> {
    Some(match number {
        1..MIN => FIRST[(number - 1) as usize].to_owned(),
        MIN => "SIGRTMIN".to_owned(),
        36..=LAST_AFTER_MIN => format!("SIGRTMIN+{}", number - MIN),
        51..MAX => format!("SIGRTMAX-{}", MAX - number),
        MAX => "SIGRTMAX".to_owned(),
        _ => return None,
    })
}

/// All names, in the order of their numbers.
pub fn names() -> impl Iterator<Item = String> {
    (1..=MAX).filter_map(name)
}

/// The number of a name.
pub fn number(name: &str) -> Option<i32> {
    names().zip(1..).find(|(known, _)| known == name).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_of_its_own() {
        assert_eq!(names().count(), 65);
        for (name, number) in names().zip(1..) {
            assert_eq!(super::number(&name), Some(number), "{name}");
        }
        assert_eq!((name(0), name(66), number("SIGRTMIN+16")), (None, None, None));
    }
}
