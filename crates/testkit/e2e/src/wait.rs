//! Waits for a condition of a program that has no other way to tell: asks again, a little later.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer, at most for `limit`. `describe` tells what was seen last, for the failure.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut last = None;
    loop {
        match ask() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if start.elapsed() > limit {
            match last {
                Some(error) => bail!("{what}: not within {} s; last: {error:#}", limit.as_secs()),
                None => bail!("{what}: not within {} s", limit.as_secs()),
            }
        }
        std::thread::park_timeout(PAUSE);
    }
}
