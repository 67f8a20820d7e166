//! Signals by their numbers in CRI; 0 is the runtime's own choice.

use super::{Converted, unknown};
use pintle_types::signals;

/// The name, such as `SIGQUIT` or `SIGRTMIN+3`; empty is the runtime's choice.
pub(super) fn name(number: i32) -> Converted<String> {
    if number == 0 {
        return Ok(String::new());
    }
    signals::name(number).ok_or_else(|| unknown("signal", number))
}

/// The number of a name; a name that CRI does not have is the runtime's choice.
pub(super) fn number(name: &str) -> i32 {
    signals::number(name).unwrap_or_default()
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
