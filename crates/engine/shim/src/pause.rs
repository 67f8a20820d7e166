//! Does nothing but wait and reap: the first process of a pid namespace that several containers share.

use pintle_linux::process;
use rustix::process::WaitOptions;
use std::os::fd::OwnedFd;

/// Reaps until SIGINT or SIGTERM asks it to end, which no container of the same namespace can do with SIGKILL.
pub fn run() -> i32 {
    let Ok(signals) = process::signal_descriptor(&[libc::SIGCHLD, libc::SIGINT, libc::SIGTERM]) else { return 1 };
    loop {
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        match next_signal(&signals) {
            Some(libc::SIGCHLD) | None => {}
            Some(_) => return 0,
        }
    }
}

/// Waits for a signal. The number is the first word of a `signalfd_siginfo`.
pub(crate) fn next_signal(signals: &OwnedFd) -> Option<i32> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    let mut fds = [rustix::event::PollFd::new(signals, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).ok()?;
    rustix::io::read(signals, &mut info[..]).ok()?;
    Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}
