//! Opens terminals of a given devpts, so that a container's terminal is one of its own.

use crate::process::check;
use crate::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Terminal {
    pub controller: OwnedFd,
    pub user: OwnedFd,
    /// N of /dev/pts/N.
    pub number: u32,
}

/// Opens a terminal of the devpts whose root directory is `devpts`. No path is followed to get at its user's end
/// (TIOCGPTPEER, ioctl_tty(2)).
pub fn open(devpts: BorrowedFd<'_>) -> Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let controller = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty()).context(|| "open a terminal")?;
    rustix::pty::unlockpt(&controller).context(|| "unlock a terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let user = rustix::pty::ioctl_tiocgptpeer(&controller, flags).context(|| "open a terminal's user end")?;
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel writes one unsigned int to `number`.
    let done = unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    check(done.into()).context(|| "ask a terminal's number")?;
    Ok(Terminal { controller, user, number })
}

/// Starts a session with this terminal as its own.
pub fn make_controlling(user: &OwnedFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(user).context(|| "make the terminal controlling")
}

/// Tells a terminal its size; its foreground processes get SIGWINCH.
pub fn resize(controller: &impl AsFd, columns: u16, rows: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(controller, size).context(|| "resize a terminal")
}
