//! Process 1 of a container that asks for one (`--init`): runs the program, passes signals on to it, and reaps.
//!
//! Behaves as tini, which is Docker's: the program leads a process group of its own, in the foreground when there is a
//! terminal, and the exit code is the program's.

use crate::pause::next_signal;
use pintle_linux::process;
use rustix::process::{Pid, Signal, WaitOptions};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;

/// Signals that tell of a fault of this process, or that the terminal sends to background processes.
const NOT_PASSED: [i32; 9] = [
    libc::SIGSEGV,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
];
/// As execvp(3) in a shell: the program is not there, or cannot be executed.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// Runs a program with its arguments until it ends. The exit code for this process.
pub fn run(program: &[OsString]) -> i32 {
    let taken: Vec<i32> =
        (1..32).filter(|s| !NOT_PASSED.contains(s) && ![libc::SIGKILL, libc::SIGSTOP].contains(s)).collect();
    let Ok(signals) = process::signal_descriptor(&taken) else { return 1 };
    let Some((name, args)) = program.split_first() else { return 1 };
    let mut command = std::process::Command::new(name);
    command.args(args).process_group(0);
    // SAFETY: between fork and exec only async-signal-safe calls are made.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            take_terminal();
            // The mask would be inherited otherwise, and the program would never hear of a signal.
            process::reset_signals();
            Ok(())
        });
    }
    let child = match command.spawn() {
        Ok(child) => child.id().cast_signed(),
        Err(error) => {
            let text = error.to_string();
            let why = text.split(" (os error").next().unwrap_or(&text);
            let own = std::process::id();
            // Whoever does not read it has the exit code.
            let _ = writeln!(std::io::stderr(), "[FATAL tini ({own})] exec {} failed: {why}", name.to_string_lossy());
            let found = error.kind() != std::io::ErrorKind::NotFound;
            return if found { NOT_EXECUTABLE } else { NOT_FOUND };
        }
    };
    loop {
        match next_signal(&signals) {
            None => {}
            Some(libc::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            Some(number) => pass(child, number),
        }
    }
}

/// Makes the program the terminal's foreground group. Without a terminal there is nothing to take.
fn take_terminal() {
    // SAFETY: only numbers pass; the disposition is set back before the program starts.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        libc::tcsetpgrp(0, libc::getpid());
        libc::signal(libc::SIGTTOU, libc::SIG_DFL);
    }
}

/// Reaps all that has ended; the program's exit code if it was among them.
fn reap(program: i32) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() == program {
            let killed = status.terminating_signal().map(|signal| 128 + signal);
            code = status.exit_status().or(killed).or(code);
        }
    }
    code
}

fn pass(program: i32, number: i32) {
    if let (Some(pid), Some(signal)) = (Pid::from_raw(program), Signal::from_named_raw(number)) {
        // It has ended meanwhile; then its end is the next that is heard of.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
